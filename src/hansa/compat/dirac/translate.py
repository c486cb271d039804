"""From a DIRAC job description to what Hansa runs. Pure but for looking which files there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hansa.compat.dirac.jdl import JdlError, Scalar, Value

STDOUT, STDERR = "std.out", "std.err"
OUT_LABEL, ERR_LABEL, DATA_LABEL = "dirac.stdout", "dirac.stderr", "dirac.outputdata"
"""Labels of a job: what its streams are called when they are fetched, and which outputs are data."""
_PLACE = re.compile(r"%(?:\((\w+)\)s|([snj%]))")
_NAME_LIMIT = 200
_REMOTE = ("LFN:", "SB:", "lfn:", "sb:")
UNDERSTOOD = frozenset(
    [
        "executable",
        "arguments",
        "stdoutput",
        "stderror",
        "jobname",
        "jobgroup",
        "jobtype",
        "priority",
        "cputime",
        "site",
        "bannedsites",
        "bannedsite",
        "platform",
        "tags",
        "tag",
        "minnumberofprocessors",
        "maxnumberofprocessors",
        "numberofprocessors",
        "inputsandbox",
        "outputsandbox",
        "inputdata",
        "outputdata",
        "outputse",
        "outputpath",
        "owner",
        "ownergroup",
        "vo",
    ]
)


@dataclass(frozen=True)
class Submission:
    """A job in Hansa's words. ``rows``: a mapping a task, or None for a single job."""

    command: list[str]
    inputs: list[str]
    outputs: list[str]
    stdout: str
    stderr: str
    options: dict[str, object]
    rows: list[dict[str, str]] | None = None
    notes: list[str] = field(default_factory=list)


def translate(attributes: Mapping[str, Value], is_file: Callable[[str], bool], *, uploads: bool = False) -> Submission:
    """The job of a description (names in lower case). Raises JdlError where it cannot be run as it is described.

    An executable that is a file here and not an absolute path travels; ``uploads``: absolute ones as well.
    """
    executable = _text(attributes, "executable")
    if not executable:
        raise JdlError("there is no Executable")
    rows = parameters(attributes)
    names = frozenset(rows[0]) if rows else frozenset[str]()
    inputs, notes = _inputs(attributes)
    command = [executable]
    if executable.startswith("/") and not uploads:
        pass  # it is on the worker
    elif is_file(executable):
        inputs.append(executable)
        command = ["./" + executable.rpartition("/")[2]]
    elif "/" in executable:
        raise JdlError(f"the executable {executable} is not here")
    command += shlex.split(_text(attributes, "arguments"))
    if rows is not None:
        command = [expand(word, names) for word in command]
        inputs = [expand(path, names) for path in inputs]
    stdout, stderr = _text(attributes, "stdoutput") or STDOUT, _text(attributes, "stderror") or STDERR
    outputs = [*_list(attributes, "outputsandbox"), *_list(attributes, "outputdata")]
    unknown = sorted(set(attributes) - UNDERSTOOD - {name for name in attributes if name.startswith("parameter")})
    notes += [f"{name} is not known here and changes nothing" for name in unknown]
    if attributes.get("outputdata") or attributes.get("outputse") or attributes.get("outputpath"):
        notes.append("output data comes back with the output sandbox: there is no storage element")
    outputs = [one.removeprefix("LFN:") for one in outputs if one not in (stdout, stderr)] or [stdout]
    options = _options(attributes)
    data = [one.removeprefix("LFN:") for one in _list(attributes, "outputdata")]
    if labels := _labels(stdout, stderr, data):
        options["labels"] = labels
    if rows is not None:
        outputs = [expand(one, names) for one in outputs]
        name = str(options.get("name", ""))
        if _PLACE.search(name):
            options["name"] = _PLACE.sub("", name).strip(" _-.") or "parametric"
            notes.append(f"an array has one name: {options['name']}")
    return Submission(command, inputs, outputs, stdout, stderr, options, rows, notes)


def _labels(stdout: str, stderr: str, data: list[str]) -> dict[str, str]:
    """What the outputs are called, where that is not as usual."""
    for name in (stdout, stderr):
        if "/" in name or name in ("", ".", "..") or len(name) > _NAME_LIMIT:
            raise JdlError(f"{name[:80]!r} is no name for a file of output")
    if stdout == stderr:
        raise JdlError(f"StdOutput and StdError are both {stdout}; they are two files")
    found = {OUT_LABEL: stdout} if stdout != STDOUT else {}
    found |= {ERR_LABEL: stderr} if stderr != STDERR else {}
    if data:
        text = ",".join(data)
        if len(text) > _NAME_LIMIT:
            raise JdlError(
                f"OutputData has {len(text)} characters; up to {_NAME_LIMIT} are possible: use a pattern, *.dat"
            )
        found[DATA_LABEL] = text
    return found


def stream_names(labels: Mapping[str, str], index: int) -> dict[str, str]:
    """What a task's streams are called: ``%n`` is its index."""
    names = {"stdout": labels.get(OUT_LABEL, STDOUT), "stderr": labels.get(ERR_LABEL, STDERR)}
    return {stream: _PLACE.sub(str(index), name) for stream, name in names.items()}


def is_data(labels: Mapping[str, str], path: str) -> bool:
    """Whether an output is one of those that ``OutputData`` named."""
    return any(fnmatchcase(path, _PLACE.sub("*", one)) for one in labels.get(DATA_LABEL, "").split(",") if one)


