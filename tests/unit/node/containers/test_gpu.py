"""GPUs of hosts that are only directory trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hansa.node.containers import gpu, ldcache

MACHINE = os.uname().machine


def make(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


@pytest.fixture
def nvidia(tmp_path: Path) -> Path:
    make(
        tmp_path,
        *(f"/dev/nvidia{name}" for name in ("ctl", "0", "1", "-uvm", "-uvm-tools", "-caps/nvidia-cap1")),
        "/opt/driver/libcuda.so.550.1",
        "/usr/lib64/libnvidia-ml.so.550.1",
        "/usr/lib64/libc.so.6",
        "/usr/bin/nvidia-smi",
        "/etc/OpenCL/vendors/nvidia.icd",
    )
    (tmp_path / "opt/driver/libcuda.so.1").symlink_to("libcuda.so.550.1")
    (tmp_path / "usr/lib64/libnvidia-ml.so.1").symlink_to("/usr/lib64/libnvidia-ml.so.550.1")
    flags = ldcache.flags_for(MACHINE)
    entries = [
        ldcache.Entry(flags, "libcuda.so.1", "/opt/driver/libcuda.so.1"),
        ldcache.Entry(flags, "libc.so.6", "/usr/lib64/libc.so.6"),
        ldcache.Entry(3, "libcuda.so.1", "/usr/lib32/libcuda.so.1"),
    ]
    (tmp_path / "etc/ld.so.cache").write_bytes(ldcache.build(entries))
    return tmp_path


def test_a_host_without_any(tmp_path: Path) -> None:
    found = gpu.find(str(tmp_path))
    assert not found.is_there
    assert "no GPU" in found.describe()
    assert gpu.binds(found) == []
    assert gpu.variables(found, {"A": "b"}) == {"A": "b"}


def test_devices_libraries_and_programs_of_nvidia(nvidia: Path) -> None:
    found = gpu.find(str(nvidia))
    binds = {bind.target: bind for bind in gpu.binds(found)}
    assert {"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm", "/dev/nvidia-caps"} <= binds.keys()
    assert binds[f"{gpu.LIBRARIES}/libcuda.so.1"].source == f"{nvidia}/opt/driver/libcuda.so.550.1"
    assert binds[f"{gpu.LIBRARIES}/libnvidia-ml.so.1"].source == f"{nvidia}/usr/lib64/libnvidia-ml.so.550.1"
    assert binds[f"{gpu.BINARIES}/nvidia-smi"].is_read_only
    assert binds["/etc/OpenCL/vendors"].is_read_only
    assert not binds["/dev/nvidia0"].is_read_only
    assert not [target for target in binds if "libc.so" in target]
    assert "libcuda" not in found.describe()


def test_a_driver_without_its_library_is_told(tmp_path: Path) -> None:
    make(tmp_path, "/dev/nvidia0")
    assert "libcuda.so.1 was not found" in gpu.find(str(tmp_path)).describe()


def test_amd(tmp_path: Path) -> None:
    make(
        tmp_path, "/dev/kfd", "/dev/dri/renderD128", "/opt/rocm/lib/libamdocl64.so", "/etc/OpenCL/vendors/amdocl64.icd"
    )
    binds = {bind.target for bind in gpu.binds(gpu.find(str(tmp_path)))}
    assert binds == {"/dev/kfd", "/dev/dri", f"{gpu.LIBRARIES}/libamdocl64.so", "/etc/OpenCL/vendors"}


def test_programs_find_what_was_bound(nvidia: Path) -> None:
    env = gpu.variables(gpu.find(str(nvidia)), {"PATH": "/bin", "LD_LIBRARY_PATH": "/own"})
    assert env["LD_LIBRARY_PATH"] == f"{gpu.LIBRARIES}:/own"
    assert env["PATH"] == f"/bin:{gpu.BINARIES}"


def test_the_linkers_cache_names_the_hosts_libraries_first(nvidia: Path) -> None:
    flags = ldcache.flags_for(MACHINE)
    image = [
        ldcache.Entry(flags, "libcuda.so.1", "/usr/local/cuda/compat/libcuda.so.1"),
        ldcache.Entry(flags, "libz.so.1", "/lib/libz.so.1"),
    ]
    data = gpu.cache_with(gpu.find(str(nvidia)), ldcache.build(image))
    assert data is not None
    paths = [entry.path for entry in ldcache.parse(data) if entry.name == "libcuda.so.1"]
    assert paths == [f"{gpu.LIBRARIES}/libcuda.so.1", "/usr/local/cuda/compat/libcuda.so.1"]
    assert gpu.cache_with(gpu.find(str(nvidia)), None) is None
    assert gpu.cache_with(gpu.find(str(nvidia)), b"nonsense") is None


def test_the_order_of_the_cache_is_the_linkers() -> None:
    names = ["libz.so.1", "libz.so.10", "libz.so.9", "liba.so", "libz-x.so"]
    entries = ldcache.parse(ldcache.build([ldcache.Entry(3, name, "/" + name) for name in names]))
    assert [entry.name for entry in entries] == ["libz.so.10", "libz.so.9", "libz.so.1", "libz-x.so", "liba.so"]


@pytest.mark.skipif(not Path("/etc/ld.so.cache").exists(), reason="no cache of glibc's linker here")
def test_the_cache_of_this_machine_reads_and_is_in_the_same_order() -> None:
    entries = ldcache.parse(Path("/etc/ld.so.cache").read_bytes())
    assert any(entry.name.startswith("libc.so") for entry in entries)
    plain = [entry for entry in entries if not entry.hwcap]
    again = ldcache.parse(ldcache.build(plain))
    assert [entry.name for entry in again] == [entry.name for entry in plain]


@pytest.mark.parametrize("data", [b"", b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1" + b"\xff" * 40])
def test_damaged_caches(data: bytes) -> None:
    with pytest.raises(ValueError, match="cache"):
        ldcache.parse(data)
