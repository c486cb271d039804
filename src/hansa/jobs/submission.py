"""A job as it is described: what is wrong with it beyond what types can say, and how it begins. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hansa.jobs import errors
from hansa.jobs.batch import problem_of
from hansa.jobs.needs import Needs, version_key
from hansa.jobs.wire import JobSpec, Phase
from hansa.kernel.errors import Fault
from hansa.kernel.status import Party
from hansa.node.containers.errors import ContainerError
from hansa.node.containers.model import Reference
from hansa.node.protocol import File

_COMMAND_BYTES = 128 * 1024
_RESERVED_NAMES = {"job", "node"}


@dataclass(frozen=True)
class Beginning:
    """How a job begins: whether its tasks may be given out, and what is said of it."""

    is_open: bool
    reason: str
    message: str
    waiting_on: Party


def begin(spec: JobSpec, unmet: Sequence[int]) -> Beginning:
    """How a job begins that waits for these other jobs."""
    named = ", ".join(map(str, unmet[:5])) + (", …" if unmet[5:] else "")
    if spec.hold:
        message = "It was submitted held, and waits to be released."
        return Beginning(False, "jobs.held", message, Party.USER)
    if unmet:
        message = f"It waits for {'jobs' if len(unmet) > 1 else 'job'} {named}."
        return Beginning(False, "jobs.blocked", message, Party.HANSA)
    message = f"{spec.count:,} tasks wait for a pilot." if spec.array else "It waits for a pilot."
    return Beginning(True, "jobs.queued", message, Party.HANSA)


def check_spec(spec: JobSpec, array_limit: int, now: datetime | None = None) -> None:
    """Raise Fault ``jobs.bad_spec`` or ``jobs.array_limit`` naming what is wrong with a job."""
    if spec.count > array_limit:
        raise Fault(
            errors.ARRAY_LIMIT,
            f"An array of {spec.count:,} tasks; this server takes {array_limit:,}.",
            hint="Submit several arrays, or ask the operator for a larger job.array_limit.",
        )
    if not spec.array and (spec.count != 1 or spec.first != 0 or spec.rows is not None):
        raise _bad("a single job has one task with index 0 and no rows; set array")
    if not all(map(_is_text, _texts(spec))):
        raise _bad("the command, the environment, a parameter or another text is not valid Unicode")
    if not spec.command[0]:
        raise _bad("the command's program is empty")
    if any("\0" in text for text in _texts(spec)):
        raise _bad("the command, the environment, a parameter or another text holds a NUL character")
    if sum(len(word.encode()) for word in spec.command) > _COMMAND_BYTES:
        raise _bad(f"the command has more than {_COMMAND_BYTES:,} bytes; put it in a file")
    for name in spec.env:
        if not name or "=" in name:
            raise _bad(f"{name!r} cannot be the name of an environment variable")
    if spec.deadline is not None and spec.deadline.tzinfo is None:
        raise _bad("the deadline has no time zone")
    if spec.deadline is not None and now is not None and spec.deadline <= now:
        raise _bad(f"its deadline, {spec.deadline.isoformat()}, has passed")
    if spec.retry_on and not spec.retries:
        raise _bad("there are exit codes to retry on, but no retries")
    _check_image(spec.image)
    _check_rows(spec)
    _check_needs(spec)
    for file in [*spec.inputs, *(file for row in spec.rows or [] for file in row.inputs)]:
        _check_path(file.path)
        if file.size < 0:
            raise _bad(f"the size of {file.path} is negative")
    for glob in spec.outputs:
        _check_path(glob)
    if spec.checkpoint is not None:
        _check_checkpoint(spec)


def _check_checkpoint(spec: JobSpec) -> None:
    folder = spec.checkpoint or ""
    if not _is_text(folder):
        raise _bad("the checkpoint folder's name is not valid Unicode")
    _check_path(folder)
    if "." in folder.split("/"):
        raise _bad(f"the checkpoint folder {folder!r} is not below the task's directory")
    for file in [*spec.inputs, *(file for row in spec.rows or [] for file in row.inputs)]:
        if file.path == folder or file.path.startswith(folder + "/"):
            raise _bad(f"the input {file.path} lies in the checkpoint folder")


def _texts(spec: JobSpec) -> Iterator[str]:
    """All that is text in a job, but for paths."""
    yield from (*spec.command, *spec.env.values(), *spec.env, *spec.outputs, *spec.names)
    yield from (spec.name or "", spec.vo or "", spec.setup or "", spec.group or "", spec.vo_group or "")
    yield from (*spec.labels, *spec.labels.values(), spec.comment or "", spec.image or "")
    asked = spec.requirements
    yield from (asked.site or "", asked.os or "", asked.arch or "", asked.glibc or "", asked.gpu_model or "")
    yield from (*asked.batch, *asked.batch.values(), *asked.mounts)
    yield from (*asked.tags, *asked.cpu_features, *asked.sites, *asked.banned_sites, *asked.data)
    yield from (*asked.preferred_sites, *asked.near_data)
    yield from (wish.to for wish in spec.notify)
    for row in spec.rows or []:
        yield from row.values


def _check_image(image: str | None) -> None:
    if image is None:
        return
    try:
        Reference.parse(image)
    except ContainerError as error:
        raise _bad(f"the container image {error.message}{': ' if error.hint else ''}{error.hint}") from error


def _check_rows(spec: JobSpec) -> None:
    if spec.rows is None:
        if spec.names:
            raise _bad("there are names of parameters but no rows")
        return
    if len(spec.rows) != spec.count:
        raise _bad(f"{spec.count:,} tasks but {len(spec.rows):,} rows")
    if len(set(spec.names)) != len(spec.names):
        raise _bad("a parameter's name comes twice")
    if reserved := _RESERVED_NAMES & set(spec.names):
        raise _bad(f"{sorted(reserved)[0]!r} cannot name a parameter: Hansa gives it a meaning")
    for number, row in enumerate(spec.rows):
        if len(row.values) != len(spec.names):
            raise _bad(f"row {number} has {len(row.values)} values for {len(spec.names)} names")


def _check_needs(spec: JobSpec) -> None:
    asked = spec.requirements
    if problem := problem_of(asked.batch):
        raise _bad(problem)
    if asked.mounts and asked.site is None:
        raise _bad("it mounts paths of a site, and does not say which")
    for path in asked.mounts:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise _bad(f"the path {path!a} of a site must be absolute, without '..'")
    if asked.glibc is not None and not version_key(asked.glibc):
        raise _bad(f"glibc {asked.glibc!r} is no version; it is written as in 2.28")
    if asked.site is not None and asked.site in asked.banned_sites:
        raise _bad(f"it asks for site {asked.site} and bans it")
    if asked.sites and not set(asked.sites) - set(asked.banned_sites):
        raise _bad("it bans all the sites that it asks for")
    for name in spec.labels:
        if any(character in name for character in "=: \t\n"):
            raise _bad(f"{name!r} cannot be the name of a label: no '=', no ':', no space")


def _is_text(text: str) -> bool:
    """Whether it is Unicode: JSON may bring halves of surrogate pairs, which nobody can store."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        not path
        or not _is_text(path)
        or path.startswith("/")
        or ".." in parts
        or "" in parts
        or "\0" in path
        or len(path) > 4096
    ):
        raise _bad(f"the path {path[:200]!a} must be relative, without '..' or empty parts")


