"""What this computer offers: found by looking, never by asking."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from hansa.kernel.settings import LocalSettings
from hansa.sites.wire import Capacity

_RUNTIMES = ("podman", "apptainer", "singularity", "docker", "bwrap", "runc", "udocker")
_MIB = 1024 * 1024


def discover(settings: LocalSettings) -> Capacity:
    """The capacity of this computer, within what the settings offer of it."""
    return Capacity(
        cores=settings.cores or len(os.sched_getaffinity(0)),
        memory_mib=settings.memory_mib or _memory_mib(),
        gpus=_gpus(),
        container_runtimes=[name for name in _RUNTIMES if shutil.which(name)],
    )


def _memory_mib() -> int:
    """Memory of the computer, or of the cgroup that this process is confined to, whichever is less."""
    memory = int(psutil.virtual_memory().total)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            memory = min(memory, int(text))
    return memory // _MIB


def _gpus() -> list[str]:
    """NVIDIA GPUs by index and name, where the driver's tool is there and answers."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]
