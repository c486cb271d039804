#!/usr/bin/python3 -I
"""What needs root for machines in containers of systemd-nspawn: a fixed set of verbs with strictly checked arguments.

This file stands alone (standard library, Python 3.9): an administrator puts a copy that only root can write where sudo
may run it, and so it is longer than a file of ours should be. ``hansa-nspawn VERB`` reads its arguments as one JSON
object from standard input (``import`` reads a raw disk, ``snapshot`` writes one to standard output), answers with JSON,
and says what was wrong as JSON on standard error, with exit code 3.

A caller names machines, never paths: all that is made lies below one folder per calling user. What guests or images
wrote is read only as data: without following their links, and unpacked as a user id that owns nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

UIDS, RANGE = 0x34CD0000, 65536
"""The user ids of guests: root in a machine is this user outside, and owns nothing but machines."""
POOL = ipaddress.ip_network("10.199.0.0/16")
V1 = ("systemd", "unified", "memory", "pids", "cpu", "cpuacct", "freezer")
CGROUPS = "/sys/fs/cgroup"
LOG_BYTES = 256 * 1024
PIDS = 16384
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEY = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
SIGN_IN_KEY = re.compile(r"[ -~]{1,16000}\Z")


class Refusal(Exception):
    """Something is wrong with what was asked, or it does not work here."""

    def __init__(self, why, message, passing=False):
        super().__init__(message)
        self.why, self.passing = why, passing


# Arguments


def text(pattern):
    def check(value):
        if not isinstance(value, str) or not pattern.match(value):
            raise ValueError
        return value

    return check


def number(least, most):
    def check(value):
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return check


def flag(value):
    if type(value) is not bool:
        raise ValueError
    return value


def maybe(check):
    return lambda value: None if value is None else check(value)


def keys(value):
    if not isinstance(value, list) or len(value) > 100:
        raise ValueError
    return [text(SIGN_IN_KEY)(one) for one in value]


def blob(value):
    if not isinstance(value, str) or len(value) > 1 << 20:
        raise ValueError
    return value


SIZE = {"cores": number(1, 4096), "memory_mib": number(16, 1 << 24)}
SPEC = {"base": text(SHA256), "name": text(HOST), "user_data": blob, "ssh_keys": keys, "network": maybe(text(KEY)),
        "trusted": flag, "login": text(LOGIN), **SIZE}  # fmt: skip


def checked(shape, given):
    """The arguments, exactly those of the shape. Raises Refusal."""
    if not isinstance(given, dict) or set(given) != set(shape):
        raise Refusal("usage", f"the arguments are {', '.join(sorted(shape)) or 'none'}")
    found = {}
    for name, check in shape.items():
        try:
            found[name] = check(given[name])
        except (ValueError, TypeError):
            raise Refusal("usage", f"{name} is not valid") from None
    return found


# Small things


def run(*argv, **more):
    """A command to its end; its output. Raises Refusal with its last words."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, **more)
    except FileNotFoundError:
        raise Refusal("missing", f"{argv[0]} is not installed") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise Refusal("failed", f"{argv[0]}: {words[-1][:400]}", passing=True)
    return done.stdout


def write(path, content, mode=0o600, owner=None):
    """A file, whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
        file.write(content)
        if owner is not None:
            os.fchown(file.fileno(), owner, owner)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def locked(path):
    """Alone among all helpers; the lock goes with the process."""
    with open(path, "w", encoding="ascii") as file:
        os.set_inheritable(file.fileno(), False)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def started_at(pid):
    """When a process started, in ticks: a process id alone may be somebody else's by now. None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


# The store: one folder per calling user


