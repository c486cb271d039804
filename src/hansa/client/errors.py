"""What the client raises: one base with a code, a sentence, a hint, and the exit code of the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hansa.kernel.errors import Code, Exit, Fault, register

if TYPE_CHECKING:
    from hansa.jobs.wire import Job

SERVER_AWAY = register("client.server_away", 503, Exit.AWAY, "The server does not answer.")
NOT_HANSA = register("client.not_hansa", 502, Exit.AWAY, "What answers at this address is no Hansa server.")
USAGE = register("client.usage", 422, Exit.USAGE, "A value is not valid.")
INPUT = register("client.input", 422, Exit.USAGE, "An input file cannot be sent.")
INPUT_CHANGED = register("client.input_changed", 409, Exit.REFUSED, "An input file changed while it was sent.")
INPUT_LIMIT = register("client.input_limit", 413, Exit.LIMIT, "The input files are larger than the server takes.")
TARGET = register("client.target", 409, Exit.REFUSED, "Files cannot be written where they should go.")
UNSAFE_PATH = register("client.unsafe_path", 502, Exit.REFUSED, "The server named a path outside the folder.")
JOB_FAILED = register("client.job_failed", 409, Exit.FAILED, "The job failed.")
MACHINE_FAILED = register("client.machine_failed", 409, Exit.FAILED, "The machine came to nothing.")
TIMED_OUT = register("client.timed_out", 408, Exit.AWAY, "It did not end in the time given.")
NO_LOGIN = register("client.no_login", 401, Exit.SIGN_IN, "You are not signed in, or not any more.")
SITE = register("client.site", 404, Exit.NOT_FOUND, "The site, or a program for it, is not there for you.")
FUNCTION = register("client.function", 422, Exit.USAGE, "The function or a value cannot be sent.")


class HansaError(Fault):
    """An error with a code, a sentence with particulars, and what to do next.

    Example:
        >>> error = HansaError(USAGE, "There is no such thing.", hint="Try another.")
        >>> error.code.code, error.hint
        ('client.usage', 'Try another.')
    """


class ServerAway(HansaError):
    """The server could not be reached, or not in time. What it has accepted goes on."""


class JobFailed(HansaError):
    """A job ended otherwise than done. ``job`` is the job as the server showed it last."""

    def __init__(self, job: Job, detail: str, hint: str | None = None) -> None:
        super().__init__(JOB_FAILED, detail, hint=hint, job=job.number)
        self.job = job


class Timeout(HansaError):
    """A wait with a time limit came to its end before the job did. The job goes on."""


def of_response(status: int, body: bytes, what: str) -> HansaError:
    """The error of an answer with a status of 400 and more: problem+json, or whatever a proxy says."""
    try:
        problem: dict[str, Any] = json.loads(body)
        code = Code(problem["code"], status, int(problem.get("exit_code", Exit.FAILED)), problem["title"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()[:200]
        return HansaError(
            NOT_HANSA,
            f"{what} was answered with status {status} and no explanation{': ' + text if text else '.'}",
            hint="Check the address of the server (HANSA_SERVER); a proxy may be in the way.",
        )
    known = {"type", "title", "status", "detail", "code", "hint", "exit_code", "retry_after_s"}
    ids = {name: value for name, value in problem.items() if name not in known}
    return HansaError(
        code,
        str(problem.get("detail") or problem["title"]),
        hint=problem.get("hint"),
        retry_after_s=problem.get("retry_after_s"),
        **{name: value for name, value in ids.items() if name.isidentifier() and name not in ("self", "code")},
    )
