"""runc, on an unpacked copy: for sites that want it. Rootless for ordinary users."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, List

from .. import launcher
from ..process import ProcessSpec, Tree
from ..tree import remove_path
from .base import missing, prepare_files, tool
from .bwrap import CAPABILITIES


class Runc:
    """Signals go to the program as the first of its pid namespace: it must handle those that shall end it."""

    name = "runc"
    needs_copy = True

    def reason_against(self) -> str:
        return missing("runc")

    def run(self, tree: Tree, spec: ProcessSpec) -> int:
        if spec.uid != 0 and not launcher.can_map_all():
            raise launcher.LaunchError(125, "runc without root privileges runs programs only as the container's root")
        prepare_files((tree.upper,), spec)
        base = tempfile.mkdtemp(prefix="hansa-runc-")
        try:
            with open(f"{base}/config.json", "w", encoding="utf-8") as stream:
                json.dump(config(tree.upper, spec), stream)
            words = [tool("runc"), "--root", f"{base}/state"]
            words += ["run", "--bundle", base, "--no-new-keyring", "hansa-" + os.path.basename(base)]
            return launcher.run_program(words, os.environ, spec)
        finally:
            remove_path(base)


def config(root: str, spec: ProcessSpec) -> Dict[str, Any]:
    """The bundle's configuration (OCI runtime specification 1.0)."""
    if launcher.can_map_all():
        uids = gids = [{"containerID": 0, "hostID": 0, "size": 65536}]
    else:
        uids = [{"containerID": spec.uid, "hostID": os.geteuid(), "size": 1}]
        gids = [{"containerID": spec.gid, "hostID": os.getegid(), "size": 1}]
    namespaces = ["user", "mount", "pid", "ipc"] + (["uts"] if spec.hostname is not None else [])
    capabilities = CAPABILITIES if spec.uid == 0 else []
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": spec.has_tty,
            "user": {"uid": spec.uid, "gid": spec.gid, "umask": 0o022},
            "args": list(spec.argv),
            "env": [f"{name}={value}" for name, value in spec.env.items()],
            "cwd": spec.cwd,
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "root": {"path": root},
        **({"hostname": spec.hostname} if spec.hostname is not None else {}),
        "mounts": _mounts(spec),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "uidMappings": uids,
            "gidMappings": gids,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _mounts(spec: ProcessSpec) -> List[Dict[str, Any]]:
    out: List[Dict[str, Any]] = []
    if spec.has_system:
        pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        for target, kind, options in (
            ("/proc", "proc", []),
            ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=64k"]),
            ("/dev/pts", "devpts", pts),
            ("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
        ):
            out.append({"destination": target, "type": kind, "source": kind, "options": options})
        out.append({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro", "nosuid"]})
    for bind in spec.binds:
        if bind.is_optional and not os.path.exists(bind.source):
            continue
        options = ["rbind", "ro"] if bind.is_read_only else ["rbind", "rw"]
        out.append({"destination": bind.target, "type": "none", "source": bind.source, "options": options})
    return out
