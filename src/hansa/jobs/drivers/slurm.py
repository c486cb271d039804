"""The batch driver ``slurm``: a pilot is a batch job, on the spot or over SSH.

The job's name is the pilot's id: before anything is sent, the queue is searched for it, so that at most one job comes
of however many calls. Its comment tells the site's administrator whose it is. Nothing but the commands that any user
has is needed; ``sacct`` is not.
"""

from __future__ import annotations

import asyncio
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hansa.jobs.batch import EXCLUSIVE
from hansa.jobs.drivers.base import Life, PilotOrder, Seen
from hansa.jobs.drivers.remote import BUSY, RemoteBatch
from hansa.kernel.errors import Permanent, Temporary
from hansa.placement.views import PILOT_MEMORY_MIB

_SNAPSHOT_S = 1.0
GRACE_S = 120
"""Slurm gives a pilot so much longer than the pilot takes: it ends by itself, and says so."""
_QUEUE = """
squeue -h -u "$(id -un)" -t all -o '%i|%T|%r|%N|%j' || exit 75
"""
_START = """
cd "$1/pilots/$2" || exit 1
exec 9>start.lock; flock 9
known=$(squeue -h -u "$(id -un)" -t all --name="$2" -o %i) || exit 75
known=$(printf '%s\\n' $known | sort -n | head -n 1)
[ -n "$known" ] || ! [ -e batch ] || known=$(cat batch)
if [ -z "$known" ]; then shift 2; known=$(sbatch --parsable "$@" job.sh) || exit 1; fi
printf '%s' "${known%%;*}" > batch.part && mv -f batch.part batch && cat batch
"""
_KNOWN = """
cd "$1/pilots/$2" 2>/dev/null && [ -e batch ] || { echo absent; exit 0; }
echo "sent $(cat batch)"
"""
_CANCEL = 'scancel --user="$(id -un)" --name="$2" || exit 75'
_WAITS = frozenset({"PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
_UNBORN = _WAITS - {"SUSPENDED"}
"""Nothing runs: not yet, or not any more, where Slurm has taken the place away and will start the script anew."""
_LIVES = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED"})
_BLAMELESS = {
    "PREEMPTED": "Slurm pre-empted it",
    "TIMEOUT": "Slurm ended it at its time limit",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "CANCELLED": "it was cancelled in Slurm",
    "DEADLINE": "Slurm ended it at its deadline",
    "REVOKED": "Slurm revoked it",
}
_REFUSED = ("Invalid", "invalid", "not permitted", "Unrecognized", "unrecognized", "not available", "more than allowed",
            "exceeds", "violates")  # fmt: skip
_MAYBE_LATER = (
    "QOSMaxSubmit",
    "AssocMaxSubmit",
    "MaxSubmitJobs",
    "Socket timed out",
    "Unable to contact",
    "temporarily",
)


@dataclass(frozen=True)
class Entry:
    """A line of ``squeue``."""

    number: str
    state: str
    reason: str
    nodes: str


def parse_queue(text: str) -> dict[str, list[Entry]]:
    """``squeue`` in the form ``%i|%T|%r|%N|%j``: the jobs by name, the oldest first."""
    found: dict[str, list[Entry]] = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) == 5:
            found.setdefault(parts[4], []).append(Entry(*parts[:4]))
    for entries in found.values():
        entries.sort(key=lambda one: int(one.number) if one.number.isdigit() else 0)
    return found


def judge(entry: Entry) -> Seen:
    """What Slurm's word for a job means for its pilot."""
    if entry.state in _WAITS:
        why = "" if entry.reason in ("None", "") else f": {entry.reason}"
        return Seen(Life.QUEUED, f"Slurm job {entry.number} is {entry.state.lower()}{why}.", batch_id=entry.number)
    if entry.state in _LIVES:
        where = f" on {entry.nodes}" if entry.nodes else ""
        return Seen(Life.ALIVE, f"Slurm job {entry.number} is {entry.state.lower()}{where}.", batch_id=entry.number)
    if entry.state in _BLAMELESS:
        return Seen(Life.ENDED, f"{_BLAMELESS[entry.state]} (job {entry.number})", is_blameless=True)
    if entry.state == "OUT_OF_MEMORY":
        return Seen(Life.ENDED, f"its node had no memory left for it (Slurm job {entry.number})")
    return Seen(Life.ENDED)


def options_of(order: PilotOrder, folder: str) -> list[str]:
    """The words after ``sbatch`` for a pilot. Slurm takes the last of several, so that ours rule over a site's."""
    labels = " ".join(f"{name}={value}" for name, value in sorted(order.labels.items()))
    has_all = order.is_whole or EXCLUSIVE in order.options
    memory = 0 if has_all else order.memory_mib + PILOT_MEMORY_MIB
    words = [
        *order.options,
        f"--job-name={order.pilot_id}",
        f"--comment=hansa {labels} pilot={order.pilot_id}".replace("  ", " "),
        f"--chdir={folder}",
        f"--output={folder}/pilot.out",
        "--open-mode=append",
        "--no-requeue",
        f"--nodes={order.nodes}",
        # of many nodes, each core is a place for a process of srun or mpirun
        *(
            [f"--ntasks-per-node={order.cores}"]
            if order.nodes > 1
            else ["--ntasks=1", f"--cpus-per-task={order.cores}"]
        ),
        f"--mem={memory}M" if memory else "--mem=0",
    ]
    if order.is_whole:
        words.append(EXCLUSIVE)
    if order.wall_time_s is not None:
        words.append(f"--time={math.floor((order.wall_time_s + GRACE_S) / 60)}")
    if order.gpus:
        words.append(f"--gres=gpu:{gpu_type(order.gpus)}{len(order.gpus)}")
    return words


def gpu_type(gpus: Sequence[str]) -> str:
    """``a100:`` where all are of one type that Slurm has a word for; those without one are called ``gpu``."""
    types = set(gpus)
    return f"{gpus[0]}:" if len(types) == 1 and gpus[0] not in ("gpu", "") else ""


class SlurmBatch(RemoteBatch):
    """Starts pilots with ``sbatch`` through a shell on a computer that has it."""

    shares_signals = True

    def __init__(self, *positional: Any, poll_s: float = 10.0, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._poll_s = poll_s
        self._snapshot: dict[str, list[Entry]] = {}
        self._taken = -math.inf
        self._taking = asyncio.Lock()
        self._told: set[str] = set()

    async def start(self, order: PilotOrder) -> Seen:
        root = await self._root()
        folder = f"{root}/pilots/{order.pilot_id}"
        script = script_of(self._python, f"{root}/{self._program_name}", folder, bool(order.gpus))
        words = options_of(order, folder)
        await self._prepare(order, script, f"# {shlex.join(['sbatch', *words, 'job.sh'])}\n{script}")
        done = await self._run(_START, order.pilot_id, *words)
        self._taken = -math.inf
        if done.status == 0:
            return await self._look(order.pilot_id)
        said = done.complaint
        if done.status == BUSY or any(word in said for word in _MAYBE_LATER):
            raise Temporary(f"{self.shell.name}: Slurm takes no pilot now: {said}.", 30)
        if any(word in said for word in _REFUSED):
            raise Permanent(f"{self.shell.name}: Slurm refuses the pilot: {said}.")
        raise Temporary(f"{self.shell.name}: sbatch failed: {said}.", 60)

    async def observe(self, pilot_id: str) -> Seen:
        seen = await super().observe(pilot_id)
        if seen.life in (Life.ABSENT, Life.ENDED) or pilot_id in self._told:
            return seen
        self._told.add(pilot_id)
        script = await self.shell.get(f"{await self._root()}/pilots/{pilot_id}/script")
        return replace(seen, script=script.decode(errors="replace") if script else "")

    async def clean(self, pilot_id: str) -> None:
        await super().clean(pilot_id)
        self._told.discard(pilot_id)

    async def _look(self, pilot_id: str) -> Seen:
        entries = (await self._queue(self._poll_s)).get(pilot_id, [])
        if not any(one.state in _WAITS or one.state in _LIVES for one in entries):
            # It may have been sent since: an end is told from a fresh look only.
            entries = (await self._queue(_SNAPSHOT_S)).get(pilot_id, [])
            if not any(one.state in _WAITS or one.state in _LIVES for one in entries):
                entries = (await self._queue(0.0)).get(pilot_id, [])
        live = [one for one in entries if one.state in _WAITS or one.state in _LIVES]
        for surplus in live[1:]:
            await self.shell.run(["scancel", surplus.number])
        if live:
            unborn_s = time.monotonic() - self._taken if live[0].state in _UNBORN else None
            return replace(judge(live[0]), again_s=self._poll_s, unborn_s=unborn_s)
        if (await self._run(_KNOWN, pilot_id)).text.strip() == "absent":
            return Seen(Life.ABSENT)
        seen = judge(entries[-1]) if entries else Seen(Life.ENDED)
        return seen if seen.message else Seen(Life.ENDED, await self._last_words(pilot_id))

    async def cancel(self, pilot_id: str) -> None:
        for _ in range(75):
            self._taken = -math.inf
            if (await self._look(pilot_id)).life not in (Life.ALIVE, Life.QUEUED):
                return
            done = await self._run(_CANCEL, pilot_id)
            if done.status != 0:
                raise Temporary(f"{self.shell.name}: scancel failed: {done.complaint}.", 15)
            await asyncio.sleep(0.5)
        raise Temporary(f"{self.shell.name}: the pilot {pilot_id} does not end.", 10)

    async def _queue(self, age_s: float) -> dict[str, list[Entry]]:
        """All of our jobs, not older than ``age_s``: one answer serves all pilots."""
        async with self._taking:
            if time.monotonic() - self._taken >= age_s:
                done = await self.shell.script(_QUEUE)
                if done.status != 0:
                    raise Temporary(f"{self.shell.name}: Slurm does not answer: {done.complaint}.", 15)
                self._snapshot = parse_queue(done.text)
                self._taken = time.monotonic()
            return self._snapshot


def script_of(python: str, program: str, folder: str, has_gpus: bool) -> str:
    """The batch script. The shell is replaced by the pilot, so that Slurm's signals reach it."""
    words = shlex.join([python, "-I", program, "pilot", "--config", f"{folder}/config.json"])
    lines = ["#!/bin/sh", "unset SLURM_EXPORT_ENV"]
    if has_gpus:  # which GPUs it got is known only now
        lines.append(f"{shlex.quote(python)} -I -c {shlex.quote(_SET_GPUS)} {shlex.quote(folder + '/config.json')}")
    return "\n".join([*lines, f"exec {words}", ""])


_SET_GPUS = (
    "import json, os, sys; p = sys.argv[1]; c = json.load(open(p)); "
    "c['gpus'] = [g for g in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if g]; "
    "f = os.fdopen(os.open(p + '.part', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w'); "
    "json.dump(c, f); f.close(); os.rename(p + '.part', p)"
)

__all__ = ["Entry", "SlurmBatch", "judge", "options_of", "parse_queue", "script_of"]
