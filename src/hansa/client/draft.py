"""A job before it is submitted: the options of people made into a JobSpec and a list of files to send."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

from hansa.client.arrays import Array, parse_array, per_file, read_params, unknown_words
from hansa.client.errors import USAGE, HansaError
from hansa.client.files import Source, tree
from hansa.client.scan import Found, add_inputs, merge_found, scan_command
from hansa.client.units import parse_memory, parse_time, show_bytes, show_count
from hansa.jobs.wire import After, JobSpec, Notice, Notify, Requirements
from hansa.node.protocol import File, TaskRow

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Options:
    """What may be said of a job, in the words of the command line and of the Python API."""

    name: str | None = None
    array: str | Array | None = None
    params: Path | None = None
    per_file: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    workdir: Path | None = None
    setup: str | None = None
    image: str | None = None
    cores: int | None = None
    memory: str | int | None = None
    wall_time: str | int | float | None = None
    gpus: int = 0
    gpu_model: str | None = None
    gpu_memory: str | int | None = None
    disk: str | int | None = None
    whole_node: bool = False
    nodes: int = 1
    batch: Mapping[str, str] | Sequence[str] = ()
    mounts: Sequence[str] = ()
    site: str | None = None
    sites: Sequence[str] = ()
    banned_sites: Sequence[str] = ()
    preferred_sites: Sequence[str] = ()
    tags: Sequence[str] = ()
    data: Sequence[str] = ()
    near_data: Sequence[str] = ()
    platform: Sequence[str] = ()
    group: str | None = None
    labels: Mapping[str, str] | Sequence[str] = ()
    comment: str | None = None
    vo_group: str | None = None
    retries: int = 0
    retry_on: str | Sequence[int] = ()
    backoff: str | int | float | None = None
    crash_limit: int | None = None
    hold: bool = False
    after: Sequence[int] = ()
    after_ok: Sequence[int] = ()
    after_any: Sequence[int] = ()
    deadline: str | datetime | None = None
    warn: str | None = None
    checkpoint: str | None = None
    checkpoint_every: str | int | float | None = None
    notify: Sequence[str] = ()
    notify_on: str = "ended"
    priority: int = 5
    vo: str | None = None
    scan: bool = True
    """Whether files named in the command travel by themselves."""


@dataclass
class Draft:
    """A JobSpec whose files are still here."""

    spec: JobSpec
    shared: list[Source]
    per_task: list[list[Source]] | None
    notes: list[str]
    array: Array | None

    def sources(self) -> list[Source]:
        """All files, one per path."""
        every = [*self.shared, *(one for mine in self.per_task or () for one in mine)]
        return list({found.path: found for found in every}.values())

    def finish(self, digests: Mapping[Path, str]) -> JobSpec:
        """The JobSpec with the files' digests."""

        def files(sources: Iterable[Source]) -> list[File]:
            return [File(s.dest, digests[s.path], s.size, s.executable) for s in sources]

        rows = None
        if self.array is not None and (self.array.rows is not None or self.per_task is not None):
            values = self.array.rows or [[] for _ in range(self.array.count)]
            mine = self.per_task or [[] for _ in range(self.array.count)]
            rows = [TaskRow(value, files(own)) for value, own in zip(values, mine, strict=True)]
        return replace(self.spec, inputs=files(self.shared), rows=rows)


