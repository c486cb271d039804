"""fuse-overlayfs, mounted in a user namespace, with our own launcher on it."""

from __future__ import annotations

import os
import subprocess
import tempfile

from .. import launcher
from ..process import ProcessSpec, Tree
from .base import missing


class Fuse:
    """Where the kernel's overlay is not to be had in a user namespace, or the upper directory's file system refuses."""

    name = "fuse"
    needs_copy = False

    def reason_against(self) -> str:
        why = missing("fuse-overlayfs")
        if why:
            return why
        if not os.path.exists("/dev/fuse"):
            return "there is no /dev/fuse: load the kernel module fuse"
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            return "/dev/fuse is not open to users: chmod 0666 /dev/fuse, as udev's rules do"
        return ""

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        def prepare() -> Tree:
            launcher.enter_own()
            _mount(tree)
            return tree._replace(upper=tree.mount, is_throwaway=False)

        return launcher.run_within(prepare, spec, launcher.Options(is_overlay=False))


def _mount(tree: Tree) -> None:
    """Start the file system; it is its own daemon, and ends with its mount."""
    for path in (*tree.layers, tree.upper, tree.work):
        if ":" in path or "," in path or "\\" in path:
            raise launcher.LaunchError(125, f"fuse-overlayfs cannot take a path with ':' ',' or '\\': {path}")
    lower = ":".join(reversed(tree.layers))
    options = f"lowerdir={lower},upperdir={tree.upper},workdir={tree.work}"
    if not launcher.can_map_all():
        options += ",squash_to_root"
    words = ["fuse-overlayfs", "-o", options, tree.mount]
    with tempfile.TemporaryFile() as errors:  # a pipe would stay open as long as the daemon lives
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, check=False)
        if done.returncode != 0:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise launcher.LaunchError(125, f"fuse-overlayfs: {said[-1] if said else done.returncode}")