def _bad(what: str) -> Fault:
    return Fault(errors.BAD_SPEC, f"The job cannot be run as it is described: {what}.", hint="hansa run --help")


def plain_spec(spec: JobSpec, needs: Needs) -> dict[str, Any]:
    """What the database keeps of a spec: all but the rows, with the needs filled in."""
    plain = asdict(spec)
    del plain["rows"]
    plain["deadline"] = spec.deadline.isoformat() if spec.deadline is not None else None
    plain["requirements"] = asdict(needs)
    return plain


def inputs_of(spec: JobSpec) -> list[File]:
    """The input files of a job and of each of its tasks."""
    return spec.inputs + [file for row in spec.rows or [] for file in row.inputs]


def new_row(spec: JobSpec, plain: dict[str, Any], beginning: Beginning, blockers: int, now: datetime) -> dict[str, Any]:
    """The columns of a new job that follow from what was asked. ``plain``: of :func:`plain_spec`."""
    inputs = inputs_of(spec)
    return {
        "name": spec.name,
        "rank": 10 - spec.priority,
        "spec": plain,
        "has_rows": spec.rows is not None,
        "first": spec.first,
        "count": spec.count,
        "next_index": spec.first,
        "ahead": 0,
        "again": 0,
        "open": beginning.is_open,
        "done": 0,
        "failed": 0,
        "killed": 0,
        "kill_requested": False,
        "phase": Phase.WAITING.value,
        "reason": beginning.reason,
        "message": beginning.message,
        "waiting_on": beginning.waiting_on.value,
        "since": now,
        "version": 1,
        "input_files": len(inputs),
        "input_bytes": sum(file.size for file in inputs),
        "created": now,
        "vo_group": spec.vo_group,
        "group_name": spec.group,
        "command": " ".join(spec.command)[:200],
        "labels": spec.labels,
        "comment": spec.comment,
        "sites": [],
        "held": spec.hold,
        "blockers": blockers,
        "deadline": spec.deadline,
    }
