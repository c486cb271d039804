"""Trying an engine out: a program of the host's, in a container of nothing but the host's own directories."""

from __future__ import annotations

import os
import tempfile
from typing import Iterator, Tuple

from ..launcher import LaunchError
from ..process import Bind, ProcessSpec, Tree
from ..tree import remove_path
from .base import Engine

_HOST_PARTS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")


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
        remove_path(base)


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
