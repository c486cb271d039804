"""A Slurm cluster, by its login node."""

from __future__ import annotations

import re

from pydantic import Field

from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds.base import Finding, KindSettings, Needs, Requirement, Sighting, State, Target
from hansa.sites.kinds.ssh import CANARY_FOLDER, SshSettings, ask, probe_shell, run_there, ssh_needs
from hansa.sites.model import VoAccess
from hansa.sites.wire import Facts, Partition

SINFO = "exec sinfo --noheader --format='%P|%D|%c|%m|%G|%l|%C|%a'"
_CANARY = (
    CANARY_FOLDER
    + r"""
exec 9>lock; flock 9
name="hansa-canary-$2"; key="$2"; python="$3"; shift 3
queue() { squeue -h -u "$(id -un)" -t all --name="$name" -o '%T|%r' || exit 75; }
told() { [ -e "$key.ran" ] && echo "ran $(cat "$key.sent") $(cat "$key.ran")" && exit 0; }
told
known=$(queue) || exit 75
known=$(printf '%s\n' "$known" | tail -n 1)
[ -z "$known" ] || { echo "known $known"; tail -n 1 "$key.out" 2>/dev/null; exit 0; }
if [ -e "$key.sent" ]; then told; echo "gone"; tail -n 1 "$key.out" 2>/dev/null; exit 0; fi
date +%s > "$key.part"
sbatch --parsable "$@" --job-name="$name" --comment='hansa: a canary, to see whether jobs start' --no-requeue \
  --nodes=1 --ntasks=1 --cpus-per-task=1 --mem=64M --time=2 --chdir="$PWD" --output="$PWD/$key.out" --wrap="
'$python' -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo 'no Python 3.9 there'; exit 1; }
date +%s > $key.now && mv -f $key.now $key.ran" >&2 || exit 1
mv -f "$key.part" "$key.sent" && echo "known PENDING|"
"""
)
_WITHDRAW = """
scancel --user="$(id -un)" --name="hansa-canary-$1" || exit 75
"""
_WAITS = ("PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_FAILED = ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "DEADLINE")
_GRES = re.compile(r"gpu(?::([A-Za-z0-9_.-]+))?:(\d+)")


class SlurmSettings(SshSettings):
    """How the login node is reached, and how jobs are to be sent."""

    partition: str | None = Field(default=None, max_length=200)
    """Partition for pilots. Default: the cluster's own default."""
    account: str | None = Field(default=None, max_length=200)
    """Account to charge. Default: the VO's project, else the user's own default."""
    qos: str | None = Field(default=None, max_length=200)
    """Quality of service."""
    constraint: str | None = Field(default=None, max_length=500)
    """Features that nodes must have (``sbatch --constraint``)."""
    reservation: str | None = Field(default=None, max_length=200)
    """Reservation to use."""
    extra: list[str] = Field(default_factory=list, max_length=50)
    """More options of ``sbatch``, a word each."""
    max_pilots: int = Field(default=20, ge=1, le=10_000)
    """Pilots that may wait or run here at a time."""
    max_waiting: int = Field(default=5, ge=1, le=10_000)
    """Pilots that may wait in the queue at a time."""
    pilot_cores: int | None = Field(default=None, ge=1, le=100_000)
    """Cores of the largest pilot. Default: those of one node."""
    poll_s: float = Field(default=15.0, ge=1, le=600)
    """Seconds between two looks at the queue, while pilots wait or run."""
    pilot_wall_time_s: int | None = Field(default=None, ge=300, le=10_000_000)
    """Seconds that a pilot asks for, unless a task needs more. Default: four hours, or what the partition allows."""


class SlurmKind:
    """A Slurm cluster."""

    name = "slurm"
    settings: type[KindSettings] = SlurmSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        base = ssh_needs(target.settings, probe_s, discover_s)
        more = Requirement("role", "sbatch, squeue, scancel, scontrol and sinfo for that user.")
        load = Requirement("load", f"squeue: every {target.settings.poll_s:g} s while pilots wait or run here.")
        return Needs((*base.requirements, more, load), base.calls_per_hour)

    async def probe(self, target: Target) -> Finding:
        return await probe_shell(target, "scontrol ping", lambda said: "UP" in said.upper())

    async def discover(self, target: Target, vo: str | None) -> Facts:
        return parse_sinfo(await ask(target, vo, SINFO))

    canary_load = "A job of one core, 64 MiB and some seconds"

    async def canary(self, target: Target, vo: str | None, key: str) -> Sighting:
        settings: SlurmSettings = target.settings
        words = sbatch_words(settings, target.vos.get(vo or ""))
        done = await run_there(target, vo, _CANARY, settings.folder, key, settings.python, *words)
        if done.status == 75:
            raise Temporary(f"Slurm does not answer: {done.complaint}.")
        if done.status != 0:
            raise Permanent(f"sbatch refuses a job: {done.complaint}.")
        return parse_canary(done.text)

    async def withdraw(self, target: Target, vo: str | None, key: str) -> None:
        done = await run_there(target, vo, _WITHDRAW, key)
        if done.status != 0:
            raise Temporary(f"Slurm does not take a job back: {done.complaint}.")


def sbatch_words(settings: SlurmSettings, access: VoAccess | None) -> tuple[str, ...]:
    """Options of ``sbatch`` from the settings of a site and a VO. The VO's project is an account."""
    named = {
        "partition": settings.partition,
        "account": settings.account or (access.project if access else None),
        "qos": settings.qos,
        "constraint": settings.constraint,
        "reservation": settings.reservation,
    }
    return (*(f"--{name}={value}" for name, value in named.items() if value), *settings.extra)


def parse_canary(said: str) -> Sighting:
    """What the script of a canary prints. Raises Temporary where it makes no sense."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    at = next((number for number, line in enumerate(lines) if line.split()[0] in ("ran", "known", "gone")), None)
    if at is None:
        raise Temporary("What the login node says of a canary makes no sense.")
    word, _, rest = lines[at].partition(" ")
    last = f": {lines[at + 1][:200]}" if len(lines) > at + 1 else ""
    if word == "ran":
        sent, _, ran = rest.partition(" ")
        waited_s = float(max(0, _number(ran) - _number(sent)))
        return Sighting(State.RAN, f"A canary ran after {waited_s:.0f} s.", waited_s)
    if word == "gone":
        return Sighting(State.FAILED, f"A canary ended on its node without a trace in the folder{last}.")
    state, _, reason = rest.partition("|")
    if state in _FAILED:
        return Sighting(State.FAILED, f"Slurm ended a canary as {state}{last}.")
    if state in ("CANCELLED", "PREEMPTED", "REVOKED"):
        return Sighting(State.WITHDRAWN, f"A canary was ended in Slurm as {state}, which is no fault.")
    if state in _WAITS:
        why = f": {reason}" if reason not in ("", "None") else ""
        return Sighting(State.WAITS, f"A canary waits in the queue{why}.")
    return Sighting(State.RUNS, "A canary runs.")


def parse_sinfo(said: str) -> Facts:
    """Partitions as :data:`SINFO` prints them: of several lines of one partition (mixed nodes) the sums and maxima."""
    found: dict[str, Partition] = {}
    models: set[str] = set()
    for line in said.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 8 or parts[7] != "up":
            continue
        name = parts[0].rstrip("*")
        gpus = [model or "gpu" for model, count in _GRES.findall(parts[4]) for _ in range(min(int(count), 64))]
        models |= set(gpus)
        idle, total = _idle_and_total(parts[6])
        one = Partition(
            name=name,
            nodes=_number(parts[1]),
            cores=total,
            cores_per_node=_number(parts[2]),
            memory_mib_per_node=_number(parts[3]),
            gpus=gpus,
            max_wall_time_s=parse_time(parts[5]),
            is_default=parts[0].endswith("*"),
            idle_cores=idle,
        )
        found[name] = _merged(found[name], one) if name in found else one
    return Facts(partitions=list(found.values()), gpus=sorted(models))


def parse_time(text: str) -> int | None:
    """Slurm's ``[DAYS-]HH:MM:SS`` or ``MM:SS`` as seconds; None for ``infinite`` and what is not understood."""
    days, _, rest = text.rpartition("-")
    numbers = rest.split(":")
    if not all(one.isdecimal() for one in numbers) or (days and not days.isdecimal()) or len(numbers) > 3:
        return None
    if days:
        numbers += ["0"] * (3 - len(numbers))
    elif len(numbers) == 1:
        numbers.append("0")
    seconds = 0
    for one in numbers:
        seconds = seconds * 60 + int(one)
    return seconds + int(days or 0) * 86_400


def _merged(one: Partition, two: Partition) -> Partition:
    return Partition(
        name=one.name,
        nodes=one.nodes + two.nodes,
        cores=one.cores + two.cores,
        cores_per_node=max(one.cores_per_node, two.cores_per_node),
        memory_mib_per_node=max(one.memory_mib_per_node, two.memory_mib_per_node),
        gpus=max(one.gpus, two.gpus, key=len),
        max_wall_time_s=one.max_wall_time_s,
        is_default=one.is_default or two.is_default,
        idle_cores=one.idle_cores + two.idle_cores,
    )


def _number(text: str) -> int:
    """``32`` of ``32+``."""
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _idle_and_total(text: str) -> tuple[int, int]:
    """Of allocated/idle/other/total."""
    numbers = [_number(one) for one in text.split("/")]
    return (numbers[1], numbers[3]) if len(numbers) == 4 else (0, 0)
