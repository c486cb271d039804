"""Running a container of a store: its layers, its directories, an engine and a process, brought together."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Sequence, Tuple

from . import engines, lookup, semantics
from .engines.base import Engine
from .errors import ContainerError, Exit
from .launcher import SETUP_FAILED, LaunchError
from .model import ContainerRecord
from .process import Bind, ProcessSpec, Tree
from .semantics import Host, RunOptions
from .store import Store


class NotStarted(ContainerError):
    """The program did not start. ``exit_code``: 125 the container, 126 no program to execute, 127 not found."""

    code = "containers.not_started"
    exit_code = Exit.OWN

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def this_host() -> Host:
    """The host as this process sees it."""
    uid = os.getuid()
    environ = dict(os.environ)
    name, home = environ.get("USER", ""), environ.get("HOME", "/")
    try:
        import pwd

        entry = pwd.getpwuid(uid)
        name, home = entry.pw_name, environ.get("HOME") or entry.pw_dir
    except KeyError:
        pass  # a user of the directory service only; the environment knows
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as stream:
            hosts = stream.read()
    except OSError:
        hosts = ""
    return Host(uid, os.getgid(), name, home, environ, os.getcwd(), hosts)


def place_of(store: Store) -> str:
    """Where engines are tried out and remembered: on the file system of the containers."""
    path = store.layout.path("engines")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ContainerError(f"cannot write in the store {store.layout.root}: {error.strerror}") from error
    return path


def run(
    store: Store,
    record: ContainerRecord,
    options: RunOptions,
    host: Host,
    *,
    engine: Optional[str] = None,
    is_throwaway: bool = False,
) -> int:
    """Run to the end; the program's exit code, 128 + n after signal n. Raises NotStarted, NoEngine, RunRefused.

    Several runs may share a container: they see one file system (on one node; another node is refused).
    """
    place = place_of(store)
    chosen = engines.choose(place, engine)
    with store.running(record):
        tree = _tree(store, record, chosen, is_throwaway=is_throwaway)
        roots = (tree.upper, *reversed(tree.layers))
        passwd = lookup.read_text(roots, "/etc/passwd") or ""
        group = lookup.read_text(roots, "/etc/group") or ""
        plan = semantics.plan(record.config, options, host, passwd, group)
        home = os.path.dirname(tree.upper)
        process = plan.process._replace(binds=(*_volumes(plan.volumes, roots, home), *plan.process.binds))
        if options.has_gpu:
            process = with_gpu(process, roots, home)
        if options.is_login:
            process = _with_directory(process, options, roots)
        try:
            return chosen.run(tree, process)
        except LaunchError as error:
            if error.code == SETUP_FAILED and engine is None:
                engines.forget(place)
            raise NotStarted(str(error), error.code) from error


def _with_directory(process: ProcessSpec, options: RunOptions, roots: Sequence[str]) -> ProcessSpec:
    """As udocker: a working directory that was asked for must be there; a home that is not there is no matter."""
    binds = sorted(((bind.target, bind.source) for bind in process.binds), reverse=True)
    found = lookup.find(roots, process.cwd, binds)
    if found is not None and os.path.isdir(found):
        return process
    if options.workdir:
        raise NotStarted(f"invalid working directory: {process.cwd}", SETUP_FAILED)
    return process._replace(cwd="/")


def _tree(store: Store, record: ContainerRecord, engine: Engine, *, is_throwaway: bool) -> Tree:
    upper, work, merged = store.container_places(record)
    if not engine.needs_copy:
        layers = tuple(store.layer_directories(record))
        return Tree(layers, upper, work, merged, is_throwaway)
    copy = os.path.join(os.path.dirname(upper), "tree")
    if not os.path.isdir(copy):
        if os.listdir(upper):
            raise NotStarted(
                f"{record.short_id} was used with an overlay; the engine {engine.name} cannot see its changes",
                SETUP_FAILED,
            )
        _fill(store, record, copy)
    return Tree((), copy, work, merged, is_throwaway)


def _fill(store: Store, record: ContainerRecord, copy: str) -> None:
    """Unpack once, also when several runs begin at the same moment."""
    from .tree import remove_path

    fresh = f"{copy}.{os.getpid()}"
    store.flatten(record, fresh)
    try:
        os.rename(fresh, copy)
    except OSError:
        remove_path(fresh)
        if not os.path.isdir(copy):
            raise


def _volumes(targets: Sequence[str], roots: Sequence[str], home: str) -> List[Bind]:
    """Directories of the container's own for VOLUME.

    Where the image has files at the place they stay in the tree: it is the container's own as well.
    """
    out = []
    for target in targets:
        found = lookup.find(roots, target)
        if found is not None and (not os.path.isdir(found) or os.listdir(found)):
            continue
        path = os.path.join(home, "volumes", target.strip("/").replace("%", "%25").replace("/", "%2F"))
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, (os.stat(found).st_mode & 0o7777) if found is not None else 0o755)
        out.append(Bind(path, target))
    return out


def with_gpu(process: ProcessSpec, roots: Sequence[str], home: str) -> ProcessSpec:
    """The process with the host's GPUs. ``roots``: the tree from the top down; ``home``: for a file of its own."""
    from . import gpu

    gpus = gpu.find()
    if not gpus.is_there:
        raise NotStarted(gpus.describe(), SETUP_FAILED)
    binds: Tuple[Bind, ...] = tuple(gpu.binds(gpus))
    found = lookup.find(roots, "/etc/ld.so.cache")
    if found is not None:
        with open(found, "rb") as stream:
            cache = gpu.cache_with(gpus, stream.read())
        if cache is not None:
            path = os.path.join(home, f"ld.so.cache.{os.getpid()}")
            with open(path, "wb") as out:
                out.write(cache)
            binds += (Bind(path, "/etc/ld.so.cache", is_read_only=True),)
    env: Dict[str, str] = gpu.variables(gpus, dict(process.env))
    return process._replace(binds=(*process.binds, *binds), env=env)
