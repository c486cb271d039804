"""A real registry on loopback, images in it, and somebody who pulls: root, and an ordinary user made for the tests."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.front import Front
from tests.support.oci import Failure, Layout, push, two_layers

from hansa.node.pack import build_node_zipapp

USER = "hansa-tests"
HTPASSWD = "ann:$2b$05$abcdefghijklmnopqrstuu4uoW5CdSDmY8cLkib7pLDRBlvRVo8Pe\n"
"""Password hush-hush."""
_PACKAGES = {"docker-registry": "docker-registry", "skopeo": "skopeo"}


def _installed() -> str:
    """Nothing, or why the real parts cannot be had."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return ""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"needs {', '.join(missing)}, and only root can install them"
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    for attempt in (["apt-get", "update", "-q"], command):
        done = subprocess.run(
            attempt,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if done.returncode == 0 else f"apt-get cannot install {', '.join(missing)}: {done.stderr[-300:]}"


@dataclass
class RealRegistry:
    port: int
    folder: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def blob_file(self, digest: str) -> Path:
        name = digest.partition(":")[2]
        return self.folder / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(folder: Path, auth: str = "") -> Iterator[RealRegistry]:
    port = _free_port()
    config = folder / "config.yml"
    data = folder / "data"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\n"
        f"storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "the registry ended"
                assert time.monotonic() < deadline, "the registry does not listen"
                time.sleep(0.02)
        yield RealRegistry(port, data)
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="session")
def real_parts() -> None:
    reason = _installed()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def registry(real_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """With ``two:latest`` (gzip), ``two:zstd``, ``two:many`` (an index) and ``arm:latest`` in it."""
    folder = tmp_path_factory.mktemp("registry")
    for found in _serve(folder):
        layout = Layout(folder / "images")
        layout.finish(layout.image(two_layers()), "latest")
        if shutil.which("zstd"):
            layout.finish(layout.image(two_layers(), compression="zstd"), "zstd")
        arm = layout.image(two_layers(), architecture="arm64", variant="v8")
        layout.finish(layout.index([arm, layout.image(two_layers())]), "many")
        layout.finish(layout.index([arm]), "arm")
        for entry in layout.manifests:
            tag = entry["annotations"]["org.opencontainers.image.ref.name"]
            push(layout.path, found.host, f"two:{tag}", tag)
        yield found


@pytest.fixture(scope="session")
def closed_registry(real_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """Wants a password: ann, hush-hush."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "htpasswd").write_text(HTPASSWD)
    yield from _serve(folder, f"auth: {{htpasswd: {{realm: test, path: '{folder / 'htpasswd'}'}}}}\n")


@pytest.fixture
def front(registry: RealRegistry) -> Iterator[Front]:
    server = Front(registry.port)
    yield server
    server.close()


@pytest.fixture
def storage(registry: RealRegistry) -> Iterator[Front]:
    """Another host that has the blobs."""
    server = Front(registry.port)
    yield server
    server.close()


_PROGRAM = """
import json, os, sys
from hansa.node.containers.errors import ContainerError
values = json.loads(sys.argv[1])
space = dict(values)
try:
    exec(sys.argv[2], space)
except ContainerError as error:
    print(json.dumps({"kind": type(error).__name__, "message": error.message, "hint": error.hint}))
    sys.exit(9)
print(json.dumps(space.get("result")))
"""
_START = """
from pathlib import Path
from hansa.node.containers.store import Store
from hansa.node.containers.pull import pull
from hansa.node.containers.web import WebSettings
from hansa.node.containers.credentials import Credential, Credentials
store = Store(root, below)
web = WebSettings(is_insecure=True)
def fetch(name, **more):
    return pull(store, name, web, Credentials(root + ".auth"), **more)
"""


class Person:
    """Somebody who uses a store, each time in a process of their own, with the zipapp that nodes run."""

    def __init__(self, name: str, folder: Path, zipapp: Path, python: str) -> None:
        self.folder = folder
        self.root = folder / "store"
        self.below: list[Path] = []
        self._zipapp = zipapp
        self._python = python
        self._user = None if name == "root" or os.geteuid() != 0 else name
        if self._user is not None:
            entry = pwd.getpwnam(name)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        self.id = None if self._user is None else pwd.getpwnam(name).pw_uid

    def start(self, code: str, **values: Any) -> subprocess.Popen[str]:
        given = {"root": str(self.root), "below": [str(one) for one in self.below], **values}
        return subprocess.Popen(
            [self._python, "-c", _PROGRAM, json.dumps(given), _START + textwrap.dedent(code)],
            user=self.id,
            group=self.id,
            extra_groups=None if self.id is None else [],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self._zipapp), "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, code: str, **values: Any) -> Any:
        return self.result(self.start(code, **values))

    @staticmethod
    def result(process: subprocess.Popen[str]) -> Any:
        out, err = process.communicate(timeout=120)
        if process.returncode == 9:
            raise Failure(json.loads(out))
        assert process.returncode == 0, err
        return json.loads(out)

    def program(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            user=self.id,
            group=self.id,
            extra_groups=None if self.id is None else [],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A directory that other users may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-containers-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="session")
def zipapp(open_folder: Path) -> Path:
    path = open_folder / "node.pyz"
    path.write_bytes(build_node_zipapp())
    path.chmod(0o755)
    return path


def _make_user() -> None:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--no-create-home", "--user-group", "--shell", "/bin/sh", USER], check=True)


def _user_python() -> str:
    """An interpreter that other users may run."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        path = Path(candidate).resolve()
        if path.exists() and all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.parents):
            return candidate
    pytest.skip("no Python interpreter that an ordinary user may run")


def _person(name: str, open_folder: Path, zipapp: Path) -> Person:
    folder = Path(tempfile.mkdtemp(dir=open_folder))
    if name == USER:
        _make_user()
    return Person(name, folder, zipapp, sys.executable if name != USER else _user_python())


@pytest.fixture(params=["root", "user"] if os.geteuid() == 0 else ["self"])
def person(request: pytest.FixtureRequest, open_folder: Path, zipapp: Path) -> Person:
    """Everything that takes this runs as root and as an ordinary user."""
    return _person(USER if request.param == "user" else "root", open_folder, zipapp)


@pytest.fixture
def other(open_folder: Path, zipapp: Path) -> Person:
    """A second person, always the ordinary user where there is a choice."""
    return _person(USER if os.geteuid() == 0 else "self", open_folder, zipapp)
