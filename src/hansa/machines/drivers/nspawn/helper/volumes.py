"""Volumes: file systems in files of their own, so that their size is a limit; mounted here, and shown in machines."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.store import UIDS, Machine, Store
from hansa.machines.drivers.nspawn.helper.tools import locked, read_json, run, write
from hansa.machines.drivers.nspawn.helper.words import Refusal

_OPEN_TREE, _MOVE_MOUNT, _CLONE, _FROM_NOWHERE = 428, 429, 1, 4
_NOFOLLOW, _NEWNS = 8, 0x00020000
_BUSY, _FAILED = 16, 97


def make_file_system(path: str, size_gib: int, owner: int, label: str = "") -> None:
    """An empty ext4 of so many GiB in a file that takes what is written to it only."""
    with open(path, "wb") as file:
        os.ftruncate(file.fileno(), size_gib << 30)
    os.chmod(path, 0o600)
    owned = f"root_owner={owner}:{owner},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", label[:16], "-E", owned, path)


def mount_file(path: str, place: str) -> None:
    """Mount it, as nobody else sees it; nothing where it is so."""
    os.makedirs(place, mode=0o700, exist_ok=True)
    if not os.path.ismount(place):
        run("mount", "-o", "loop,nosuid,nodev", path, place)
    run("mount", "--make-private", place)


class Disk:
    """One volume. ``volume.json`` is written last: what lacks it was never finished."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.path = os.path.join(store.root, "volumes", key)
        self.image, self.mount = os.path.join(self.path, "disk.img"), os.path.join(self.path, "mnt")

    def about(self) -> Any:
        return read_json(os.path.join(self.path, "volume.json"))

    def need(self) -> Any:
        found = self.about()
        if found is None:
            raise Refusal("absent", f"there is no volume {self.key}")
        return found

    def note(self, **changes: Any) -> None:
        about = {**(self.about() or {}), **changes}
        write(os.path.join(self.path, "volume.json"), json.dumps(about))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        os.makedirs(os.path.join(self.store.root, "locks"), mode=0o700, exist_ok=True)
        with locked(os.path.join(self.store.root, "locks", f"volume-{self.key}")):
            yield

    def tree(self) -> int:
        """A mount of it that is nowhere yet: a descriptor. Call it where nobody else sees what is mounted."""
        mount_file(self.image, self.mount)
        return _call(_OPEN_TREE, -100, self.mount.encode(), _CLONE | os.O_CLOEXEC)

    def is_free(self) -> bool:
        """Whether it is mounted nowhere any more; False while a guest uses it."""
        for _ in range(50):  # the loop device lets go a moment after its last mount
            if not self.is_looped():
                return True
            time.sleep(0.02)
        return False

    def is_looped(self) -> bool:
        """Whether the kernel still has the file as a disk: it has, while any guest's mount of it is left."""
        for name in glob.glob("/sys/block/loop*/loop/backing_file"):
            with contextlib.suppress(OSError), open(name, encoding="utf-8", errors="replace") as file:
                if file.read().strip() == os.path.realpath(self.image):
                    return True
        return False


def disks_of(machine: Machine) -> list[Disk]:
    """The volumes that a machine has."""
    store = machine.store
    folder = os.path.join(store.root, "volumes")
    found = [Disk(store, name) for name in (store.names("volumes") if os.path.isdir(folder) else [])]
    return [one for one in found if (about := one.about()) is not None and about["attached"] == machine.key]


def show(machine: Machine) -> None:
    """A machine has just been started: it gets its volumes.

    From outside, as one that runs does: what systemd-nspawn itself binds cannot be taken away again.
    """
    for disk in disks_of(machine):
        show_disk(machine, disk, disk.need()["path"])


def show_disk(machine: Machine, disk: Disk, place: str) -> None:
    """A machine that runs has a volume at a path. Raises Refusal, passing where the machine is not so far yet."""
    cgroup = Cgroup(machine)
    for _ in range(500):
        if (first := cgroup.first()) is not None:
            break
        time.sleep(0.01)
    else:
        raise Refusal("failed", "the machine has no process 1 yet", passing=True)
    owner = 0 if machine.need()["trusted"] else UIDS
    in_guest(first, lambda: alone(disk.tree), lambda tree: graft(tree, place, owner))


def leave(machine: Machine) -> None:
    """A machine is gone, and nothing of it runs: its volumes are nobody's."""
    for disk in disks_of(machine):
        if not disk.is_free():
            raise Refusal("busy", f"the volume {disk.key} is still in use", passing=True)
        disk.note(attached=None, path=None)


def seen(disk: Disk) -> dict[str, Any]:
    about = disk.about()
    if about is None:
        return {"state": "absent"}
    return {"state": "there", "size_gib": about["size_gib"], "attached": about["attached"], "path": about["path"]}


