"""Starting and stopping: every machine has a process that looks after it until it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import IO, Any, NoReturn

from hansa.machines.drivers.nspawn.helper.boot import GENERATOR, generator
from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.disks import mount
from hansa.machines.drivers.nspawn.helper.networks import ensure_network, isolate
from hansa.machines.drivers.nspawn.helper.store import RANGE, SEED, UIDS, UNFINISHED, Machine, Store
from hansa.machines.drivers.nspawn.helper.tools import SYSTEM_PATH, run, started_at, write
from hansa.machines.drivers.nspawn.helper.volumes import show
from hansa.machines.drivers.nspawn.helper.words import Refusal

LOG_BYTES = 256 * 1024


def launch(machine: Machine, is_first: bool = False) -> None:
    """Start it; returns when its process is there."""
    spec = machine.need()
    bridge = ensure_network(machine.store, spec["network"])["bridge"]
    mount(machine)
    cgroup = Cgroup(machine)
    cgroup.make(spec["cores"], spec["memory_mib"])
    write(machine.file(UNFINISHED), json.dumps({"is_first": is_first}))
    for name in ("run.json", "ended.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(machine.file(name))
    write(machine.file("generator"), generator(spec.get("local", False)), 0o755)
    if os.path.exists(f"/sys/class/net/vb-{machine.name}"):  # the kernel takes a moment to forget that of a past life
        with contextlib.suppress(Refusal):
            run("ip", "link", "delete", f"vb-{machine.name}")
    argv = command(machine, spec, bridge)
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                supervise(machine, cgroup, argv, ready[1])
        finally:
            os._exit(0)
    os.close(ready[1])
    os.waitpid(child, 0)
    said = os.read(ready[0], 400)
    os.close(ready[0])
    if said != b"ok":
        raise Refusal("failed", said.decode(errors="replace") or "its process did not start", passing=True)
    finish(machine)


def finish(machine: Machine) -> None:
    """What its process does not do for itself; also for one whose starter was killed before this."""
    if machine.need()["network"] is None:  # machines that do not belong together do not see each other
        isolate(f"vb-{machine.name}")
    show(machine)
    os.unlink(machine.file(UNFINISHED))


def command(machine: Machine, spec: Any, bridge: str) -> list[str]:
    """The command line of systemd-nspawn."""
    argv = [
        "systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no", "--console=read-only",
        "--link-journal=no", "--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off",
        f"--directory={machine.root}",
        f"--machine={machine.name}", f"--hostname={spec['name']}", f"--network-bridge={bridge}",
        f"--bind-ro={machine.file('seed')}:/{SEED}",
    ]  # fmt: skip
    if os.path.lexists(os.path.join(machine.root, GENERATOR)):
        argv.append(f"--bind-ro={machine.file('generator')}:/{GENERATOR}")
    if spec["trusted"]:
        return [*argv, "--drop-capability=CAP_MKNOD,CAP_SYS_RAWIO"]
    return [*argv, f"--private-users={UIDS}:{RANGE}", "--private-users-ownership=off"]


def supervise(machine: Machine, cgroup: Cgroup, argv: list[str], ready: int) -> NoReturn:
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
        run = {"pid": os.getpid(), "start": started_at(os.getpid()), "since": time.time()}
        write(machine.file("run.json"), json.dumps(run))
    except Exception as error:  # noqa: BLE001 - the end of a process: told to whoever waits
        os.write(ready, str(error).encode()[:399])
        os._exit(1)
    os.write(ready, b"ok")
    os.close(ready)
    assert child.stdout is not None
    pump(child.stdout, machine.file("console.log"))
    write(machine.file("ended.json"), json.dumps({"status": child.wait()}))
    os._exit(0)


def pump(source: IO[bytes], path: str) -> None:
    """Copy a console to a file, of which the last part is kept."""
    log = open(path, "ab", buffering=0)  # noqa: SIM115
    while piece := os.read(source.fileno(), 65536):
        if log.tell() + len(piece) > LOG_BYTES:
            log.close()
            os.replace(path, f"{path}.1")
            log = open(path, "ab", buffering=0)  # noqa: SIM115
        log.write(piece)


def verb_start(store: Store, key: str) -> dict[str, Any]:
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        if machine.running() is None:
            Cgroup(machine).kill()
            launch(machine)
        elif machine.unfinished() is not None:
            finish(machine)
    return {}


def halt(machine: Machine, patience_s: float) -> None:
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


def verb_stop(store: Store, key: str, patience_s: int) -> dict[str, Any]:
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        halt(machine, patience_s)
    return {}


def verb_reboot(store: Store, key: str, hard: bool) -> dict[str, Any]:
    machine = store.machine(key)
    with machine.lock():
        machine.need()
        halt(machine, 0 if hard else 20)
        launch(machine)
    return {}
