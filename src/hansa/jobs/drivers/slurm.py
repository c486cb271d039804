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
from dataclasses import dataclass, field
from typing import Any

from hansa.jobs.drivers.base import Life, PilotOrder, Seen
from hansa.jobs.drivers.remote import BUSY, RemoteBatch
from hansa.kernel.errors import Permanent, Temporary

_SNAPSHOT_S = 2.0
_GRACE_S = 120
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
class SlurmOptions:
    """What a site, a VO or a job asks of ``sbatch``. ``extra`` are more options, a word each."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    extra: tuple[str, ...] = field(default=())

    def words(self) -> list[str]:
        named = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "reservation": self.reservation,
        }
        return [f"--{name}={value}" for name, value in named.items() if value] + list(self.extra)


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
        return Seen(Life.QUEUED, f"Slurm job {entry.number} is {entry.state.lower()}{why}.")
    if entry.state in _LIVES:
        where = f" on {entry.nodes}" if entry.nodes else ""
        return Seen(Life.ALIVE, f"Slurm job {entry.number} is {entry.state.lower()}{where}.")
    if entry.state in _BLAMELESS:
        return Seen(Life.ENDED, f"{_BLAMELESS[entry.state]} (job {entry.number})", is_blameless=True)
    if entry.state == "OUT_OF_MEMORY":
        return Seen(Life.ENDED, f"its node had no memory left for it (Slurm job {entry.number})")
    return Seen(Life.ENDED)


def options_of(order: PilotOrder, folder: str, options: SlurmOptions) -> list[str]:
    """The words after ``sbatch`` for a pilot."""
    labels = " ".join(f"{name}={value}" for name, value in sorted(order.labels.items()))
    words = [
        f"--job-name={order.pilot_id}",
        f"--comment=hansa pilot={order.pilot_id} {labels}".strip(),
        f"--chdir={folder}",
        f"--output={folder}/pilot.out",
        "--open-mode=append",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={order.cores}",
        f"--mem={order.memory_mib}M",
    ]
    if order.wall_time_s is not None:
        words.append(f"--time={math.ceil((order.wall_time_s + _GRACE_S) / 60)}")
    if order.gpus:
        words.append(f"--gres=gpu:{len(order.gpus)}")
    return words + options.words()


class SlurmBatch(RemoteBatch):
    """Starts pilots with ``sbatch`` through a shell on a computer that has it."""

    def __init__(self, *positional: Any, options: SlurmOptions | None = None, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._options = options or SlurmOptions()
        self._snapshot: dict[str, list[Entry]] = {}
        self._taken = -_SNAPSHOT_S
        self._taking = asyncio.Lock()

    async def start(self, order: PilotOrder) -> Seen:
        root = await self._root()
        folder = f"{root}/pilots/{order.pilot_id}"
        await self._prepare(order, script_of(self._python, f"{root}/{self._program_name}", folder, bool(order.gpus)))
        done = await self._run(_START, order.pilot_id, *options_of(order, folder, self._options))
        self._taken = -_SNAPSHOT_S
        if done.status == 0:
            return await self._look(order.pilot_id)
        said = done.complaint
        if done.status == BUSY or any(word in said for word in _MAYBE_LATER):
            raise Temporary(f"{self.shell.name}: Slurm takes no pilot now: {said}.", 30)
        if any(word in said for word in _REFUSED):
            raise Permanent(f"{self.shell.name}: Slurm refuses the pilot: {said}.")
        raise Temporary(f"{self.shell.name}: sbatch failed: {said}.", 60)

    async def _look(self, pilot_id: str) -> Seen:
        entries = (await self._queue()).get(pilot_id, [])
        if not any(one.state in _WAITS or one.state in _LIVES for one in entries):
            self._taken = -_SNAPSHOT_S  # it may have been sent since: an end is told from a fresh look only
            entries = (await self._queue()).get(pilot_id, [])
        live = [one for one in entries if one.state in _WAITS or one.state in _LIVES]
        for surplus in live[1:]:
            await self.shell.run(["scancel", surplus.number])
        if live:
            return judge(live[0])
        if (await self._run(_KNOWN, pilot_id)).text.strip() == "absent":
            return Seen(Life.ABSENT)
        seen = judge(entries[-1]) if entries else Seen(Life.ENDED)
        return seen if seen.message else Seen(Life.ENDED, await self._last_words(pilot_id))

    async def cancel(self, pilot_id: str) -> None:
        for _ in range(75):
            self._taken = -_SNAPSHOT_S
            if (await self._look(pilot_id)).life not in (Life.ALIVE, Life.QUEUED):
                return
            done = await self._run(_CANCEL, pilot_id)
            if done.status != 0:
                raise Temporary(f"{self.shell.name}: scancel failed: {done.complaint}.", 15)
            await asyncio.sleep(0.5)
        raise Temporary(f"{self.shell.name}: the pilot {pilot_id} does not end.", 10)

    async def _queue(self) -> dict[str, list[Entry]]:
        """All of our jobs, asked for once in two seconds at most however many pilots there are."""
        async with self._taking:
            if time.monotonic() - self._taken >= _SNAPSHOT_S:
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

__all__ = ["Entry", "SlurmBatch", "SlurmOptions", "judge", "options_of", "parse_queue", "script_of"]
