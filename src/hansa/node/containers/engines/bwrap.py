"""bubblewrap: where a site allows it, and only it, to make namespaces (set-user-ID, or by an AppArmor profile)."""

from __future__ import annotations

import os
from typing import Callable, List, Optional, Sequence

from .. import launcher
from ..inside import mount_overlay
from ..process import ProcessSpec, Tree
from .base import missing, prepare_files, tool

CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
]


class Bwrap:
    """On an overlay that we mount in a user namespace."""

    name = "bwrap"
    needs_copy = False

    def reason_against(self) -> str:
        why = missing("bwrap")
        return f"{why} (package bubblewrap)" if why else ""

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        def prepare() -> None:
            launcher.enter_own()
            mount_overlay(tree)
            os.chdir("/")

        return _run(tree.mount, (tree.upper, *reversed(tree.layers)), spec, prepare)


class BwrapCopy:
    """On an unpacked copy."""

    name = "bwrap-copy"
    needs_copy = True

    def reason_against(self) -> str:
        return Bwrap().reason_against()

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        return _run(tree.upper, (tree.upper,), spec, None)


def _run(root: str, roots: Sequence[str], spec: ProcessSpec, prepare: Optional[Callable[[], None]]) -> int:
    prepare_files(roots, spec)
    return launcher.run_program(words_for(root, spec), spec.env, spec, prepare, program_of)


def words_for(root: str, spec: ProcessSpec) -> List[str]:
    """The command line."""
    words = [tool("bwrap"), "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--bind", root, "/"]
    words += ["--unshare-user", "--uid", str(spec.uid), "--gid", str(spec.gid)]
    if spec.hostname is not None:
        words += ["--unshare-uts", "--hostname", spec.hostname]
    words += ["--cap-drop", "ALL"]
    if spec.uid == 0:
        for capability in CAPABILITIES:
            words += ["--cap-add", capability]
    if spec.has_system:
        words += ["--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys", "/sys"]
    for bind in spec.binds:
        if bind.is_optional and not os.path.exists(bind.source):
            continue
        kind = ("--dev-bind" if bind.source.startswith("/dev/") else "--bind") if not bind.is_read_only else "--ro-bind"
        words += [kind, bind.source, bind.target]
    words += ["--chdir", spec.cwd, "--", *spec.argv]
    return words


def program_of(pid: int) -> int:
    """bwrap forwards no signal: the program is the child of its child."""
    for _ in range(2):
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
                children = stream.read().split()
        except OSError:
            break
        if not children:
            break
        pid = int(children[0])
    return pid
