"""What a form asks for, in the other three languages: a command, curl, Python. Pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from hansa.jobs.wire import JobSpec
from hansa.kernel.wire import encode


@dataclass(frozen=True)
class Snippet:
    """One way to say it without the form."""

    name: str
    text: str


def of_job(spec: JobSpec, url: str) -> list[Snippet]:
    """How to submit this job from a terminal, over HTTP, and from Python."""
    return [
        Snippet("CLI", _command(spec)),
        Snippet("curl", _curl(spec, url)),
        Snippet("Python", _python(spec)),
    ]


def _options(spec: JobSpec) -> list[tuple[str, object]]:
    needs = spec.requirements
    array = f"{spec.first}-{spec.first + spec.count - 1}" if spec.array else None
    options: list[tuple[str, object]] = [
        ("name", spec.name),
        ("vo", spec.vo),
        ("array", array),
        ("cores", needs.cores),
        ("memory", f"{needs.memory_mib}M" if needs.memory_mib else None),
        ("gpus", needs.gpus or None),
        ("time", f"{needs.wall_time_s}" if needs.wall_time_s else None),
        ("site", needs.site),
        ("retries", spec.retries or None),
        ("priority", spec.priority if spec.priority != 5 else None),
        ("setup", spec.setup),
    ]
    return [(name, value) for name, value in options if value is not None]


def _command(spec: JobSpec) -> str:
    words = ["hansa", "job", "submit"]
    for name, value in _options(spec):
        words += [f"--{name}", shlex.quote(str(value))]
    for name, value in spec.env.items():
        words += ["--env", shlex.quote(f"{name}={value}")]
    return " ".join([*words, "--", shlex.join(spec.command)])


def _body(spec: JobSpec) -> dict[str, object]:
    blank = encode(JobSpec(command=[]))
    return {name: value for name, value in encode(spec).items() if value != blank.get(name)}


def _curl(spec: JobSpec, url: str) -> str:
    body = json.dumps(_body(spec), ensure_ascii=False)
    return "\n".join(
        [
            f"curl {shlex.quote(url + '/api/v1/jobs')} \\",
            '  -H "Authorization: Bearer $(hansa token)" \\',
            "  -H 'Content-Type: application/json' \\",
            f"  -d {shlex.quote(body)}",
        ]
    )


def _python(spec: JobSpec) -> str:
    names = {"time": "wall_time"}
    given = [repr(spec.command)]
    for name, value in _options(spec):
        given.append(f"{names.get(name, name)}={value!r}")
    if spec.env:
        given.append(f"env={spec.env!r}")
    return f"from hansa import Hansa\n\njob = Hansa().submit({', '.join(given)})\nprint(job.wait())"
