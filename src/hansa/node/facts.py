"""What a pilot's node is, as far as jobs may ask for it. What cannot be found out is left out."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import Any, Dict, List

_MIB = 1 << 20
_FEATURES = ("flags", "Features")  # x86, ARM


def node_facts(work_dir: str, has_gpus: bool) -> Dict[str, Any]:
    """``machine``, ``kernel``, ``os`` (all names that it answers to), ``glibc``, ``cpu_features``, ``disk_mib``."""
    facts: Dict[str, Any] = {"kernel": platform.release(), "machine": platform.machine(), "os": os_names()}
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        name = version = ""
    if name == "glibc":
        facts["glibc"] = version
    features = cpu_features()
    if features:
        facts["cpu_features"] = features
    try:
        facts["disk_mib"] = shutil.disk_usage(work_dir).free // _MIB
    except OSError:
        pass
    if has_gpus:
        names = gpu_names()
        if names:
            facts["gpu_names"] = names
    return facts


def os_names(path: str = "/etc/os-release") -> List[str]:
    """``linux``, the distribution and its version, and for the Enterprise Linux family ``elN``."""
    found: Dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, separator, value = line.strip().partition("=")
                if separator:
                    found[name] = value.strip("\"'").lower()
    except OSError:
        return ["linux"]
    names = {"linux"}
    major = found.get("VERSION_ID", "").split(".")[0]
    family = [found.get("ID", ""), *found.get("ID_LIKE", "").split()]
    for name in filter(None, family):
        names.add(name)
    if family[0] and major:
        names.add(family[0] + major)
        if found.get("VERSION_ID") != major:
            names.add(family[0] + found["VERSION_ID"])
        if "rhel" in family:
            names.update(("el" + major, "rhel" + major))
    return sorted(names)


def cpu_features(path: str = "/proc/cpuinfo") -> List[str]:
    """The processor's flags, as the kernel names them."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in _FEATURES:
                    return sorted(set(value.split()))
    except OSError:
        pass
    return []


def gpu_names() -> List[str]:
    """NVIDIA GPUs as ``index, model, memory``, where the driver's tool is there and answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index,name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]