class Store:
    def __init__(self, root):
        self.root = root
        self.mark = hashlib.sha256(root.encode()).hexdigest()[:8]
        for part in ("", "machines", "networks", "bases", "work"):
            os.makedirs(os.path.join(root, part), mode=0o711, exist_ok=True)
        self.lock = os.path.join(root, "lock")

    def names(self, part):
        return sorted(os.listdir(os.path.join(self.root, part)))

    def machine(self, key):
        return Machine(self, key)

    def network(self, name):
        return os.path.join(self.root, "networks", f"{name}.json")

    def short(self, prefix, name):
        """A name for the kernel, of at most 15 letters, that no other user's store has."""
        return prefix + hashlib.sha256(f"{self.mark}/{name}".encode()).hexdigest()[: 12 - len(prefix)]

    @contextlib.contextmanager
    def workspace(self):
        """A folder that goes away again, of the guests' user."""
        path = os.path.join(self.root, "work", f"{os.getpid()}-{time.monotonic_ns()}")
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path)


class Machine:
    def __init__(self, store, key):
        self.store, self.key = store, key
        self.path = os.path.join(store.root, "machines", key)
        self.root = os.path.join(self.path, "root")
        self.name = store.short("hz", f"machine/{key}")

    def file(self, name):
        return os.path.join(self.path, name)

    def spec(self):
        return read_json(self.file("spec.json"))

    def need(self):
        """What it is. Raises Refusal where there is none."""
        spec = self.spec()
        if spec is None:
            raise Refusal("absent", f"there is no machine {self.key}")
        return spec

    def lock(self):
        os.makedirs(os.path.join(self.store.root, "locks"), mode=0o700, exist_ok=True)
        return locked(os.path.join(self.store.root, "locks", self.key))

    def running(self):
        """The process that looks after it, where it is alive."""
        found = read_json(self.file("run.json"))
        return found["pid"] if found and started_at(found["pid"]) == found["start"] else None


# Limits: a cgroup for each machine, of either version


def hierarchies():
    """The folders in which a machine gets a cgroup: one of version 2, or several of version 1."""
    if os.path.exists(f"{CGROUPS}/cgroup.controllers"):
        return [CGROUPS]
    return [f"{CGROUPS}/{name}" for name in V1 if os.path.isdir(f"{CGROUPS}/{name}")]


def limits(cores, memory_mib, unified):
    """Files of a cgroup and what they must say. Pure."""
    memory = memory_mib << 20
    if unified:
        return {"memory.max": memory, "memory.swap.max": 0, "pids.max": PIDS, "cpu.max": f"{cores * 100000} 100000"}
    return {
        "memory/memory.limit_in_bytes": memory,
        "memory/memory.memsw.limit_in_bytes": memory,
        "pids/pids.max": PIDS,
        "cpu/cpu.cfs_period_us": 100000,
        "cpu/cpu.cfs_quota_us": cores * 100000,
    }


