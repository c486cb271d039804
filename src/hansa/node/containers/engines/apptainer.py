"""Apptainer (or SingularityCE), on an unpacked copy: for sites that have it, perhaps set-user-ID, and nothing else."""

from __future__ import annotations

import os
from typing import Dict, List

from .. import launcher
from ..process import ProcessSpec, Tree
from .base import prepare_files, which


class Apptainer:
    """The program runs as the caller, whatever user the image names; ``--fakeroot`` for root."""

    name = "apptainer"
    needs_copy = True

    def reason_against(self) -> str:
        return "" if _program() else "apptainer not installed"

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        prepare_files((tree.upper,), spec)
        words, env = command(_program(), tree.upper, spec, os.environ)
        return launcher.run_program(words, env, spec)


def _program() -> str:
    return which("apptainer") or which("singularity") or ""


def command(
    program: str, root: str, spec: ProcessSpec, environ: "os._Environ[str] | Dict[str, str]"
) -> "tuple[List[str], Dict[str, str]]":
    """The command line, and the environment by which Apptainer learns that of the container."""
    words = [program, "--silent", "exec", "--writable", "--containall", "--no-home", "--no-init"]
    words += ["--cleanenv", "--pwd", spec.cwd]
    if spec.uid == 0 and os.geteuid() != 0:
        words.append("--fakeroot")
    if spec.hostname is not None:
        words += ["--uts", "--hostname", spec.hostname]
    for bind in spec.binds:
        if bind.is_optional and not os.path.exists(bind.source):
            continue
        words += ["--bind", f"{bind.source}:{bind.target}:{'ro' if bind.is_read_only else 'rw'}"]
    env = dict(environ)
    env.update((f"APPTAINERENV_{name}", value) for name, value in spec.env.items())
    return [*words, root, *spec.argv], env
