"""Programs of Debian that tests need: found, else installed where the tests are root, else a reason to skip."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def program(name: str, package: str | None = None) -> str:
    """The path of a program; installs its package where that is possible, and skips the test where it is not."""
    found = shutil.which(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"]
        environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*command, package or name], env=environ, capture_output=True, check=False)
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {package or name})")
    return found