class Cgroup:
    def __init__(self, machine):
        self.part = f"hansa-{machine.store.mark}/{machine.key}"
        self.roots = hierarchies()
        self.unified = self.roots == [CGROUPS]

    def folders(self):
        return [os.path.join(root, self.part) for root in self.roots]

    def make(self, cores, memory_mib):
        """It is there, with these limits. Raises Refusal where they cannot be enforced."""
        for folder in self.folders():
            if self.unified:
                parent = os.path.dirname(folder)
                os.makedirs(parent, exist_ok=True)
                for where in (CGROUPS, parent):
                    self._set(os.path.join(where, "cgroup.subtree_control"), "+memory +pids +cpu")
            os.makedirs(folder, exist_ok=True)
        wanted = limits(cores, memory_mib, self.unified)
        for _ in range(2):  # memory and memsw depend on each other's order
            for name, value in wanted.items():
                path = self._path(name)
                optional = name.endswith(("memsw.limit_in_bytes", "swap.max"))
                if optional and not os.path.exists(path):
                    continue
                with contextlib.suppress(OSError):
                    self._set(path, value)
        for name in ("memory.max", "pids.max") if self.unified else ("memory/memory.limit_in_bytes", "pids/pids.max"):
            with open(self._path(name), encoding="ascii") as file:
                if file.read().strip() != str(wanted[name]):
                    raise Refusal("limits", f"the limit {name} of {wanted[name]} is not enforced here")

    def _path(self, name):
        if self.unified:
            return os.path.join(CGROUPS, self.part, name)
        controller, _, file = name.partition("/")
        return os.path.join(CGROUPS, controller, self.part, file)

    @staticmethod
    def _set(path, value):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))

    def join(self):
        for folder in self.folders():
            self._set(os.path.join(folder, "cgroup.procs"), os.getpid())

    def processes(self):
        """Everything that runs in it, at any depth."""
        found = set()
        for folder in self.folders():
            for where, _, files in os.walk(folder):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError), open(os.path.join(where, "cgroup.procs")) as file:
                        found.update(int(line) for line in file)
        return found

    def first(self):
        """The guest's process 1."""
        for pid in self.processes():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
                inside = next((line.split()[1:] for line in file if line.startswith("NSpid:")), [])
                if len(inside) == 2 and inside[1] == "1":
                    return pid
        return None

    def freeze(self, is_frozen):
        if self.unified:
            self._set(self._path("cgroup.freeze"), int(is_frozen))
        elif os.path.isdir(self._path("freezer/")):
            self._set(self._path("freezer/freezer.state"), "FROZEN" if is_frozen else "THAWED")

    def kill(self, deadline_s=20.0):
        """Nothing runs in it any more."""
        end = time.monotonic() + deadline_s
        with contextlib.suppress(OSError):
            self.freeze(False)
        while found := self.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise Refusal("busy", f"processes {sorted(found)} do not end", passing=True)
            time.sleep(0.01)

    def remove(self):
        for folder in self.folders():
            for where, _, _ in os.walk(folder, topdown=False):
                _rmdir_soon(where)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(folder))  # the store's own, when it was the last


def _rmdir_soon(path):
    """A cgroup is busy for a moment after its last process."""
    for _ in range(200):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise Refusal("busy", f"{path} cannot be removed yet", passing=True)


# Disks: unpacked and packed as the guests' user


def as_guest(argv, cwd, pass_fds=()):
    """Run a command as root of a user namespace of guests: it owns their files and nothing else. Raises Refusal."""
    libc = ctypes.CDLL(None, use_errno=True)
    unshared, mapped = os.pipe(), os.pipe()

    def enter():
        if libc.unshare(0x10000000):
            os._exit(97)
        os.write(unshared[1], b"u")
        os.read(mapped[0], 1)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    def map_ids():
        os.read(unshared[0], 1)

    child = os.fork()
    if child == 0:
        try:
            os.chdir(cwd)
            enter()
            for fd in pass_fds:
                os.set_inheritable(fd, True)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.execvpe(argv[0], argv, {"PATH": SYSTEM_PATH, "LC_ALL": "C"})
        finally:
            os._exit(98)
    os.close(unshared[1])
    map_ids()
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


def as_root(argv, cwd, pass_fds=()):
    """The same without a user namespace, for trusted images where there are none."""
    run(*argv, cwd=cwd, pass_fds=pass_fds, stdin=subprocess.DEVNULL)


