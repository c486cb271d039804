"""Graphics processors of the host in a container: devices, driver libraries, tools. Bound, never copied.

The driver's user-space half must fit the kernel's half, so it comes from the host: its libraries are bound into one
directory of the container, which the dynamic linker is told of by LD_LIBRARY_PATH and by a cache of its own.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from . import ldcache
from .process import Bind

LIBRARIES = "/usr/local/hansa/gpu/lib"
BINARIES = "/usr/local/hansa/gpu/bin"

_NVIDIA_DEVICES = (
    "/dev/nvidiactl",
    "/dev/nvidia[0-9]*",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/nvidia-caps-imex-channels",
    "/dev/nvidia-nvswitch*",
)
_AMD_DEVICES = ("/dev/kfd", "/dev/dri")
_NVIDIA_LIBRARY = re.compile(
    r"lib(?:cuda|cudadebugger|nvcuvid|nvoptix|nvidia-[\w-]+|(?:GLX|EGL|GLESv1_CM|GLESv2)_nvidia|vdpau_nvidia)\.so(?:\.[\d.]+)?"
)
_OPENCL_LIBRARY = re.compile(
    r"lib(?:OpenCL|amdocl64|amdocl|amd_comgr|hsa-runtime64|hsakmt|MesaOpenCL|RusticlOpenCL|pocl)\.so(?:\.[\d.]+)?"
)
_LIBRARY_DIRECTORIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/powerpc64le-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib/nvidia",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/opt/rocm/lib",
    "/run/opengl-driver/lib",
)
_BINARIES = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
)
_BINARY_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin")
_FILES = (
    "/etc/OpenCL/vendors",
    "/usr/share/nvidia",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/etc/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/run/nvidia-persistenced/socket",
)


class Gpus(NamedTuple):
    """What there is of the host's, all as paths in the host's tree; empty where there is nothing."""

    devices: Tuple[str, ...]
    libraries: Tuple[Tuple[str, str], ...]
    """(name by which programs ask for it, file)."""
    binaries: Tuple[str, ...]
    files: Tuple[str, ...]
    root: str

    @property
    def is_there(self) -> bool:
        return bool(self.devices)

    def describe(self) -> str:
        """A line for people."""
        if not self.devices:
            return "no GPU: neither /dev/nvidia* nor /dev/kfd nor /dev/dri is there"
        words = f"{len(self.devices)} devices, {len(self.libraries)} libraries, {len(self.binaries)} programs"
        if any("nvidia" in path for path in self.devices) and not any(
            name == "libcuda.so.1" for name, _ in self.libraries
        ):
            words += "; libcuda.so.1 was not found: is the driver's user-space part installed?"
        return words


def find(root: str = "/") -> Gpus:
    """Look at the host, or at a tree that stands for one."""
    base = root.rstrip("/")
    devices = [path for pattern in (*_NVIDIA_DEVICES, *_AMD_DEVICES) for path in sorted(glob.glob(base + pattern))]
    if not devices:
        return Gpus((), (), (), (), base)
    libraries: Dict[str, str] = {}
    for name, path in _libraries(base):
        real = os.path.realpath(path) if not base else _real(base, path)
        if os.path.isfile(real):
            libraries.setdefault(name, real)
    binaries = []
    for name in _BINARIES:
        for directory in _BINARY_DIRECTORIES:
            path = f"{base}{directory}/{name}"
            if os.path.isfile(path):
                binaries.append(path)
                break
    files = [base + path for path in _FILES if os.path.exists(base + path)]
    return Gpus(tuple(devices), tuple(sorted(libraries.items())), tuple(binaries), tuple(files), base)


def _real(base: str, path: str) -> str:
    """As realpath in a tree whose absolute links mean the tree."""
    for _ in range(40):
        if not os.path.islink(path):
            return path
        target = os.readlink(path)
        path = base + target if target.startswith("/") else os.path.join(os.path.dirname(path), target)
    return path


def _libraries(base: str) -> Iterable[Tuple[str, str]]:
    """(name, path) of all candidates: those of the linker's cache first."""
    try:
        with open(base + "/etc/ld.so.cache", "rb") as stream:
            entries = ldcache.parse(stream.read())
    except (OSError, ValueError):
        entries = []
    wanted = ldcache.flags_for(os.uname().machine)
    for entry in entries:
        if entry.flags == wanted and _is_driver(entry.name):
            yield entry.name, base + entry.path
    for directory in _LIBRARY_DIRECTORIES:
        try:
            names = sorted(os.listdir(base + directory))
        except OSError:
            continue
        for name in names:
            if _is_driver(name):
                yield name, f"{base}{directory}/{name}"


def _is_driver(name: str) -> bool:
    return bool(_NVIDIA_LIBRARY.fullmatch(name) or _OPENCL_LIBRARY.fullmatch(name))


def binds(gpus: Gpus) -> List[Bind]:
    """What to bind, and where to."""
    out = [Bind(path, path[len(gpus.root) :]) for path in gpus.devices]
    out += [Bind(path, f"{LIBRARIES}/{name}", is_read_only=True) for name, path in gpus.libraries]
    out += [Bind(path, f"{BINARIES}/{os.path.basename(path)}", is_read_only=True) for path in gpus.binaries]
    out += [Bind(path, path[len(gpus.root) :], is_read_only=True) for path in gpus.files]
    return out


def variables(gpus: Gpus, env: Dict[str, str]) -> Dict[str, str]:
    """What the container's environment becomes: the linker and the shell find what was bound."""
    if not gpus.is_there:
        return env
    out = dict(env)
    out["LD_LIBRARY_PATH"] = ":".join(part for part in (LIBRARIES, env.get("LD_LIBRARY_PATH", "")) if part)
    out["PATH"] = ":".join(part for part in (env.get("PATH", ""), BINARIES) if part)
    out.setdefault("NVIDIA_VISIBLE_DEVICES", "all")
    return out


def cache_with(gpus: Gpus, image_cache: Optional[bytes]) -> Optional[bytes]:
    """The image's linker cache with the bound libraries before its own; None where the image has none (musl)."""
    if image_cache is None or not gpus.libraries:
        return None
    try:
        entries = ldcache.parse(image_cache)
    except ValueError:
        return None
    flags = ldcache.flags_for(os.uname().machine)
    own = [ldcache.Entry(flags, name, f"{LIBRARIES}/{name}") for name, _ in gpus.libraries]
    return ldcache.build([*own, *entries])
