"""Disks: unpacked and packed as the guests' user, whom nothing else belongs to, so that a bad image can do no harm."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.store import RANGE, UIDS, Machine, Store
from hansa.machines.drivers.nspawn.helper.tools import SYSTEM_PATH, copy_sparse, locked, run
from hansa.machines.drivers.nspawn.helper.volumes import mount_file
from hansa.machines.drivers.nspawn.helper.words import Refusal


def as_guest(argv: Sequence[str], cwd: str, pass_fds: Sequence[int] = (), stdout: int | None = None) -> None:
    """Run a command as root of a user namespace of guests: it owns their files and nothing else. Raises Refusal."""
    libc = ctypes.CDLL(None, use_errno=True)
    unshared, mapped = os.pipe(), os.pipe()

    def enter() -> None:
        if libc.unshare(0x10000000):
            os._exit(97)
        os.write(unshared[1], b"u")
        os.read(mapped[0], 1)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    child = os.fork()
    if child == 0:
        try:
            os.chdir(cwd)
            enter()
            for fd in pass_fds:
                os.set_inheritable(fd, True)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null if stdout is None else stdout, 1)
            os.execvpe(argv[0], [*argv], {"PATH": SYSTEM_PATH, "LC_ALL": "C"})
        finally:
            os._exit(98)
    os.close(unshared[1])
    os.read(unshared[0], 1)
    try:
        for kind in ("uid", "gid"):
            with open(f"/proc/{child}/{kind}_map", "w", encoding="ascii") as file:
                file.write(f"0 {UIDS} {RANGE}\n")
    except OSError as error:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise Refusal("userns", f"user namespaces do not work here: {error.strerror}") from error
    os.write(mapped[1], b"m")
    _, status = os.waitpid(child, 0)
    for fd in (unshared[0], *mapped):
        os.close(fd)
    if status:
        raise Refusal("failed", f"{argv[0]} failed with status {os.waitstatus_to_exitcode(status)}")


def as_root(argv: Sequence[str], cwd: str, pass_fds: Sequence[int] = (), stdout: int | None = None) -> None:
    """The same without a user namespace, for trusted images where there are none."""
    said = run(*argv, cwd=cwd, pass_fds=pass_fds, stdin=subprocess.DEVNULL)
    if stdout is not None:
        os.write(stdout, said.encode())


def partitions(head: bytes) -> list[int]:
    """Offsets of partitions, of a disk's first bytes (GPT or MBR), the largest first. Pure."""
    found = []
    if head[512:520] == b"EFI PART":
        start, count, size = struct.unpack_from("<QII", head, 512 + 72)
        for index in range(min(count, 128)):
            at = start * 512 + index * size
            if size < 128 or at + 48 > len(head) or not any(head[at : at + 16]):
                continue
            first, last = struct.unpack_from("<QQ", head, at + 32)
            found.append((last - first, first * 512))
    elif head[510:512] == b"\x55\xaa":
        for index in range(4):
            first, length = struct.unpack_from("<II", head, 446 + 16 * index + 8)
            if length:
                found.append((length, first * 512))
    return [offset for _, offset in sorted(found, reverse=True)]


def root_offset(fd: int) -> int:
    """Where the ext file system of a disk begins. Raises Refusal."""
    for offset in [0, *partitions(os.pread(fd, 64 * 1024, 0))]:
        if os.pread(fd, 2, offset + 1024 + 56) == b"\x53\xef":
            return offset
    raise Refusal("image", "its root file system is not ext2, 3 or 4: start it with the driver qemu")


def base_name(sha256: str, is_trusted: bool) -> str:
    return sha256 + (".root" if is_trusted else "")


