"""From a DIRAC job description to what Hansa runs. Pure but for looking which files there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hansa.compat.dirac import parametric
from hansa.compat.dirac.jdl import JdlError, Value
from hansa.compat.dirac.words import platform_words

STDOUT, STDERR = "std.out", "std.err"
OUT_LABEL, ERR_LABEL, DATA_LABEL = "dirac.stdout", "dirac.stderr", "dirac.outputdata"
"""Labels of a job: what its streams are called when they are fetched, and which outputs are data."""
_NAME_LIMIT = 200
_REMOTE = ("LFN:", "SB:", "lfn:", "sb:")
_EXPANDED = re.compile(r"[$`*?|<>;&~]")
"""What a shell would do something with; DIRAC's wrapper has one on the worker."""
_QUOTED = re.compile(r"'[^']*'|\\.")
NAMES = (
    "Executable", "Arguments", "StdOutput", "StdError", "JobName", "JobGroup", "JobType", "Priority", "CPUTime", "Site",
    "BannedSites", "BannedSite", "Platform", "Tags", "Tag", "MinNumberOfProcessors", "MaxNumberOfProcessors",
    "NumberOfProcessors", "InputSandbox", "OutputSandbox", "InputData", "OutputData", "OutputSE", "OutputPath", "Owner",
    "OwnerGroup", "VO", "JobID", "Parametric",
)  # fmt: skip
"""Attributes that mean something here, or of which it is said why they do not."""
UNDERSTOOD = frozenset(name.lower() for name in NAMES)


@dataclass(frozen=True)
class Submission:
    """A job in Hansa's words. ``rows``: a mapping a task, or None for a single job."""

    command: list[str]
    inputs: list[str]
    """Files here, as ``SRC=DEST``: all go to the top of the job's directory, as in a sandbox of DIRAC's."""
    outputs: list[str]
    stdout: str
    stderr: str
    options: dict[str, object]
    rows: list[dict[str, str]] | None = None
    notes: list[str] = field(default_factory=list)
    program: str | None = None
    """The file among the inputs that is run, whether it may be executed here or not."""


def translate(
    attributes: Mapping[str, Value],
    is_file: Callable[[str], bool],
    *,
    uploads: bool = False,
    is_text: Callable[[str], bool] = lambda _path: False,
) -> Submission:
    """The job of a description (names in lower case). Raises JdlError where it cannot be run as it is described.

    An executable that is a file here and not an absolute path travels; ``uploads``: absolute ones as well. One for
    which ``is_text`` holds has no ``#!`` line and is run by the shell.
    """
    rows = parametric.parameters(attributes)
    if rows is not None and len(rows) > 10 and "%n" in str(attributes):
        rows = [row | {parametric.PADDED: parametric.padded(at, len(rows))} for at, row in enumerate(rows)]
    inputs = _inputs(attributes)
    command, program = _command(attributes, inputs, is_file, is_text, uploads=uploads)
    stdout, stderr = _text(attributes, "stdoutput") or STDOUT, _text(attributes, "stderror") or STDERR
    data = [_local(one) for one in _list(attributes, "outputdata")]
    outputs = [one for one in map(_local, _list(attributes, "outputsandbox")) if one not in (stdout, stderr)]
    options, notes = _options(attributes, program), _notes(attributes)
    if labels := _labels(stdout, stderr, data):
        options["labels"] = labels
    outputs = [*outputs, *data] or [stdout]
    if rows is not None:
        names = frozenset(rows[0])
        command, inputs, outputs = (
            [parametric.expand(one, names) for one in many] for many in (command, inputs, outputs)
        )
        name = str(options.get("name", ""))
        if parametric.PLACE.search(name):
            options["name"] = parametric.PLACE.sub("", name).strip(" _-.") or "parametric"
            notes.append(f"an array has one name: {options['name']}")
    inputs = [f"{path}={path.rstrip('/').rpartition('/')[2]}" for path in inputs]
    return Submission(command, inputs, outputs, stdout, stderr, options, rows, notes, program)


def _command(
    attributes: Mapping[str, Value],
    inputs: list[str],
    is_file: Callable[[str], bool],
    is_text: Callable[[str], bool],
    *,
    uploads: bool,
) -> tuple[list[str], str | None]:
    """The words to run; the executable is added to the inputs where it travels."""
    executable = _text(attributes, "executable")
    if not executable:
        raise JdlError("there is no Executable")
    words = shlex.split(_text(attributes, "arguments"))
    if executable.startswith("/") and not uploads:
        return [executable, *words], None
    name = executable.rpartition("/")[2]
    sent = executable
    alike = [path for path in inputs if path.rpartition("/")[2] == name]
    if is_file(executable):
        inputs[:] = [*(path for path in inputs if path not in alike), executable]
    elif alike:
        sent = alike[0]
    else:
        raise JdlError(
            f"the executable {executable} is not here; a relative one is sent with the job. "
            f"For one that is on the worker write its path, as in /bin/{name}"
        )
    shell = ["/bin/sh"] if is_text(sent) else []
    return [*shell, f"./{name}", *words], name