def prepare(command: Sequence[str], options: Options, base: Path | None = None) -> Draft:
    """Check what can be checked here, and find the files. Reads no file's content, sends nothing."""
    here = base or Path.cwd()
    words = _command(command)
    array = _array(options)
    root = here / options.workdir if options.workdir is not None else here
    found = Found(words)
    if options.scan:
        found = scan_command(words, array, root)
    if options.workdir is not None:
        whole = tree(root)
        found.shared = [*whole.sources, *found.shared]
        found.notes += whole.notes
        found.notes.append(
            f"sending {options.workdir}: {show_count(len(whole.sources), 'file')}, {show_bytes(whole.size)}"
        )
    add_inputs(found, options.inputs, array, here)
    merge_found(found)
    if array is not None:
        found.notes += unknown_words([*words, *options.env.values()], array)
    spec = JobSpec(
        command=found.command,
        name=options.name,
        vo=options.vo,
        array=array is not None,
        first=array.first if array else 0,
        count=array.count if array else 1,
        names=array.names if array else [],
        env=dict(options.env),
        outputs=list(options.outputs) or ["**"],
        setup=options.setup,
        image=options.image,
        requirements=_requirements(options),
        retries=_between("retries", options.retries, 0, 100),
        priority=_between("priority", options.priority, 0, 10),
        retry_on=_codes(options.retry_on),
        backoff_s=0.0 if options.backoff is None else float(parse_time(str(options.backoff))),
        crash_limit=options.crash_limit,
        hold=options.hold,
        after=[
            *(After(number, "started") for number in options.after),
            *(After(number, "any") for number in options.after_any),
            *(After(number, "ok") for number in options.after_ok),
        ],
        deadline=parse_deadline(options.deadline),
        warning=parse_warning(options.warn),
        vo_group=options.vo_group,
        group=options.group,
        labels=parse_labels(options.labels),
        comment=options.comment,
        checkpoint=options.checkpoint.rstrip("/") if options.checkpoint is not None else None,
        checkpoint_every_s=parse_time(str(options.checkpoint_every)) if options.checkpoint_every is not None else 300.0,
        notify=parse_notify(options.notify, options.notify_on),
    )
    return Draft(spec, found.shared, found.per_task, found.notes, array)


def _command(command: Sequence[str]) -> list[str]:
    words = [str(word) for word in command]
    if not words or not words[0]:
        raise HansaError(USAGE, "There is no command to run.", hint="As in: hansa run -- echo hello")
    if any("\x00" in word for word in words):
        raise HansaError(USAGE, "The command has a NUL character in it.", hint="No program can be given one.")
    return words


def _codes(given: str | Sequence[int]) -> list[int]:
    """Exit codes from ``75,137``."""
    words = given.split(",") if isinstance(given, str) else list(given)
    try:
        return [int(word) for word in words if word != ""]
    except ValueError as error:
        raise HansaError(USAGE, f"{given!r} are no exit codes.", hint="Write them as 75,137.") from error


def parse_deadline(given: str | datetime | None) -> datetime | None:
    """A moment, or so long from now: ``2026-12-01T08:00`` (local time, unless it says), ``6h``."""
    if given is None or isinstance(given, datetime):
        return given.astimezone() if given is not None and given.tzinfo is None else given
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError:
        return datetime.now(UTC) + timedelta(seconds=parse_time(given))


_WHEN = ("started", "done", "failed", "killed", "ended")


def parse_notify(given: Sequence[str], when: str) -> list[Notify]:
    """Whom to tell, and when: mail addresses and URLs.

    >>> parse_notify(["ada@example.org"], "failed,killed")
    [Notify(to='mailto:ada@example.org', on=['failed', 'killed'])]
    """
    words = [word.strip() for word in when.split(",") if word.strip()]
    for word in words:
        if word not in _WHEN:
            raise HansaError(USAGE, f"{word!r} is no time to notify.", hint=f"There are: {', '.join(_WHEN)}.")
    if not words:
        raise HansaError(USAGE, "--notify-on is empty.", hint=f"There are: {', '.join(_WHEN)}.")
    found = []
    times = cast("list[Literal['started', 'done', 'failed', 'killed', 'ended']]", words)
    for one in given:
        is_url = one.startswith(("https://", "http://", "mailto:"))
        if not is_url and "@" not in one:
            raise HansaError(USAGE, f"{one!r} cannot be notified.", hint="Write ada@example.org, or https://HOST/PATH.")
        found.append(Notify(one if is_url else f"mailto:{one}", times))
    return found


def parse_warning(given: str | None) -> Notice | None:
    """A signal before the end of the wall time, as in Slurm: ``USR1@60``.

    >>> parse_warning("TERM@120")
    Notice(signal=15, before_s=120)
    """
    if given is None:
        return None
    name, _, before = given.partition("@")
    try:
        number = signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"] if not name.isdecimal() else int(name)
        return Notice(int(number), int(before or 60))
    except (KeyError, ValueError) as error:
        raise HansaError(USAGE, f"{given!r} is no signal.", hint="Write it as USR1@60: 60 seconds before.") from error


def _array(options: Options) -> Array | None:
    if options.per_file is not None:
        if options.array is not None or options.params is not None:
            raise HansaError(
                USAGE, "An array has a task per file, or comes from --array or --params.", hint="Take one of them."
            )
        return per_file(options.per_file, Path.cwd())
    if options.array is not None and options.params is not None:
        raise HansaError(
            USAGE,
            "An array comes from --array or from --params, not from both.",
            hint="Add the index as a column of the parameter file; {i} counts its rows from 0.",
        )
    if options.params is not None:
        return read_params(options.params)
    return parse_array(options.array) if isinstance(options.array, str) else options.array


