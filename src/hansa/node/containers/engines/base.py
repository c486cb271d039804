"""What every engine does: try itself out, and run one process on one tree."""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional, Protocol, Sequence

from .. import lookup
from ..launcher import SETUP_FAILED, LaunchError
from ..process import ProcessSpec, Tree


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


def which(name: str) -> Optional[str]:
    """The absolute path of a program of the host."""
    import shutil  # not on the way to a start

    return shutil.which(name)


def missing(*tools: str) -> str:
    """The words for tools that are not installed; empty if all are."""
    absent: List[str] = [tool for tool in tools if which(tool) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def tool(name: str) -> str:
    """The absolute path of a program of the host. LaunchError where it is not installed."""
    found = which(name)
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
