"""One task of a job in its container: ``python -I -S -c … SPEC``, started by the spawner in the task's namespaces.

SPEC is a JSON file (0600) in a directory of the task's that only this process sees::

    {"layers", "argv", "env", "cwd", "uid", "gid", "groups", "files", "binds", "has_gpu", "engines"}

This process ends exactly as the program does: the same exit code, or by the same signal. Where the program does not
start, ``problem.json`` beside SPEC says why.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any, Dict, NoReturn, Sequence

from . import engines
from .errors import ContainerError
from .launcher import SETUP_FAILED, LaunchError
from .process import Bind, ProcessSpec, Tree

NOT_STARTED = "not_started"
NODE = "node"


def main(arguments: Sequence[str]) -> int:
    """``SPEC``: run it to the end."""
    path = arguments[0]
    with open(path, encoding="utf-8") as stream:
        order: Dict[str, Any] = json.load(stream)
    home = os.path.dirname(path)
    reader, writer = os.pipe()
    try:
        code = _run(order, home, writer)
    except LaunchError as error:
        return _fail(home, order, error.code, str(error))
    except ContainerError as error:
        return _fail(home, order, SETUP_FAILED, f"{error.message}; {error.hint}" if error.hint else error.message)
    except OSError as error:
        return _fail(home, order, SETUP_FAILED, str(error))
    os.close(writer)
    told = os.read(reader, 64)
    status = int(told) if told else None
    if status is not None and os.WIFSIGNALED(status):
        end_by(os.WTERMSIG(status))
    return code


def _run(order: Dict[str, Any], home: str, status_fd: int) -> int:
    engine = engines.choose(order["engines"])
    tree = _tree(order, home, is_copy=engine.needs_copy)
    spec = ProcessSpec(
        argv=tuple(order["argv"]),
        env=order["env"],
        cwd=order["cwd"],
        uid=order["uid"],
        gid=order["gid"],
        groups=tuple(order["groups"]),
        binds=tuple(Bind(*one) for one in order["binds"]),
        files=tuple((one[0], one[1]) for one in order["files"]),
        has_stdin=False,
        status_fd=status_fd,
    )
    if order["has_gpu"]:
        from .runner import with_gpu

        spec = with_gpu(spec, (tree.upper, *reversed(tree.layers)), home)
    return engine.run(tree, spec)


def _tree(order: Dict[str, Any], home: str, *, is_copy: bool) -> Tree:
    upper, work, mount = (os.path.join(home, name) for name in ("upper", "work", "mount"))
    for path in (upper, work, mount):
        os.mkdir(path, 0o755)
    if not is_copy:
        return Tree(tuple(order["layers"]), upper, work, mount, is_throwaway=True)
    from .layers import parts_at
    from .merge import merge

    merge(parts_at(order["layers"]), upper, is_linked=False)
    return Tree((), upper, work, mount, is_throwaway=True)


def _fail(home: str, order: Dict[str, Any], code: int, message: str) -> int:
    """Why the program did not start, for the pilot."""
    if code == SETUP_FAILED:
        engines.forget(order["engines"])
    problem = {"outcome": NODE if code == SETUP_FAILED else NOT_STARTED, "message": message}
    with open(os.path.join(home, "problem.json"), "w", encoding="utf-8") as stream:
        json.dump(problem, stream)
    return code


def end_by(number: int) -> NoReturn:
    """End by a signal, as the program did."""
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), number)
    os._exit(128 + number)
