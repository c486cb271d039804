"""A real Slurm of several nodes on this computer, up in a fraction of a second, with GPUs that are none.

Debian's build lets several ``slurmd`` run on one host. Everything lives in one folder, listens on loopback on ports of
its own, and is ended by process id. Needs root: ``slurmd`` starts jobs for other users, and GPUs are device files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.apt import need, program

PACKAGES = ("slurm-wlm", "munge", "slurm-wlm-basic-plugins")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel")

_CONF = """\
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={d}/munge/s
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool/%n
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd-%n.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={d}/log/jobcomp
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=5
OverTimeLimit=0
SlurmdTimeout=10
SlurmctldTimeout=10
MinJobAge={min_job_age_s}
MaxJobCount=50000
MaxArraySize=20001
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL Default=NO State=UP PriorityTier=100
PartitionName=closed Nodes=ALL Default=NO State=DOWN
"""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(int(one.getsockname()[1]))
        return found


@dataclass
class Slurm:
    """One cluster: ``nodes`` of ``cpus`` cores each; the first has ``gpus`` of them."""

    folder: Path
    nodes: int = 2
    cpus: int = 32
    memory_mib: int = 16000
    gpus: int = 2
    min_job_age_s: int = 300
    slurmd_prefix: list[str] = field(default_factory=list)
    """Put before ``slurmd``: for nodes in a network of their own."""
    address: str = "127.0.0.1"
    """Where nodes find the controller …"""
    node_address: str = "127.0.0.1"
    """… and where they are found."""
    _processes: dict[str, int] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def start(self) -> Slurm:
        if os.geteuid() != 0:
            pytest.skip("needs root: slurmd starts jobs of other users")
        need(PROGRAMS, PACKAGES)
        self._write()
        self._start_munge()
        self.start_controller()
        for name in self.names:
            self.start_node(name)
        self._await(lambda: self.states() == dict.fromkeys(self.names, "idle"), "all nodes are idle")
        return self

    @property
    def names(self) -> list[str]:
        return [f"n{number + 1}" for number in range(self.nodes)]

    def start_controller(self) -> None:
        """Start slurmctld, or start it again: it keeps its state in the folder."""
        self._daemon("slurmctld", ["slurmctld", "-D", "-i"])

    def start_node(self, name: str) -> None:
        self._daemon(name, [*self.slurmd_prefix, str(program("slurmd")), "-D", "-N", name])

    def kill_controller(self) -> None:
        """As with kill -9."""
        self._kill("slurmctld")

    def kill_node(self, name: str) -> None:
        """The node's slurmd, its job steps and whatever they run, as when the power fails."""
        for process in self._steps(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._kill(name)

    def run(self, *words: str, check: bool = True, stdin: str | None = None) -> str:
        """A command of Slurm's; what it printed."""
        done = subprocess.run(
            list(words), env=self.environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-N", "-h", "-p", "main", "-o", "%N %t", check=False).splitlines()
        return dict(line.split() for line in lines if line.strip())

    def jobs(self, states: str = "all") -> dict[int, str]:
        """Slurm's jobs by number: their state."""
        lines = self.run("squeue", "-h", f"--states={states}", "-o", "%i %T").splitlines()
        return {int(number): state for number, state in (line.split() for line in lines)}

    def show(self, job: int) -> str:
        return self.run("scontrol", "show", "job", str(job))

    def stop(self) -> None:
        """Everything that it started is gone afterwards, the jobs too."""
        for name in self.names:
            for process in self._steps(name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for name in list(self._processes):
            self._kill(name)
        for process in psutil.process_iter(["cwd"]):  # what has left its slurmstepd behind
            if (process.info["cwd"] or "").startswith(str(self.folder)) and process.pid != os.getpid():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    # --- how -----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(1024))
            key.chmod(0o400)
        for number in range(self.gpus):
            device = self.folder / f"nvidia{number}"
            if not device.exists():
                os.mknod(device, 0o600 | 0o020000, os.makedev(195, number))
        host = socket.gethostname().partition(".")[0]
        ports = free_ports(self.nodes + 1)
        lines = []
        for name, port in zip(self.names, ports[1:], strict=True):
            gres = f"Gres=gpu:{self.gpus} " if name == "n1" and self.gpus else ""
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr={self.node_address} Port={port} CPUs={self.cpus} "
                f"RealMemory={self.memory_mib} Feature=fast {gres}State=UNKNOWN"
            )
        text = _CONF.format(
            host=host,
            address=self.address,
            port=ports[0],
            d=self.folder,
            nodes="\n".join(lines),
            min_job_age_s=self.min_job_age_s,
        )
        self.conf.write_text(text)
        if self.gpus:
            files = f"{self.folder}/nvidia[0-{self.gpus - 1}]" if self.gpus > 1 else f"{self.folder}/nvidia0"
            (self.folder / "gres.conf").write_text(
                f"NodeName=n1 Name=gpu Count={self.gpus} Flags=nvidia_gpu_env File={files}\n"
            )

    def _start_munge(self) -> None:
        d = self.folder / "munge"
        command = [
            "munged", "--force", "--foreground", "--num-threads=4", f"--key-file={d}/key", f"--socket={d}/s",
            f"--pid-file={d}/pid", f"--log-file={d}/log", f"--seed-file={d}/seed",
        ]  # fmt: skip
        self._daemon("munged", command)
        self._await(lambda: (d / "s").exists(), "munged listens")

    def _daemon(self, name: str, command: list[str]) -> None:
        command = [program(command[0]) or command[0], *command[1:]]
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes[name] = process.pid
        _children[process.pid] = process

    def _kill(self, name: str) -> None:
        process = _children.pop(self._processes.pop(name, 0), None)
        if process is None:
            return
        for child in _tree(process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait(30)

    def _steps(self, name: str) -> list[psutil.Process]:
        """The job steps of a node with all below them: slurmstepd leaves its slurmd, but writes to its log."""
        places = (f"{self.folder}/spool/{name}", f"{self.folder}/log/{name}.log")
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["name", "cwd"]):
            if (process.info["name"] or "").startswith("slurmstepd"):
                with contextlib.suppress(psutil.Error, OSError):
                    if any(file.path.startswith(places) for file in process.open_files()):
                        found += [process, *process.children(recursive=True)]
        return found

    def _await(self, look: Any, what: str, deadline_s: float = 60.0) -> None:
        deadline = time.monotonic() + deadline_s
        while not look():
            assert time.monotonic() < deadline, f"Slurm: after {deadline_s:.0f} s still not: {what}; {self.folder}/log"
            time.sleep(0.02)


_children: dict[int, subprocess.Popen[bytes]] = {}


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