def _requirements(options: Options) -> Requirements:
    memory, time = options.memory, options.wall_time
    site, mounts = parse_mounts(options.mounts, options.site or (options.sites[0] if len(options.sites) == 1 else None))
    return Requirements(
        cores=None if options.cores is None else _between("cores", options.cores, 1, 4096),
        memory_mib=None if memory is None else parse_memory(str(memory)),
        gpus=_between("gpus", options.gpus, 0, 1024),
        wall_time_s=None if time is None else parse_time(str(time)),
        site=site,
        nodes=_between("nodes", options.nodes, 1, 100_000),
        batch=parse_batch(options.batch),
        mounts=mounts,
        sites=list(options.sites) if len(options.sites) > 1 else [],
        banned_sites=list(options.banned_sites),
        preferred_sites=list(options.preferred_sites),
        gpu_model=options.gpu_model,
        gpu_memory_mib=0 if options.gpu_memory is None else parse_memory(str(options.gpu_memory)),
        disk_mib=0 if options.disk is None else parse_memory(str(options.disk)),
        whole_node=options.whole_node,
        tags=list(options.tags),
        data=list(options.data),
        near_data=list(options.near_data),
        **parse_platform(options.platform),
    )


_ARCHITECTURES = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64")
_SYSTEM = re.compile(r"(linux|debian|ubuntu|rhel|el|fedora|centos|rocky|almalinux|sles|opensuse)[0-9.]*")


def parse_platform(words: Sequence[str]) -> dict[str, Any]:
    """What the words of ``--platform`` ask for: an architecture, a system, a glibc, or a feature of the processor.

    >>> parse_platform(["el9", "x86_64", "glibc=2.28", "avx2"])
    {'arch': 'x86_64', 'os': 'el9', 'glibc': '2.28', 'cpu_features': ['avx2']}
    """
    found: dict[str, Any] = {"arch": None, "os": None, "glibc": None, "cpu_features": []}
    for word in words:
        if word in _ARCHITECTURES:
            found["arch"] = word
        elif word.startswith("glibc="):
            found["glibc"] = word.removeprefix("glibc=")
        elif _SYSTEM.fullmatch(word):
            found["os"] = word
        else:
            found["cpu_features"].append(word)
    return found


def parse_mounts(given: Sequence[str], site: str | None) -> tuple[str | None, list[str]]:
    """The one site, and its paths, from ``SITE:PATH`` words.

    >>> parse_mounts(["mycluster:/scratch/x"], None)
    ('mycluster', ['/scratch/x'])
    """
    paths = []
    for word in given:
        name, colon, path = word.partition(":")
        if not colon or not name or not path.startswith("/"):
            raise HansaError(USAGE, f"{word!r} is no path of a site.", hint="Write it as SITE:/PATH.")
        if site is not None and name != site:
            raise HansaError(USAGE, f"A job cannot run at {site} and use a path of {name}.", hint="Take one site.")
        site = name
        paths.append(path)
    return site, paths


def parse_batch(given: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Options of a batch system from ``NAME=VALUE`` words; one without a value is a mere name.

    >>> parse_batch(["qos=high", "--exclusive"])
    {'qos': 'high', 'exclusive': ''}
    """
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    return parse_labels([word.removeprefix("--") for word in given])


def parse_labels(given: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Labels from ``K=V`` words; ``K`` alone has no value.

    >>> parse_labels(["a=b", "c"])
    {'a': 'b', 'c': ''}
    """
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    parts = (word.partition("=") for word in given)
    return {name: value for name, _, value in parts}


def _between(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise HansaError(USAGE, f"{name} is {value}.", hint=f"It goes from {low} to {high}.")
    return value


def parse_env(texts: Iterable[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables from ``K=V``, or ``K`` for the value that it has here.

    >>> parse_env(["A=1", "B"], {"B": "2"})
    {'A': '1', 'B': '2'}
    """
    here = os.environ if environ is None else environ
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise HansaError(USAGE, f"{name!r} is no name of a variable.", hint="Write it as NAME=VALUE or NAME.")
        if not separator and name not in here:
            raise HansaError(USAGE, f"The variable {name} is not set here.", hint=f"Write {name}=VALUE.")
        found[name] = value if separator else here[name]
    return found
