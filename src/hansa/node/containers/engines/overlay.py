"""The engine of choice: our own launcher on an overlay mounted in the user namespace."""

from __future__ import annotations

import os

from .. import calls, launcher
from ..process import ProcessSpec, Tree


class Overlay:
    """Kernel 5.11 or later with user namespaces, and an upper directory with extended attributes (not NFS)."""

    name = "overlay"
    needs_copy = False

    def reason_against(self) -> str:
        if not calls.is_known_machine():
            return f"the launcher does not know this architecture ({os.uname().machine}): use bwrap"
        return ""

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        if tree.is_throwaway:
            return launcher.run(tree, spec)
        from ..shared import run_shared

        return run_shared(tree, spec)


class Copy:
    """Where overlays are impossible: an unpacked copy, entered by our own launcher."""

    name = "copy"
    needs_copy = True

    def reason_against(self) -> str:
        return Overlay.reason_against(Overlay())

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        return launcher.run(tree, spec, launcher.Options(is_overlay=False))


class CopyWithoutPids:
    """As ``copy``, where a surrounding container forbids a /proc of one's own: other processes stay visible."""

    name = "copy-shared-pids"
    needs_copy = True

    def reason_against(self) -> str:
        return Overlay.reason_against(Overlay())

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        return launcher.run(tree, spec, launcher.Options(is_overlay=False, has_pids=False))
