"""What a form asks for, in the other three languages: a command, curl, Python. Pure."""

from __future__ import annotations

import json
import shlex
import zlib
from dataclasses import dataclass

from hansa.jobs.wire import JobSpec, Phase, Requirements
from hansa.kernel.wire import encode

_CURL = "hansa token --header | curl -H @-"
"""The token goes by a pipe: what is in the arguments, everybody on the computer can read."""


@dataclass(frozen=True)
class Snippet:
    """One way to say it without the form."""

    name: str
    text: str

    @property
    def id(self) -> str:
        """Of its element on a page: the same text has the same."""
        return f"copy-{zlib.crc32(f'{self.name} {self.text}'.encode()):08x}"


def of_call(command: str, method: str, path: str, body: object = None, *, url: str) -> list[Snippet]:
    """How to do what a form does without it: the command (none: ``""``), and the call of the API that it makes."""
    curl = [f"{_CURL} -X {method} {shlex.quote(f'{url}/api/v1{path}')}"]
    words = [repr(method), repr(path)]
    if body is not None:
        text = json.dumps(encode(body), ensure_ascii=False)
        curl[-1] += " \\"
        curl += ["  -H 'Content-Type: application/json' \\", f"  -d {shlex.quote(text)}"]
        words.append(repr(encode(body)))
    python = f"from hansa import Hansa\n\nprint(Hansa().call({', '.join(words)}))"
    found = [Snippet("curl", "\n".join(curl)), Snippet("Python", python)]
    return [Snippet("CLI", command), *found] if command else found


def of_query(phase: Phase | None, query: str) -> str:
    """The command that lists the same jobs. The query is one word of the shell: it may hold < and a leading -."""
    words = f"{f'state:{phase.value} ' if phase else ''}{query.strip()}"
    return f"hansa job list {'-- ' if words.startswith('-') else ''}{shlex.quote(words)}"


def of_job(spec: JobSpec, url: str) -> list[Snippet]:
    """How to submit this job from a terminal, over HTTP, and from Python."""
    return [
        Snippet("CLI", _command(spec)),
        Snippet("curl", _curl(spec, url)),
        Snippet("Python", _python(spec)),
    ]


def _options(spec: JobSpec) -> list[tuple[str, str, object]]:
    """Options of the command line, their names in Python, and values; texts are of both."""
    needs = spec.requirements
    array = f"{spec.first}-{spec.first + spec.count - 1}" if spec.array else None
    options: list[tuple[str, str, object]] = [
        ("name", "name", spec.name),
        ("vo", "vo", spec.vo),
        ("vo-group", "vo_group", spec.vo_group),
        ("array", "array", array),
        ("cores", "cores", needs.cores),
        ("memory", "memory", f"{needs.memory_mib}M" if needs.memory_mib else None),
        ("gpus", "gpus", needs.gpus or None),
        ("gpu-model", "gpu_model", needs.gpu_model),
        ("disk", "disk", f"{needs.disk_mib}M" if needs.disk_mib else None),
        ("time", "wall_time", f"{needs.wall_time_s}" if needs.wall_time_s else None),
        ("site", "site", needs.site),
        ("image", "image", spec.image),
        ("retries", "retries", spec.retries or None),
        ("priority", "priority", spec.priority if spec.priority != 5 else None),
        ("setup", "setup", spec.setup),
        ("group", "group", spec.group),
        ("comment", "comment", spec.comment),
    ]
    return [one for one in options if one[2] is not None]


_AFTER = {"ok": "after-ok", "any": "after-any", "started": "after"}


def _lists(spec: JobSpec) -> list[tuple[str, str, list[object]]]:
    """Options that are given once for each value."""
    outputs = [] if spec.outputs == ["**"] else spec.outputs
    found: list[tuple[str, str, list[object]]] = [
        ("env", "env", [f"{name}={value}" for name, value in spec.env.items()]),
        ("label", "labels", [f"{name}={value}" for name, value in spec.labels.items()]),
        ("tag", "tags", list(spec.requirements.tags)),
        ("output", "outputs", list(outputs)),
    ]
    for how, option in _AFTER.items():
        found.append((option, option.replace("-", "_"), [one.job for one in spec.after if one.how == how]))
    return [one for one in found if one[2]]


def _command(spec: JobSpec) -> str:
    words = ["hansa", "job", "submit"]
    for option, _, value in _options(spec):
        words += [f"--{option}", shlex.quote(str(value))]
    for option, _, values in _lists(spec):
        for value in values:
            words += [f"--{option}", shlex.quote(str(value))]
    if spec.hold:
        words.append("--hold")
    return " ".join([*words, "--", shlex.join(spec.command)])


def _body(spec: JobSpec) -> dict[str, object]:
    found = _without(encode(spec), encode(JobSpec(command=[])))
    if "requirements" in found:
        found["requirements"] = _without(encode(spec.requirements), encode(Requirements()))
    return found


def _without(plain: dict[str, object], usual: dict[str, object]) -> dict[str, object]:
    """What is not as it would be if it were not said."""
    return {name: value for name, value in plain.items() if value != usual.get(name)}


def _curl(spec: JobSpec, url: str) -> str:
    body = json.dumps(_body(spec), ensure_ascii=False)
    return "\n".join(
        [
            f"{_CURL} {shlex.quote(url + '/api/v1/jobs')} \\",
            "  -H 'Content-Type: application/json' \\",
            f"  -d {shlex.quote(body)}",
        ]
    )


def _python(spec: JobSpec) -> str:
    given = [repr(spec.command)]
    given += [f"{name}={value!r}" for _, name, value in _options(spec)]
    given += [f"{name}={values!r}" for _, name, values in _lists(spec) if name not in ("env", "labels")]
    if spec.env:
        given.append(f"env={spec.env!r}")
    if spec.labels:
        given.append(f"labels={spec.labels!r}")
    if spec.hold:
        given.append("hold=True")
    return f"from hansa import Hansa\n\njob = Hansa().submit({', '.join(given)})\nprint(job.wait())"