def copy_sparse(source, target):
    """Copy a file's content, holes as holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:
            return
        offset = os.lseek(source, start, os.SEEK_HOLE)
        at = start
        while at < offset:
            done = os.copy_file_range(source, target, min(offset - at, 1 << 30), at, at)
            if not done:
                raise Refusal("failed", "the disk was cut off while it was read", passing=True)
            at += done


def partitions(head):
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


def root_offset(fd):
    """Where the ext file system of a disk begins. Raises Refusal."""
    for offset in [0, *partitions(os.pread(fd, 64 * 1024, 0))]:
        if os.pread(fd, 2, offset + 1024 + 56) == b"\x53\xef":
            return offset
    raise Refusal("image", "its root file system is not ext2, 3 or 4: start it with the driver qemu")


def base_name(sha256, is_trusted):
    return sha256 + (".root" if is_trusted else "")


def verb_import(store, sha256, is_trusted):
    """Unpack the raw disk on standard input, once; as root itself only where the image is trusted."""
    target = os.path.join(store.root, "bases", base_name(sha256, is_trusted))
    owner, unpack = (0, as_root) if is_trusted else (UIDS, as_guest)
    with locked(os.path.join(store.root, f"import-{sha256[:16]}.lock")):
        if os.path.isdir(target):
            return {"base": sha256}
        if not stat.S_ISREG(os.fstat(0).st_mode):
            raise Refusal("usage", "standard input must be a file")
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
            if not os.path.lexists(f"{work}/root/sbin/init") and not os.path.lexists(f"{work}/root/usr/sbin/init"):
                raise Refusal("image", "there is no /sbin/init in its root file system")
            os.chmod(f"{work}/root", 0o755)
            os.rename(f"{work}/root", target)
    os.unlink(os.path.join(store.root, f"import-{sha256[:16]}.lock"))
    return {"base": sha256}


def verb_bases(store):
    """The bases that are here, with how many machines use each."""
    used = [spec["base"] for spec in (store.machine(key).spec() for key in store.names("machines")) if spec]
    return {"bases": {name: used.count(name) for name in {one[:64] for one in store.names("bases")}}}


def verb_remove_base(store, base):
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


def verb_snapshot(store, key):
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
def frozen(machine):
    """Nothing of a machine that runs moves meanwhile."""
    is_running = machine.running() is not None
    try:
        if is_running:
            Cgroup(machine).freeze(True)
        yield
    finally:
        if is_running:
            Cgroup(machine).freeze(False)


def disk_bytes(root):
    """The size of a disk that holds a tree, with as much room again, in whole GiB, 4 at least."""
    used = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                used += os.lstat(os.path.join(folder, name)).st_size + 4096
    return max(4, -(-2 * used // (1 << 30))) << 30


# Networks: one bridge each


def ensure_network(store, name, egress=True):
    """The bridge of a network, with its subnet. The name ``None`` is where machines are that belong to none."""
    label = name or "_"
    bridge = store.short("hz", f"network/{label}")
    with locked("/run/lock/hansa-nspawn.lock"):
        found = read_json(store.network(label))
        if found is None:
            found = {"bridge": bridge, "subnet": str(free_subnet(store)), "egress": egress}
            write(store.network(label), json.dumps(found))
        if not os.path.isdir(f"/sys/class/net/{bridge}"):
            run("ip", "link", "add", bridge, "type", "bridge")
        gateway = ipaddress.ip_network(found["subnet"])[1]
        run("ip", "address", "replace", f"{gateway}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        run("nft", "-f", "-", input=rules(bridge, found["subnet"]))
        if found["egress"]:
            with open("/proc/sys/net/ipv4/ip_forward", "r+", encoding="ascii") as file:
                if file.read().strip() != "1":
                    file.write("1")
    return found


def rules(bridge, subnet):
    """What may pass: out to the world, answers back; not to this computer's services, nor to other networks. Pure."""
    return f"""
table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
  chain forward {{ type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
    iifname "{bridge}" oifname "hz*" drop
    iifname "{bridge}" ip daddr 169.254.0.0/16 drop
  }}
  chain input {{ type filter hook input priority filter; policy accept;
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname "{bridge}" drop
  }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
}}
"""


def free_subnet(store):
    """A subnet of the pool that nothing on this computer has a route to."""
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "all") or "[]")
    taken = [ipaddress.ip_network(one["dst"], strict=False) for one in routes if one["dst"][:1].isdigit()]
    known = (read_json(store.network(name[:-5])) for name in store.names("networks"))
    taken += [ipaddress.ip_network(one["subnet"]) for one in known if one]
    for subnet in POOL.subnets(new_prefix=24):
        if not any(subnet.overlaps(one) for one in taken):
            return subnet
    raise Refusal("network", f"no subnet of {POOL} is free")


