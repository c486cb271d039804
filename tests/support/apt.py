"""Debian packages that tests need: installed where the tests run as root, else the test is skipped with a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str) -> str | None:
    """Where a program is; also where an ordinary user's PATH does not look."""
    return shutil.which(name, path=_PATH)


def need(programs: Sequence[str], packages: Sequence[str]) -> None:
    """See to it that the programs are there; skips the test where they cannot be had."""
    if all(program(name) for name in programs):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"needs {', '.join(packages)}, and this user cannot install packages")
    quietly = ["apt-get", "-qq", "-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=300"]
    install = [*quietly, "install", "-y", "--no-install-recommends", *packages]
    # A package's own service must not start: the tests start their own.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    problem = ""
    for step in (install, [*quietly, "update"], install):
        done = subprocess.run(step, env=environment, capture_output=True, text=True, timeout=600, check=False)
        problem = done.stderr.strip()[-300:]
        if all(program(name) for name in programs):
            return
    pytest.skip(f"{', '.join(packages)} cannot be installed: {problem}")