def verb_volume(store: Store, key: str, size_gib: int, name: str, trusted: bool) -> dict[str, Any]:
    """There is such a volume."""
    disk = Disk(store, key)
    with disk.lock():
        if disk.about() is None:
            os.makedirs(disk.path, mode=0o700, exist_ok=True)
            make_file_system(disk.image, size_gib, 0 if trusted else UIDS, name)
            disk.note(size_gib=size_gib, name=name, attached=None, path=None)
        return seen(disk)


def verb_volumes(store: Store) -> dict[str, Any]:
    """All that are here, also what was never finished."""
    return {"keys": store.names("volumes")}


def verb_observe_volume(store: Store, key: str) -> dict[str, Any]:
    return seen(Disk(store, key))


def verb_attach(store: Store, key: str, machine: str, path: str | None) -> dict[str, Any]:
    """A machine has it: at once where it runs, else when it starts."""
    disk, guest = Disk(store, key), store.machine(machine)
    with guest.lock(), disk.lock():
        guest.need()
        about = disk.need()
        if about["attached"] not in (None, machine):
            raise Refusal("taken", f"the volume belongs to {about['attached']} now")
        place = path or about["path"] or f"/mnt/{about['name']}"
        disk.note(attached=machine, path=place)
        if guest.running() is not None:
            show_disk(guest, disk, place)
        return seen(disk)


def verb_detach(store: Store, key: str) -> dict[str, Any]:
    """No machine has it. ``gone`` False while the guest holds on to it."""
    disk = Disk(store, key)
    about = disk.about()
    if about is None or about["attached"] is None:
        return {"gone": disk.is_free()}
    guest = store.machine(about["attached"])
    with guest.lock(), disk.lock():
        about = disk.need()
        if about["attached"] != guest.key:
            return {"gone": False}
        first = Cgroup(guest).first() if guest.running() is not None else None
        place = about["path"]
        if first is not None and in_guest(first, lambda: 0, lambda _: unmount(place)) == _BUSY:
            return {"gone": False}
        if not disk.is_free():
            return {"gone": False}
        disk.note(attached=None, path=None)
    return {"gone": True}


def verb_delete_volume(store: Store, key: str) -> dict[str, Any]:
    """Nothing is left of it. ``gone`` False while a machine has it."""
    if not verb_detach(store, key)["gone"]:
        return {"gone": False}
    disk = Disk(store, key)
    with disk.lock():
        if os.path.isdir(disk.path):
            doomed = os.path.join(store.root, "work", f"{os.getpid()}-{key}")
            os.rename(disk.path, doomed)
            shutil.rmtree(doomed)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(store.root, "locks", f"volume-{key}"))
    return {"gone": True}


def graft(tree: int, place: str, owner: int) -> int:
    """In the guest's view: the mount appears at a path, once."""
    where = "/"
    for part in place.split("/")[1:]:
        where = os.path.join(where, part)
        with contextlib.suppress(FileExistsError):
            os.mkdir(where, 0o755)
            os.chown(where, owner, owner)
    if os.fstat(tree).st_dev != os.stat(place).st_dev:
        _call(_MOVE_MOUNT, tree, b"", -100, place.encode(), _FROM_NOWHERE)
    return 0


def unmount(place: str) -> int:
    """In the guest's view: it is not at the path any more; ``_BUSY`` where somebody uses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.umount2(place.encode(), _NOFOLLOW) == 0:
        pass
    return _BUSY if ctypes.get_errno() == errno.EBUSY else 0


def alone(work: Callable[[], int]) -> int:
    """Do something in a view of files of one's own, which nobody copies, and which ends with this process."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(_NEWNS))
    run("mount", "--make-rprivate", "/")
    return work()


def in_guest(first: int, before: Callable[[], int], work: Callable[[int], int]) -> int:
    """Do something in a child of ours that has the guest's view of files: its answer, a small number.

    ``before`` is done with our own view; what it gives is given on. Nothing of the guest's is executed. Raises
    Refusal where it fails.
    """
    namespace = os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            os.close(reading)
            brought = before()
            _checked(ctypes.CDLL(None, use_errno=True).setns(namespace, _NEWNS))
            code = work(brought)
        except BaseException as error:  # noqa: BLE001 - the end of a process: told to whoever waits
            os.write(writing, str(error).encode()[:400])
        finally:
            os._exit(code)
    os.close(writing)
    os.close(namespace)
    said = os.read(reading, 400).decode(errors="replace")
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, _BUSY):
        raise Refusal("failed", said or "the machine went away meanwhile", passing=True)
    return code


def _call(number: int, *arguments: int | bytes) -> int:
    """A system call that libc may not know by name. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    return _checked(libc.syscall(ctypes.c_long(number), *words))


def _checked(found: int) -> int:
    """What a call of libc gave. Raises OSError."""
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