def users_of(store, label):
    specs = [store.machine(key).spec() for key in store.names("machines")]
    return [spec for spec in specs if spec and (spec["network"] or "_") == label]


def verb_network(store, name, egress):
    return {"subnet": ensure_network(store, name, egress)["subnet"]}


def verb_remove_network(store, name):
    """Remove a network that no machine is in; says whether it is gone."""
    label = name or "_"
    with locked(store.lock), locked("/run/lock/hansa-nspawn.lock"):
        if users_of(store, label):
            return {"gone": False}
        found = read_json(store.network(label))
        if found is not None:
            run("nft", "-f", "-", input=f"table inet {found['bridge']}\ndelete table inet {found['bridge']}\n")
            if os.path.isdir(f"/sys/class/net/{found['bridge']}"):
                run("ip", "link", "delete", found["bridge"])
            os.unlink(store.network(label))
    return {"gone": True}


# Machines


def verb_create(store, key, **spec):
    """There is such a machine, and it runs, unless it was stopped."""
    machine = store.machine(key)
    if not os.path.isdir(os.path.join(store.root, "bases", base_name(spec["base"], spec["trusted"]))):
        raise Refusal("no_base", "its base is not here: import it")
    with machine.lock():
        if machine.spec() is None:
            _reserve(machine, spec)
        if not os.path.exists(machine.file("run.json")):
            launch(machine)
    return look(machine)


def _reserve(machine, spec):
    """Write down what it is, with an address that nobody else has."""
    store = machine.store
    with locked(store.lock):
        ensure = ensure_network(store, spec["network"])
        taken = {one["address"] for one in users_of(store, spec["network"] or "_")}
        hosts = list(ipaddress.ip_network(ensure["subnet"]).hosts())[9:]
        address = next((str(one) for one in hosts if str(one) not in taken), None)
        if address is None:
            raise Refusal("network", f"no address of {ensure['subnet']} is free")
        seed = machine.file("seed")
        os.makedirs(seed, mode=0o755, exist_ok=True)
        meta = {"instance-id": f"{machine.key}", "local-hostname": spec["name"], "public-keys": spec["ssh_keys"]}
        files = {
            "meta-data": json.dumps(meta),
            "user-data": spec.pop("user_data") or "#cloud-config\n{}\n",
            "network-config": json.dumps(network_config(address, ensure["subnet"])),
        }
        for name, content in files.items():
            write(os.path.join(seed, name), content, 0o400, 0 if spec["trusted"] else UIDS)
        write(machine.file("spec.json"), json.dumps({**spec, "address": address, "created": time.time()}))


def network_config(address, subnet):
    """For cloud-init (version 2). Pure but for the names of this computer's resolvers."""
    return {
        "version": 2,
        "ethernets": {
            "host0": {
                "addresses": [f"{address}/24"],
                "routes": [{"to": "0.0.0.0/0", "via": str(ipaddress.ip_network(subnet)[1])}],
                "nameservers": {"addresses": resolvers()},
            }
        },
    }


def resolvers():
    """Name servers that a guest can reach too."""
    for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            given = [line.split()[1] for line in file if line.startswith("nameserver ") and len(line.split()) > 1]
            if found := [one for one in given if not one.startswith(("127.", "::1"))]:
                return found
    return []


def mount(machine):
    """The disk: the base below, the machine's changes above."""
    if os.path.ismount(machine.root):
        return
    spec = machine.need()
    owner = 0 if spec["trusted"] else UIDS
    for name in ("root", "upper", "work"):
        os.makedirs(machine.file(name), mode=0o755, exist_ok=True)
    os.chown(machine.file("upper"), owner, owner)
    base = os.path.join(machine.store.root, "bases", base_name(spec["base"], spec["trusted"]))
    options = f"lowerdir={base},upperdir={machine.file('upper')},workdir={machine.file('work')}"
    run("mount", "-t", "overlay", "-o", options, "hansa", machine.root)


