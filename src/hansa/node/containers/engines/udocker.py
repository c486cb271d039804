"""The host's own udocker, on an unpacked copy: for nodes without user namespaces, where its PRoot still works."""

from __future__ import annotations

import os
from typing import List

from .. import launcher
from ..process import ProcessSpec, Tree
from .base import missing, prepare_files, tool


class Udocker:
    """No isolation from other processes or files: it rewrites paths, and that is all."""

    name = "udocker"
    needs_copy = True

    def reason_against(self) -> str:
        return missing("udocker")

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        prepare_files((tree.upper,), spec)
        return launcher.run_program(command(tool("udocker"), tree.upper, spec), os.environ, spec)


def command(program: str, root: str, spec: ProcessSpec) -> List[str]:
    """The command line."""
    words = [program, "--quiet"]
    if os.geteuid() == 0:
        words.append("--allow-root")
    words += ["run", "--nobanner", "--nometa", f"--location={root}", f"--workdir={spec.cwd}"]
    words.append(f"--user={'root' if spec.uid == 0 else spec.uid}")
    for bind in spec.binds:
        if not (bind.is_optional and not os.path.exists(bind.source)):
            words.append(f"--volume={bind.source}:{bind.target}")
    words += [f"--env={name}={value}" for name, value in spec.env.items()]
    return [*words, "hansa", *spec.argv]
