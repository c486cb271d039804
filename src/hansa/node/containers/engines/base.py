"""What every engine does: try itself out, and run one process on one tree."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Iterator, List, NamedTuple, Protocol, Sequence, Tuple

from .. import lookup
from ..launcher import SETUP_FAILED, LaunchError
from ..process import Bind, ProcessSpec, Tree

_HOST_PARTS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Verdict(NamedTuple):
    """What ``doctor`` says of an engine."""

    name: str
    is_working: bool
    why: str
    """Where it does not work: the reason and what an administrator can do."""


class Engine(Protocol):
    """One way of running containers. An instance holds no state."""

    name: str
    needs_copy: bool
    """It runs on an unpacked copy in ``tree.upper``; ``tree.layers`` are not used."""

    def reason_against(self) -> str:
        """Why it cannot work here, as far as a quick look tells: a missing tool, say. Empty: worth a trial."""

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        """Run to the end; the exit code, 128 + n after signal n. LaunchError where it does not start."""


def try_out(engine: Engine, place: str) -> str:
    """Run the host's ``true`` in a container made in the directory ``place``. The reason why that fails, or nothing."""
    why = engine.reason_against()
    if why:
        return why
    try:
        base = tempfile.mkdtemp(prefix=".probe-", dir=place)
    except OSError as error:
        return f"cannot write in {place}: {os.strerror(error.errno or 0)}"
    try:
        tree = _make_tree(base, is_copy=engine.needs_copy)
        program = "/usr/bin/true" if os.path.exists("/usr/bin/true") else "/bin/true"
        path = "/usr/bin:/bin"
        spec = ProcessSpec((program,), {"PATH": path}, binds=tuple(_host_binds()), has_stdin=False)
        code = engine.run(tree, spec)
        return "" if code == 0 else f"a trial program ended with {code} instead of 0"
    except LaunchError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}"
    finally:
        remove_tree(base)


def _host_binds() -> Iterator[Bind]:
    for part in _HOST_PARTS:
        path = f"/{part}"
        if os.path.isdir(path) and not os.path.islink(path):
            yield Bind(path, path, is_read_only=True)


def _make_tree(base: str, *, is_copy: bool) -> Tree:
    layer, upper, work, mount = (f"{base}/{name}" for name in ("layer", "upper", "work", "mount"))
    for path in (layer, upper, work, mount):
        os.mkdir(path)
    content = upper if is_copy else layer
    for name in ("proc", "sys", "dev", "etc", "tmp", "run"):
        os.mkdir(f"{content}/{name}")
    for part in _HOST_PARTS:
        path = f"/{part}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), f"{content}/{part}")
        elif os.path.isdir(path):
            os.mkdir(f"{content}/{part}")
    layers: Tuple[str, ...] = () if is_copy else (layer,)
    return Tree(layers, upper, work, mount, is_throwaway=True)


def remove_tree(path: str) -> None:
    """Remove a directory and all in it, also directories that forbid their own owner to look (overlay's are such)."""
    try:
        entries = list(os.scandir(path))
    except PermissionError:
        os.chmod(path, 0o700)
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
            continue
        try:
            os.unlink(entry.path)
        except PermissionError:
            os.chmod(path, 0o700)
            os.unlink(entry.path)
    os.rmdir(path)


def missing(*tools: str) -> str:
    """The words for tools that are not installed; empty if all are."""
    absent: List[str] = [tool for tool in tools if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def tool(name: str) -> str:
    """The absolute path of a program of the host. LaunchError where it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise LaunchError(SETUP_FAILED, f"{name} is not installed")
    return found


def prepare_files(roots: Sequence[str], spec: ProcessSpec) -> None:
    """For launchers of others, which work on the host's view of the tree (``roots``, from the top down).

    Writes the spec's files, makes mount points and working directory, and refuses a program that is not there.
    """
    binds = sorted(((bind.target, bind.source) for bind in spec.binds), reverse=True)
    problem = lookup.check_program(roots, spec, binds)
    if problem is not None:
        raise LaunchError(*problem)
    for path, text in spec.files:
        real = lookup.place(roots, path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        if os.path.islink(real):
            os.unlink(real)
        with open(real, "w", encoding="utf-8") as stream:
            stream.write(text)
    if lookup.find(roots, spec.cwd, binds) is None:
        os.makedirs(lookup.place(roots, spec.cwd), exist_ok=True)