def _local(output: str) -> str:
    """An output is a file of the job's directory, whatever logical name it was to have."""
    for prefix in ("LFN:", "lfn:"):
        output = output.removeprefix(prefix)
    return output.lstrip("/")


def _notes(attributes: Mapping[str, Value]) -> list[str]:
    """What changes nothing here, and why."""
    known = UNDERSTOOD | {key for key in attributes if key.partition(".")[0] in _PARAMETERS}
    notes = [f"{name} is not known here and changes nothing" for name in sorted(set(attributes) - known)]
    if attributes.get("outputdata") or attributes.get("outputse") or attributes.get("outputpath"):
        notes.append("output data comes back with the output sandbox: there is no storage element")
    if _text(attributes, "jobtype").lower() not in ("", "user"):
        notes.append("JobType changes nothing here; JobGroup and labels sort jobs")
    if attributes.get("owner") or attributes.get("ownergroup"):
        notes.append("Owner and OwnerGroup change nothing: you are who hansa whoami says; VO chooses the community")
    cores = [_whole(attributes, key) for key in _CORES if attributes.get(key) is not None]
    most = attributes.get("maxnumberofprocessors")
    if most is not None and _whole(attributes, "maxnumberofprocessors") != (cores[-1] if cores else 1):
        notes.append(f"MaxNumberOfProcessors changes nothing: cores of a task are {cores[-1] if cores else 1}")
    if _EXPANDED.search(_QUOTED.sub("", _text(attributes, "arguments"))):
        notes.append("Arguments are given as they are: no shell expands them; use a script for that")
    return notes


_PARAMETERS = (parametric.PARAMETERS, parametric.START, parametric.STEP, parametric.FACTOR)
_CORES = ("numberofprocessors", "minnumberofprocessors")


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


def stream_names(labels: Mapping[str, str], job: int, index: str, values: Mapping[str, str]) -> dict[str, str]:
    """What a task's streams are called. ``index`` is ``%n``, ``values`` are its parameters."""
    names = {"stdout": labels.get(OUT_LABEL, STDOUT), "stderr": labels.get(ERR_LABEL, STDERR)}
    return {stream: parametric.fill(name, job, index, values).replace("/", "_") for stream, name in names.items()}


def is_data(labels: Mapping[str, str], path: str) -> bool:
    """Whether an output is one of those that ``OutputData`` named."""
    return any(
        fnmatchcase(path, parametric.PLACE.sub("*", one)) for one in labels.get(DATA_LABEL, "").split(",") if one
    )


def _inputs(attributes: Mapping[str, Value]) -> list[str]:
    if _list(attributes, "inputdata"):
        raise JdlError("InputData names logical files, and there is no data catalogue yet; send files by InputSandbox")
    inputs = _list(attributes, "inputsandbox")
    remote = [path for path in inputs if path.startswith(_REMOTE)]
    if remote:
        raise JdlError(f"InputSandbox has {remote[0]}, which is no file here; there is no data catalogue yet")
    names: dict[str, str] = {}
    for path in inputs:
        name = path.rstrip("/").rpartition("/")[2]
        if names.setdefault(name, path) != path:
            raise JdlError(f"InputSandbox has {names[name]} and {path}: both would be {name} in the job's directory")
    return inputs


def _options(attributes: Mapping[str, Value], program: str | None) -> dict[str, object]:
    options: dict[str, object] = {
        "name": _text(attributes, "jobname") or program,
        "group": _text(attributes, "jobgroup") or None,
        "tags": _list(attributes, "tags") or _list(attributes, "tag"),
        "banned_sites": _list(attributes, "bannedsites") or _list(attributes, "bannedsite"),
        "sites": [site for site in _list(attributes, "site") if site.lower() != "any"],
        "platform": [
            word for one in _list(attributes, "platform") if one.lower() != "any" for word in platform_words(one)
        ],
    }
    for name, key in (("priority", "priority"), ("wall_time", "cputime"), ("vo", "vo")):
        if attributes.get(key) not in (None, ""):
            options[name] = attributes[key] if name == "vo" else _whole(attributes, key)
    for key in _CORES:
        if attributes.get(key) is not None:
            options["cores"] = _whole(attributes, key)
    return {name: value for name, value in options.items() if value not in (None, [])}


def _text(attributes: Mapping[str, Value], name: str) -> str:
    value = attributes.get(name, "")
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _list(attributes: Mapping[str, Value], name: str) -> list[str]:
    value = attributes.get(name, [])
    items = value if isinstance(value, list) else str(value).strip().removeprefix("{").removesuffix("}").split(",")
    return [word for item in items if (word := str(item).strip().strip('"').strip())]


def _whole(attributes: Mapping[str, Value], name: str) -> int:
    found = parametric.number(attributes, name, 0)
    if found != int(found):
        raise JdlError(f"{name} is {found}; it is a whole number")
    return int(found)
