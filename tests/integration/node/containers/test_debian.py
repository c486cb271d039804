"""A whole Debian, made by mmdebstrap and kept in the checkout's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.oci import Layout, push

CACHE = Path(__file__).resolve().parents[4] / ".cache" / "containers"
BOOKWORM = CACHE / "debian-bookworm.tar"


@pytest.fixture(scope="module")
def debian() -> bytes:
    if not BOOKWORM.exists():
        if shutil.which("mmdebstrap") is None:
            pytest.skip("needs mmdebstrap")
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = CACHE / f"debian.{os.getpid()}.tar"
        command = ["mmdebstrap", "--variant=minbase", "--include=python3-minimal", "bookworm", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mmdebstrap cannot make a Debian here: {done.stderr[-300:]}")
        partial.rename(BOOKWORM)
    return BOOKWORM.read_bytes()


@pytest.mark.slow
def test_debian_is_as_tar_unpacks_it(person: Any, registry: Any, debian: bytes, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "debian")
    layout.finish(layout.image([debian], config={"Cmd": ["/bin/bash"]}))
    push(layout.path, registry.host, "debian")
    code = "result = [str(path) for path in store.layer_paths(fetch(name))]"
    (tree,) = person.do(code, name=f"{registry.host}/debian")
    beside = tmp_path / "beside"
    beside.mkdir()
    subprocess.run(["tar", "x", "-C", str(beside), "--exclude=./dev/*", "-f", str(BOOKWORM)], check=True)
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=dev", str(beside), tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.stdout == ""
    assert compared.returncode == 0
    script = f"mount --bind {tree} {tree} && chroot {tree} /usr/bin/python3 -c 'print(6 * 7)'"
    ran = person.program("unshare", "-Urm", "sh", "-c", script)
    assert ran.stdout == "42\n", ran.stderr