def launch(machine):
    """Start it; returns when its process is there."""
    spec = machine.need()
    bridge = ensure_network(machine.store, spec["network"])["bridge"]
    mount(machine)
    cgroup = Cgroup(machine)
    cgroup.make(spec["cores"], spec["memory_mib"])
    for name in ("run.json", "ended.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(machine.file(name))
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                supervise(machine, cgroup, command(machine, spec, bridge), ready[1])
        finally:
            os._exit(0)
    os.close(ready[1])
    os.waitpid(child, 0)
    said = os.read(ready[0], 400)
    os.close(ready[0])
    if said != b"ok":
        raise Refusal("failed", said.decode(errors="replace") or "its process did not start", passing=True)
    if spec["network"] is None:  # machines that do not belong together do not see each other
        isolate(f"vb-{machine.name}")


def isolate(port):
    """A port of a bridge that reaches the computer and the world, and no other such port."""
    for _ in range(400):
        if os.path.exists(f"/sys/class/net/{port}/brport"):
            run("ip", "link", "set", "dev", port, "type", "bridge_slave", "isolated", "on")
            return
        time.sleep(0.01)


def command(machine, spec, bridge):
    """The command line of systemd-nspawn. Pure."""
    argv = [
        "systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no", "--console=pipe", "--link-journal=no",
        "--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off", f"--directory={machine.root}",
        f"--machine={machine.name}", f"--hostname={spec['name']}", f"--network-bridge={bridge}",
        f"--bind-ro={machine.file('seed')}:/var/lib/cloud/seed/nocloud",
    ]  # fmt: skip
    if spec["trusted"]:
        return [*argv, "--drop-capability=CAP_MKNOD,CAP_SYS_RAWIO"]
    return [*argv, f"--private-users={UIDS}:{RANGE}", "--private-users-ownership=off"]


def supervise(machine, cgroup, argv, ready):
    """Look after a machine until it ends: in its own cgroup, its console into a log of bounded size."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, ready)
    os.closerange(ready + 1, 1024)
    os.chdir("/")
    try:
        cgroup.join()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_NSPAWN_TMPFS_TMP": "0"},
        )  # fmt: skip
        write(machine.file("run.json"), json.dumps({"pid": os.getpid(), "start": started_at(os.getpid()), "since": time.time()}))
    except Exception as error:  # noqa: BLE001 - the end of a process: told to whoever waits
        os.write(ready, str(error).encode()[:399])
        os._exit(1)
    os.write(ready, b"ok")
    os.close(ready)
    pump(child.stdout, machine.file("console.log"))
    write(machine.file("ended.json"), json.dumps({"status": child.wait()}))
    os._exit(0)


def pump(source, path):
    """Copy a console to a file, of which the last part is kept."""
    log = open(path, "ab", buffering=0)  # noqa: SIM115
    while piece := os.read(source.fileno(), 65536):
        if log.tell() + len(piece) > LOG_BYTES:
            log.close()
            os.replace(path, f"{path}.1")
            log = open(path, "ab", buffering=0)  # noqa: SIM115
        log.write(piece)


def verb_start(store, key):
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        if machine.running() is None:
            Cgroup(machine).kill()
            launch(machine)
    return look(machine)


def halt(machine, patience_s):
    """Ask the guest to shut down, then cut it off."""
    cgroup = Cgroup(machine)
    end, asked = time.monotonic() + patience_s, 0.0
    while machine.running() is not None and time.monotonic() < end:
        if time.monotonic() > asked + 1 and (first := cgroup.first()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGRTMIN + 3)  # once more each second: at first it may not listen yet
            asked = time.monotonic()
        time.sleep(0.02)
    cgroup.kill()


def verb_stop(store, key, patience_s):
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        halt(machine, patience_s)
    return look(machine)


def verb_reboot(store, key, hard):
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        halt(machine, 0 if hard else 20)
        launch(machine)
    return look(machine)


def verb_resize(store, key, cores, memory_mib):
    machine = store.machine(key)
    with machine.lock():
        spec = machine.need()
        if os.path.isdir(Cgroup(machine).folders()[0]):
            Cgroup(machine).make(cores, memory_mib)
        write(machine.file("spec.json"), json.dumps({**spec, "cores": cores, "memory_mib": memory_mib}))
    return look(machine)


def verb_delete(store, key):
    """Nothing of it is left: process, mount, cgroup, file; nor the bridge of its network where nobody named one."""
    machine = store.machine(key)
    with machine.lock():
        if os.path.isdir(machine.path):
            Cgroup(machine).kill()
            while os.path.ismount(machine.root):
                run("umount", machine.root)
            Cgroup(machine).remove()
            spec = machine.spec()
            shutil.rmtree(machine.path)
            if spec and spec["network"] is None:
                verb_remove_network(store, None)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(store.root, "locks", key))
    return {}


def guest_file(machine, path, since):
    """A file that the guest wrote after ``since``, without following its links; None: there is none."""
    fd = None
    try:
        fd = os.open(machine.root, os.O_RDONLY | os.O_DIRECTORY)
        for part in path.split("/")[:-1]:
            following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = following
        with os.fdopen(
            os.open(path.split("/")[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd), "rb"
        ) as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode) or seen.st_mtime < since - 1:
                return None
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        if fd is not None:
            os.close(fd)


def look(machine):
    """How a machine is."""
    spec, ran = machine.spec(), read_json(machine.file("run.json"))
    if spec is None or ran is None:
        return {"state": "absent"}
    is_running = machine.running() is not None
    ended = read_json(machine.file("ended.json"))
    host_keys = [guest_file(machine, f"etc/ssh/ssh_host_{kind}_key.pub", spec["created"]) for kind in ("ed25519", "ecdsa", "rsa")]
    return {
        "state": "running" if is_running else "stopped",
        "ended": ended["status"] if ended and not is_running else None,
        "address": spec["address"], "cores": spec["cores"], "memory_mib": spec["memory_mib"],
        "created": spec["created"], "trusted": spec["trusted"], "base": spec["base"], "login": spec["login"],
        "result": guest_file(machine, "var/lib/cloud/data/result.json", ran["since"] if is_running else spec["created"]),
        "host_keys": [one.strip() for one in host_keys if one],
    }  # fmt: skip


def verb_observe(store, key):
    return look(store.machine(key))


def verb_list(store):
    """All that is here, also what was never finished."""
    return {"keys": store.names("machines")}


def verb_console(store, key):
    machine = store.machine(key)
    machine.need()
    said = b""
    for name in ("console.log.1", "console.log"):
        with contextlib.suppress(FileNotFoundError), open(machine.file(name), "rb") as file:
            said += file.read()
    return {"log": said.decode("utf-8", "replace")}


def verb_probe(store):
    """What works here: a list of what is missing, and whether guests get user ids of their own."""
    missing = [name for name in ("systemd-nspawn", "ip", "nft", "debugfs", "mke2fs") if not shutil.which(name, path=SYSTEM_PATH)]
    problems = [f"{name} is not installed" for name in missing]
    with open("/proc/filesystems", encoding="ascii") as file:
        if "overlay" not in file.read().split() and not os.path.isdir("/sys/module/overlay"):
            problems.append("the kernel has no overlay file system")
    if not any(os.path.exists(f"{root}/memory.limit_in_bytes") or root == CGROUPS for root in hierarchies()):
        problems.append("memory cannot be limited: there is no memory cgroup")
    userns = ""
    try:
        as_guest(["true"], "/")
    except Refusal as refusal:
        userns = str(refusal)
    return {"problems": problems, "userns": userns}


def verb_sweep(store):
    """What is left of machines and networks that are not there any more: nothing, if all is well."""
    machines = {store.machine(key).path for key in store.names("machines")}
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file if line.split()[1].startswith(f"{store.root}/")]
    left = [f"mount {one}" for one in mounts if os.path.dirname(one) not in machines]
    for root in hierarchies():
        folder = os.path.join(root, f"hansa-{store.mark}")
        if os.path.isdir(folder):
            there = [one for one in os.listdir(folder) if os.path.isdir(os.path.join(folder, one))]
            left += [f"cgroup {folder}/{one}" for one in there if os.path.join(store.root, "machines", one) not in machines]
    bridges = {read_json(store.network(name[:-5]))["bridge"] for name in store.names("networks")}
    mine = {store.short("hz", f"network/{name[:-5]}") for name in store.names("networks")}
    left += [f"bridge {one}" for one in mine - bridges]
    left += [f"file {one}" for one in store.names("work")]
    return {"left": sorted(left)}


VERBS = {
    "probe": ({}, verb_probe),
    "bases": ({}, verb_bases),
    "remove-base": ({"base": text(SHA256)}, verb_remove_base),
    "network": ({"name": text(KEY), "egress": flag}, verb_network),
    "remove-network": ({"name": text(KEY)}, verb_remove_network),
    "create": ({"key": text(KEY), **SPEC}, verb_create),
    "observe": ({"key": text(KEY)}, verb_observe),
    "list": ({}, verb_list),
    "start": ({"key": text(KEY)}, verb_start),
    "stop": ({"key": text(KEY), "patience_s": number(0, 600)}, verb_stop),
    "reboot": ({"key": text(KEY), "hard": flag}, verb_reboot),
    "resize": ({"key": text(KEY), **SIZE}, verb_resize),
    "console": ({"key": text(KEY)}, verb_console),
    "delete": ({"key": text(KEY)}, verb_delete),
    "sweep": ({}, verb_sweep),
}


def store_of(given, environ):
    """The folder of whoever calls: by sudo that of the user, for root the one that it names."""
    caller = environ.get("SUDO_UID", "")
    if given is None:
        return f"/var/lib/hansa/nspawn/{int(caller or 0)}"
    if caller not in ("", "0") or not os.path.isabs(given) or os.path.normpath(given) != given:
        raise Refusal("usage", "only root names a folder, as an absolute path")
    if re.search(r"[,:\\\s\"]", given):
        raise Refusal("usage", "the folder's path has letters that mount and systemd-nspawn read otherwise")
    return given


def answer(argv):
    given, verb, *more = [argv[1].partition("=")[2], *argv[2:]] if argv[1:2] and argv[1].startswith("--store=") else [None, *argv[1:]]
    if os.geteuid() != 0:
        raise Refusal("root", "this needs to be root")
    os.environ.update(PATH=SYSTEM_PATH, LC_ALL="C")
    os.umask(0o022)
    store = Store(store_of(given, os.environ))
    if verb == "import" and len(more) in (1, 2) and more[1:] in ([], ["trusted"]):
        return verb_import(store, text(SHA256)(more[0]), bool(more[1:]))
    if verb == "snapshot" and len(more) == 1:
        return verb_snapshot(store, text(KEY)(more[0]))
    if verb not in VERBS or more:
        raise Refusal("usage", f"the verbs are {', '.join(sorted(VERBS))}, import SHA256 and snapshot KEY")
    shape, work = VERBS[verb]
    return work(store, **checked(shape, json.loads(sys.stdin.read(2 << 20) or "{}")))


def main():
    try:
        found = answer(sys.argv)
    except Refusal as refusal:
        sys.stderr.write(json.dumps({"why": refusal.why, "message": str(refusal), "passing": refusal.passing}))
        return 3
    except (ValueError, IndexError) as error:
        sys.stderr.write(json.dumps({"why": "usage", "message": f"not understood: {error}", "passing": False}))
        return 3
    except OSError as error:
        sys.stderr.write(json.dumps({"why": "system", "message": f"{error}", "passing": True}))
        return 3
    if found is not None:
        sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
