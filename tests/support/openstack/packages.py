"""The programs: found, or installed where that is allowed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.tools import ROOT, load_tool

HERE = Path(__file__).resolve().parent
CACHE = ROOT / ".cache" / "openstack"
SERVICES = HERE / "requirements.txt"
CLIENTS = HERE / "clients.txt"
"""Both are pinned: `uv pip compile --no-header --no-annotate NAME.in -o NAME.txt` makes them anew."""

DEBIAN = {
    "/usr/sbin/mariadbd": "mariadb-server-core",
    "/usr/bin/my_print_defaults": "mariadb-client-core",
    "/usr/sbin/apache2": "apache2-bin",
    "/usr/lib/apache2/modules/mod_auth_openidc.so": "libapache2-mod-auth-openidc",
}
"""File and package. None of these packages starts a service."""


class UnavailableError(Exception):
    """Something that the OpenStack needs cannot be had here; says what."""


@dataclass(frozen=True)
class Needs:
    """What an OpenStack is started with."""

    venv: Path

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"


@cache
def ensure() -> Needs:
    """Everything that the services need. Raises UnavailableError."""
    if sys.platform != "linux":
        raise UnavailableError("it needs Linux")
    _ensure_debian()
    return Needs(ensure_environment("services", SERVICES))


@cache
def ensure_clients() -> Path:
    """The programs of people who have an OpenStack client today. Raises UnavailableError."""
    return ensure_environment("clients", CLIENTS) / "bin"


def ensure_environment(name: str, requirements: Path) -> Path:
    """A virtual environment with just these requirements, made once. Raises UnavailableError."""
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    target = CACHE / f"{name}-{key}"
    with locked(CACHE / f"{name}.lock"):
        if not (target / ".complete").exists():
            _make_environment(target, requirements)
            (target / ".complete").touch()
    return target


def _make_environment(target: Path, requirements: Path) -> None:
    print(f"OpenStack: installing {requirements.name} …", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    bootstrap = load_tool("bootstrap")
    uv, environ = bootstrap.find_uv(ignore_path=False), bootstrap.uv_environment()
    steps = (
        ["venv", "--quiet", "--python", sys.executable, str(target)],
        ["pip", "install", "--quiet", "--python", str(target / "bin" / "python"), "-r", str(requirements)],
    )
    for step in steps:
        done = subprocess.run([uv, *step], env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UnavailableError(f"{requirements.name} could not be installed: {done.stderr.strip()[-400:]}")


def _ensure_debian() -> None:
    missing = [package for file, package in DEBIAN.items() if not Path(file).exists()]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise UnavailableError(f"not installed: {' '.join(missing)} (Debian: apt-get install them)")
    print(f"OpenStack: installing Debian's {' '.join(missing)} …", flush=True)
    quietly = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            [*quietly, *step],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise UnavailableError(f"apt-get {step[0]} failed: {done.stderr.strip()[-400:]}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One run at a time does what others wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