def verb_import(store: Store, sha256: str, is_trusted: bool) -> dict[str, Any]:
    """Unpack the raw disk on standard input, once; as root itself only where the image is trusted."""
    target = os.path.join(store.root, "bases", base_name(sha256, is_trusted))
    owner, unpack = (0, as_root) if is_trusted else (UIDS, as_guest)
    with locked(os.path.join(store.root, f"import-{sha256[:16]}.lock")):
        if os.path.isdir(target):
            return {"base": sha256}
        if not stat.S_ISREG(os.fstat(0).st_mode):
            raise Refusal("usage", "standard input must be a file")
        store.tidy()
        with store.workspace() as work:
            os.chmod(work, 0o755)
            disk = os.open(f"{work}/disk", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                copy_sparse(0, disk)
                offset = root_offset(disk)
                os.fchown(disk, owner, owner)
            finally:
                os.close(disk)
            os.mkdir(f"{work}/root", 0o755)
            os.chown(f"{work}/root", owner, owner)
            unpack(["debugfs", "-R", "rdump / root", f"disk?offset={offset}"], work)
            if not any(os.path.lexists(f"{work}/root/{name}") for name in ("sbin/init", "usr/sbin/init")):
                raise Refusal("image", "there is no /sbin/init in its root file system")
            mend_modes(work, f"disk?offset={offset}", unpack)
            os.chmod(f"{work}/root", 0o755)
            os.rename(f"{work}/root", target)
    os.unlink(os.path.join(store.root, f"import-{sha256[:16]}.lock"))
    return {"base": sha256}


def mend_modes(work: str, disk: str, unpack: Callable[..., None]) -> None:
    """Give back the set-user-id bits, which debugfs loses when it gives a file to its owner."""
    folders = []
    for folder, _, files in os.walk(f"{work}/root"):
        name = folder[len(f"{work}/root") :] or "/"
        if files and not set(name) & set('"\\\n'):
            folders.append(name)
    with open(f"{work}/questions", "w", encoding="utf-8", errors="surrogateescape") as questions:
        questions.write("".join(f'ls -p "{name}"\n' for name in folders))
    with open(f"{work}/answers", "w+b") as answers:
        unpack(["debugfs", "-f", "questions", disk], work, stdout=answers.fileno())
        answers.seek(0)
        said = answers.read().decode("utf-8", "surrogateescape")
    for folder, name, mode in special_modes(said):
        path = f"{work}/root{folder}/{name}"
        if name not in (".", "..") and stat.S_ISREG(os.lstat(path).st_mode):
            os.chmod(path, mode)


def special_modes(said: str) -> list[tuple[str, str, int]]:
    """Regular files with set-user-id or set-group-id bits, of what debugfs says to many ``ls -p``. Pure."""
    found, folder = [], ""
    for line in said.splitlines():
        if line.startswith("debugfs: ls -p "):
            folder = line[len("debugfs: ls -p ") :].strip('"').rstrip("/")
        parts = line.split("/")
        if len(parts) == 8 and parts[2].isdigit() and parts[2].startswith("10") and int(parts[2], 8) & 0o6000:
            found.append((folder, parts[5], int(parts[2], 8) & 0o7777))
    return found


def verb_bases(store: Store) -> dict[str, Any]:
    """The bases that are here, with how many machines use each."""
    used = [spec["base"] for spec in (store.machine(key).spec() for key in store.names("machines")) if spec]
    return {"bases": {name: used.count(name) for name in {one[:64] for one in store.names("bases")}}}


def verb_remove_base(store: Store, base: str) -> dict[str, Any]:
    """Remove a base that no machine uses."""
    with locked(store.lock):
        if verb_bases(store)["bases"].get(base):
            raise Refusal("busy", "machines are made of it")
        for name in (base_name(base, False), base_name(base, True)):
            path = os.path.join(store.root, "bases", name)
            if os.path.isdir(path):
                doomed = os.path.join(store.root, "work", f"{os.getpid()}-{name}")
                os.rename(path, doomed)
                shutil.rmtree(doomed)
    return {}


def mount(machine: Machine) -> None:
    """The disk: the base below, the machine's changes above."""
    if os.path.ismount(machine.root):
        return
    spec = machine.need()
    owner = 0 if spec["trusted"] else UIDS
    bring_disk(machine)
    for name in (machine.root, machine.layer("upper"), machine.layer("work")):
        os.makedirs(name, mode=0o755, exist_ok=True)
    os.chown(machine.layer("upper"), owner, owner)
    base = os.path.join(machine.store.root, "bases", base_name(spec["base"], spec["trusted"]))
    options = f"lowerdir={base},upperdir={machine.layer('upper')},workdir={machine.layer('work')}"
    run("mount", "-t", "overlay", "-o", options, "hansa", machine.root)


def bring_disk(machine: Machine) -> None:
    """Its own disk is mounted, where its changes have one."""
    if os.path.exists(f"{machine.disk}.img"):
        mount_file(f"{machine.disk}.img", machine.disk)


def verb_snapshot(store: Store, key: str) -> None:
    """Write the machine's disk, as an ext4 file system of 8 GiB at least, to the file on standard output."""
    machine = store.machine(key)
    if not stat.S_ISREG(os.fstat(1).st_mode):
        raise Refusal("usage", "standard output must be a file")
    with machine.lock(), store.workspace() as work:
        is_trusted = machine.need()["trusted"]
        owner, pack = (0, as_root) if is_trusted else (UIDS, as_guest)
        mount(machine)
        disk = os.open(f"{work}/disk", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(disk, disk_bytes(machine.root))
        os.fchown(disk, owner, owner)
        name = f"/proc/self/fd/{disk}"
        with frozen(machine):
            make = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "cloudroot", "-O", "^has_journal", "-d", ".", name]
            pack(make, machine.root, (disk,))
        for change in ("rm /etc/machine-id", "write /dev/null /etc/machine-id"):  # another machine is another one
            pack(["debugfs", "-w", "-R", change, name], "/", (disk,))
        copy_sparse(disk, 1)
        os.close(disk)


@contextlib.contextmanager
def frozen(machine: Machine) -> Iterator[None]:
    """Nothing of a machine that runs moves meanwhile."""
    is_running = machine.running() is not None
    try:
        if is_running:
            Cgroup(machine).freeze(True)
        yield
    finally:
        if is_running:
            Cgroup(machine).freeze(False)


def disk_bytes(root: str) -> int:
    """The size of a disk that holds a tree, with as much room again, in whole GiB, 4 at least."""
    used = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                used += os.lstat(os.path.join(folder, name)).st_size + 4096
    return max(4, -(-2 * used // (1 << 30))) << 30