def _inputs(attributes: Mapping[str, Value]) -> tuple[list[str], list[str]]:
    if _list(attributes, "inputdata"):
        raise JdlError("InputData names logical files, and there is no data catalogue yet; send files by InputSandbox")
    inputs = _list(attributes, "inputsandbox")
    remote = [path for path in inputs if path.startswith(_REMOTE)]
    if remote:
        raise JdlError(f"InputSandbox has {remote[0]}, which is no file here; there is no data catalogue yet")
    return inputs, []


def _options(attributes: Mapping[str, Value]) -> dict[str, object]:
    options: dict[str, object] = {
        "name": _text(attributes, "jobname") or None,
        "group": _text(attributes, "jobgroup") or None,
        "tags": _list(attributes, "tags") or _list(attributes, "tag"),
        "banned_sites": _list(attributes, "bannedsites") or _list(attributes, "bannedsite"),
        "sites": [site for site in _list(attributes, "site") if site.lower() != "any"],
        "platform": [one for one in _list(attributes, "platform") if one.lower() != "any"],
    }
    for name, key in (("priority", "priority"), ("wall_time", "cputime"), ("vo", "vo")):
        if attributes.get(key) not in (None, ""):
            options[name] = attributes[key] if name == "vo" else _whole(attributes, key)
    for key in ("numberofprocessors", "minnumberofprocessors"):
        if attributes.get(key) is not None:
            options["cores"] = _whole(attributes, key)
    return {name: value for name, value in options.items() if value not in (None, [])}


def parameters(attributes: Mapping[str, Value]) -> list[dict[str, str]] | None:
    """The parameters of each task: ``value`` for the one without a name. None for a single job."""
    columns: dict[str, list[Scalar]] = {}
    for key in attributes:
        if key == "parameters" or key.startswith("parameters."):
            name = key.partition(".")[2]
            columns[name or "value"] = _column(attributes, f".{name}" if name else "")
    if not columns:
        return None
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise JdlError(f"the parameters are of different lengths: {', '.join(map(str, sorted(lengths)))}")
    count = lengths.pop()
    if not count:
        raise JdlError("Parameters is an empty list")
    return [{name: str(column[index]) for name, column in columns.items()} for index in range(count)]


def _column(attributes: Mapping[str, Value], suffix: str) -> list[Scalar]:
    given = attributes["parameters" + suffix]
    if isinstance(given, list):
        return given
    if isinstance(given, bool) or not str(given).isdigit():
        raise JdlError(f"Parameters{suffix} is {given!r}, neither a list nor a count")
    value = _number(attributes, "parameterstart" + suffix, 0)
    step = _number(attributes, "parameterstep" + suffix, 0)
    factor = _number(attributes, "parameterfactor" + suffix, 1)
    column: list[Scalar] = []
    for _ in range(int(given)):
        column.append(value)
        value = value * factor + step
    return column


def expand(text: str, names: frozenset[str]) -> str:
    """``%s``, ``%(x)s``, ``%n``, ``%j`` and ``%%`` as ``{value}``, ``{x}``, ``{i}``, ``{job}`` and ``%``."""

    def place(match: re.Match[str]) -> str:
        name, letter = match.groups()
        if name is not None:
            return "{" + name.lower() + "}" if name.lower() in names else match.group()
        return {"s": "{value}" if "value" in names else "%s", "n": "{i}", "j": "{job}", "%": "%"}[letter]

    return _PLACE.sub(place, text)


def parametric(text: str) -> dict[str, Value]:
    """``dsub --Parametric``: ``a,b,c`` or ``start:stop[:step[:factor]]`` (stop included). Raises JdlError."""
    if ":" not in text:
        return {"parameters": [part.strip() for part in text.split(",")]}
    try:
        parts = [int(part) for part in text.split(":")]
    except ValueError:
        raise JdlError(f"--Parametric={text}: start:stop[:step[:factor]] are whole numbers") from None
    if not 2 <= len(parts) <= 4:
        raise JdlError(f"--Parametric={text}: it is start:stop[:step[:factor]]")
    start, stop, step, factor = (*parts, *[1, 1][len(parts) - 2 :])
    values: list[Scalar] = []
    value = start
    while value <= stop and len(values) <= 1_000_000:
        values.append(value)
        following = value * factor + step
        if following <= value:
            raise JdlError(f"--Parametric={text} never comes to its end")
        value = following
    return {"parameters": values}


def _text(attributes: Mapping[str, Value], name: str) -> str:
    value = attributes.get(name, "")
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _list(attributes: Mapping[str, Value], name: str) -> list[str]:
    value = attributes.get(name, [])
    items = value if isinstance(value, list) else str(value).split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def _number(attributes: Mapping[str, Value], name: str, default: int) -> int | float:
    value = attributes.get(name, default)
    try:
        return value if isinstance(value, int | float) else float(str(value))
    except ValueError:
        raise JdlError(f"{name} is {value!r}, no number") from None


def _whole(attributes: Mapping[str, Value], name: str) -> int:
    return int(_number(attributes, name, 0))


STATUS = {"waiting": "Waiting", "running": "Running", "done": "Done", "failed": "Failed", "killed": "Killed"}
"""DIRAC's words for Hansa's phases."""
