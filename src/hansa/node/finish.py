"""From the end of a task's process to its result."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from typing import Callable, Dict, List, Tuple

from .backoff import Backoff
from .core import Task
from .outputs import INLINE_TASK_LIMIT_BYTES, Selection, open_output, read_fields, read_output, select
from .paths import matcher
from .protocol import EXITED, KILLED, NODE, OUTPUT, RESUME_BYTES, OutputFile, TaskResult
from .series import last_series
from .template import render
from .transport import AnyTransport, Refused, Unreachable
from .wire import clean_text

CONFLICT = 409
_NO_OUTPUTS = (KILLED, NODE)


class UploadRefused(Exception):
    """The server does not take an output; the message says which and why."""


def basic_result(task: Task, status: int, cpu_s: float, max_rss_kib: int, ended_at: float) -> TaskResult:
    """How the process ended, from its wait status and what it used."""
    code = signal = None
    if os.WIFSIGNALED(status):
        signal = os.WTERMSIG(status)
    else:
        code = os.WEXITSTATUS(status)
    return TaskResult(
        lease=task.lease,
        index=task.index,
        outcome=task.stop_outcome or EXITED,
        exit_code=code,
        signal=signal,
        message=task.stop_message,
        wall_s=max(0.0, ended_at - task.started),
        cpu_s=cpu_s,
        memory_mib=max(task.peak_mib, max_rss_kib / 1024.0),
        series=None if task.recorder is None else last_series(task.recorder, ended_at - task.started, cpu_s),
    )


def is_success(result: TaskResult) -> bool:
    return result.outcome == EXITED and result.exit_code == 0


def with_problem(task: Task, result: TaskResult) -> TaskResult:
    """The result of a task in a container: another one where its program did not start."""
    try:
        with open(task.base + "/container/problem.json", encoding="utf-8") as stream:
            problem = json.load(stream)
    except (OSError, ValueError):
        return result
    if task.stop_outcome is not None:
        return result
    return replace(result, outcome=problem["outcome"], message=clean_text(problem["message"]), exit_code=None)


def is_real_directory(path: str) -> bool:
    """False for a link: a task may have put one in the place of its directory."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def left_nothing(work: str) -> bool:
    """True if the working directory is empty: the common case, decided without a thread."""
    try:
        with os.scandir(work) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def collect(
    task: Task,
    result: TaskResult,
    values: Dict[str, str],
    upload: Callable[[str, OutputFile], None],
) -> TaskResult:
    """Add fields and outputs to a result. Reads, digests and uploads: for a worker thread.

    ``upload`` sends one file and returns when it has arrived; UploadRefused if the server does not take it.
    """
    if result.outcome in _NO_OUTPUTS:
        return result
    work = task.base + "/work"
    if not (is_real_directory(task.base) and is_real_directory(work)):
        return with_note(result, "the task removed its own directory: no outputs")
    fields, note = read_fields(work)
    result = with_note(replace(result, fields=fields), note)
    order = task.job.order
    matches = matcher([render(glob, values) for glob in order.outputs]) if order.outputs else _nothing
    if order.checkpoint is not None:
        matches = _but(matches, order.checkpoint + "/")
    chosen = select(work, matches, task.inputs, order.output_limit_bytes, order.output_limit_files)
    if chosen.violation:
        return _violation(result, chosen.violation)
    result = with_note(result, chosen.note)
    try:
        return replace(result, outputs=_send(work, chosen, upload))
    except UploadRefused as error:
        return _violation(result, str(error))


def _nothing(_path: str) -> bool:
    return False


def _but(matches: Callable[[str], bool], folder: str) -> Callable[[str], bool]:
    return lambda path: not path.startswith(folder) and matches(path)


def _send(work: str, chosen: Selection, upload: Callable[[str, OutputFile], None]) -> List[OutputFile]:
    outputs = []
    inline_left = INLINE_TASK_LIMIT_BYTES
    for found in chosen.files:
        try:
            output = read_output(work, found, inline_left)
            if output.data is None:
                upload(work, output)
        except OSError as error:
            raise UploadRefused(f"output {found.path} cannot be read: {error.strerror}") from error
        inline_left -= len(output.data or "")
        outputs.append(output)
    return outputs


def with_note(result: TaskResult, note: str) -> TaskResult:
    """The result with a remark in its message."""
    if not note:
        return result
    return replace(result, message=clean_text("; ".join(part for part in (result.message, note) if part)))


def _violation(result: TaskResult, text: str) -> TaskResult:
    """Outputs that cannot be delivered fail a task that was a success; another failure stays what it is."""
    if result.outcome == EXITED and result.exit_code == 0:
        return replace(with_note(result, text), outcome=OUTPUT)
    return with_note(result, text)


def upload_file(
    transport: AnyTransport,
    path: str,
    work: str,
    output: OutputFile,
    backoff: Backoff,
    pause: Callable[[float], bool],
    leaves: Callable[[], bool] = bool,
) -> None:
    """PUT one output, again and again while the server is away and ``pause`` says True.

    Once ``leaves`` says so, it is left where it can be, for whoever comes.

    A large one goes on where an upload of it broke off.
    """
    while True:
        try:
            is_resumed = output.size > RESUME_BYTES and not (transport.can_leave and leaves())
            offset = _received(transport, path, output.size, leaves) if is_resumed else 0
            with open_output(work, output.path) as stream:
                stream.seek(offset)
                transport.put_file(f"{path}?offset={offset}" if offset else path, stream, output.size - offset, leaves)
            return
        except Refused as error:
            if error.status != CONFLICT:  # what had come is there no more: it is asked for anew
                raise UploadRefused(f"output {output.path} ({output.size:,} bytes) was not taken: {error}") from error
            if not pause(backoff.next_s()):
                raise UploadRefused(f"output {output.path} was not sent before the pilot ended: {error}") from error
        except Unreachable as error:
            if not pause(backoff.next_s()):
                raise UploadRefused(f"output {output.path} was not sent before the pilot ended: {error}") from error


def _received(transport: AnyTransport, path: str, size: int, leaves: Callable[[], bool] = bool) -> int:
    """How many bytes of it the server has; 0 where it does not know that question."""
    answer: List[bytes] = []
    try:
        transport.get(f"{path}/received?size={size}", answer.append, leaves)
        received = int(json.loads(b"".join(answer))["received"])
    except Refused as error:
        if error.status not in (404, 405):
            raise
        return 0
    except (ValueError, KeyError, TypeError):
        return 0
    return received if 0 <= received <= size else 0


def tail_of(paths: Tuple[str, ...], limit: int = 400) -> str:
    """The last lines of the first log that has any."""
    for path in paths:
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - limit))
                text = stream.read(limit).decode("utf-8", "replace").strip()
        except OSError:
            continue
        if text:
            return clean_text(text)
    return ""
