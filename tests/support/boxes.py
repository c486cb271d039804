"""Containers for tests: a tree of busybox in layers, an ordinary user, and programs run under it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"
DRIVER = Path(__file__).with_name("container_driver.py")
BUSYBOX = "/bin/busybox"
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3")
ENV = {"PATH": "/bin:/usr/bin"}
DEADLINE_S = 180.0


def need_busybox() -> None:
    if not Path(BUSYBOX).exists():
        pytest.skip("busybox-static is not installed")


def make_layers(place: Path) -> tuple[Path, Path, Path]:
    """Three layers: the programs; a few files; and on top a whiteout and an opaque directory."""
    base, middle, top = (place / name for name in ("base", "middle", "top"))
    for directory in ("bin", "usr/bin", "proc", "sys", "dev", "etc", "tmp", "root", "data", "gone"):
        (base / directory).mkdir(parents=True)
    shutil.copy(BUSYBOX, base / "bin/busybox")
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for name in names:
        if name != "busybox":
            (base / "bin" / name).symlink_to("busybox")
    (base / "tmp").chmod(0o1777)
    (base / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1235:Worker:/home/worker:/bin/sh\n")
    (base / "etc/group").write_text("root:x:0:\nworkers:x:1235:\nextra:x:2000:worker\n")
    (base / "gone/old").write_text("old")
    (base / "data/low").write_text("low")
    (base / "etc/resolv.conf").symlink_to("../run/resolver/resolv.conf")
    (middle / "data").mkdir(parents=True)
    (middle / "data/high").write_text("high")
    (middle / "plain").write_text("no program")
    (middle / "script").write_text("echo no first line\n")
    (middle / "script").chmod(0o755)
    (middle / "lost").write_text("#!/no/interpreter\n")
    (middle / "lost").chmod(0o755)
    top.mkdir()
    os.mknod(top / "gone", 0o600 | 0o020000, 0)
    return base, middle, top


@dataclass
class Box:
    """A place of one user's with layers, in which trees are made and programs run."""

    place: Path
    layers: tuple[Path, ...]
    user: pwd.struct_passwd | None
    """None: the caller."""
    python: str
    sources: Path
    counter: Iterator[int] = field(default_factory=itertools.count)

    def tree(self, *, needs_copy: bool, is_throwaway: bool = False) -> dict[str, Any]:
        """A new container."""
        home = self.place / f"c{next(self.counter)}"
        paths = {name: home / name for name in ("upper", "work", "mount")}
        for path in (home, *paths.values()):
            path.mkdir()
        if needs_copy:
            shutil.copytree(self.layers[0], paths["upper"], symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(paths["upper"] / "gone")
            for layer in self.layers[1:2]:
                shutil.copytree(layer, paths["upper"], symlinks=True, dirs_exist_ok=True)
        self.own(home)
        layers = [] if needs_copy else [str(layer) for layer in self.layers]
        return {"layers": layers, "is_throwaway": is_throwaway, **{name: str(path) for name, path in paths.items()}}

    def own(self, path: Path) -> None:
        """Give everything below to the user."""
        if self.user is None:
            return
        for directory, directories, files in os.walk(path):
            for name in (".", *directories, *files):
                os.chown(os.path.join(directory, name), self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)  # noqa: PTH118

    def directory(self) -> Path:
        """A new directory that belongs to the user."""
        path = self.place / f"d{next(self.counter)}"
        path.mkdir()
        self.own(path)
        return path

    def start(
        self, engine: str, tree: dict[str, Any], argv: Sequence[str], *, streams: Any = None, **spec: Any
    ) -> subprocess.Popen[str]:
        order = {"engine": engine, "tree": tree, "spec": {"env": ENV, **spec, "argv": list(argv)}}
        path = self.place / f"order{next(self.counter)}.json"
        path.write_text(json.dumps(order))
        path.chmod(0o644)
        command = [self.python, str(self.sources / "container_driver.py"), str(path)]
        return self.popen(command, streams)

    def popen(self, command: Sequence[str], streams: Any = None, **env: str) -> subprocess.Popen[str]:
        """Any command as this box's user."""
        who: dict[str, Any] = {}
        if self.user is not None:
            who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        home = self.user.pw_dir if self.user is not None else os.environ.get("HOME", "/root")
        name = self.user.pw_name if self.user is not None else "root"
        environ = {**os.environ, "PYTHONPATH": str(self.sources), "HOME": home, "USER": name, "SECRET": "of-the-host"}
        environ.update(env)
        if streams is None:
            streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(list(command), env=environ, text=True, cwd="/", **streams, **who)

    def run_python(self, program: str) -> str:
        """What a little program of the user's prints."""
        out, err = self.popen([self.python, "-c", program]).communicate(timeout=DEADLINE_S)
        assert not err, err
        return str(out).strip()

    def run(
        self, engine: str, tree: dict[str, Any], argv: Sequence[str], *, text: str = "", **spec: Any
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(engine, tree, argv, **spec)
        try:
            out, err = process.communicate(text, timeout=DEADLINE_S)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


@contextlib.contextmanager
def ordinary_user() -> Iterator[pwd.struct_passwd]:
    """A user made for the test. Skips where that is impossible."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a user")
    name = f"ht{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["useradd", "--create-home", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"useradd: {made.stderr.strip()}")
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--remove", "--force", name], capture_output=True, check=False)


def python_for(user: pwd.struct_passwd | None) -> str:
    """An interpreter that the user may execute."""
    import sys

    if user is None:
        return sys.executable
    for path in (sys.executable, *PYTHONS):
        tried = (
            subprocess.run(
                [path, "-c", "import ctypes"],
                user=user.pw_uid,
                group=user.pw_gid,
                cwd="/",
                capture_output=True,
                check=False,
            )
            if _may(path)
            else None
        )
        if tried is not None and tried.returncode == 0:
            return path
    pytest.skip("no Python that an ordinary user may execute")


def _may(path: str) -> bool:
    """Nobody but root enters some homes: an interpreter there is none for others."""
    real = Path(path).resolve() if Path(path).exists() else None
    return real is not None and all(parent.stat().st_mode & 0o001 for parent in real.parents)


def make_box(place: Path, user: pwd.struct_passwd | None) -> Box:
    """A box below ``place``, which others may enter."""
    need_busybox()
    place.chmod(0o755)
    sources = place / "sources"
    shutil.copytree(SOURCES / "hansa/node", sources / "hansa/node", ignore=shutil.ignore_patterns("__pycache__"))
    (sources / "hansa/__init__.py").write_text("")
    shutil.copy(DRIVER, sources / "container_driver.py")
    (place / "layers").mkdir()
    box = Box(place, make_layers(place / "layers"), user, python_for(user), sources)
    box.own(place)
    return box
