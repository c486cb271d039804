"""What a task leaves behind: which files are its outputs, and what ``result.json`` says."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Tuple

from .files import Stamp
from .protocol import INLINE_OUTPUT_LIMIT_BYTES, RESULT_JSON_LIMIT_BYTES, OutputFile

RESULT_NAME = "result.json"
INLINE_TASK_LIMIT_BYTES = 1 << 20
"""Of all inline outputs of one task together: the rest is uploaded, so that a result fits into an
exchange."""


@dataclass(frozen=True)
class Found:
    """A file that the task made or changed."""

    path: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Selection:
    """The outputs; ``violation`` says which limit they break, ``note`` what was left out."""

    files: List[Found] = field(default_factory=list)
    violation: str = ""
    note: str = ""


def is_unchanged(stamp: Stamp, status: os.stat_result) -> bool:
    """True for an input as it was laid out."""
    return stamp == (status.st_size, status.st_mtime_ns, status.st_ino)


def walk(directory: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Regular files below a directory, links not followed. What cannot be read is left out."""
    waiting = [("", directory)]
    while waiting:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((prefix + entry.name + "/", entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        yield prefix + entry.name, entry.stat(follow_symlinks=False)
        except OSError:
            continue


def select(
    directory: str,
    matches: Callable[[str], bool],
    inputs: Mapping[str, Stamp],
    limit_bytes: int,
    limit_files: int,
) -> Selection:
    """The files that are outputs, by name, and whether they keep to the limits."""
    files: List[Found] = []
    note = ""
    for path, status in walk(directory):
        if not matches(path) or (path in inputs and is_unchanged(inputs[path], status)):
            continue
        if not _is_text(path):
            note = f"a file whose name is not UTF-8 was left out: {path!a}"
            continue
        if status.st_size > limit_bytes:
            return Selection(
                violation=f"output {path} has {status.st_size:,} bytes, more than the job's limit of "
                f"{limit_bytes:,} for one file; raise the limit, write less, or name the outputs to keep"
            )
        files.append(Found(path, status.st_size, bool(status.st_mode & stat.S_IXUSR)))
        if len(files) > limit_files:
            return Selection(
                violation=f"more than {limit_files:,} output files (the last one seen is {path}), the job's "
                "limit for one task; raise the limit, pack them into an archive, or name the outputs to keep"
            )
    files.sort(key=lambda found: found.path)
    return Selection(files=files, note=note)


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_output(directory: str, found: Found, inline_left: int) -> OutputFile:
    """Digest a file, and take a small one's content along. OSError if it cannot be read."""
    with open_output(directory, found.path) as stream:
        if found.size <= min(INLINE_OUTPUT_LIMIT_BYTES, inline_left):
            content = stream.read(INLINE_OUTPUT_LIMIT_BYTES)
            digest = hashlib.sha256(content).hexdigest()
            data = base64.b64encode(content).decode("ascii")
            return OutputFile(found.path, "sha256:" + digest, len(content), found.executable, data)
        running = hashlib.sha256()
        size = 0
        for piece in iter(lambda: stream.read(1 << 20), b""):
            running.update(piece)
            size += len(piece)
    return OutputFile(found.path, "sha256:" + running.hexdigest(), size, found.executable)


def open_output(directory: str, path: str) -> BinaryIO:
    """Open an output for reading; a link in its place is refused (OSError)."""
    return os.fdopen(os.open(os.path.join(directory, path), os.O_RDONLY | os.O_NOFOLLOW), "rb")


def read_fields(directory: str) -> Tuple[Optional[Dict[str, Any]], str]:
    """The object in ``result.json``, and what is wrong with it. Never raises: it must not fail the task."""
    path = os.path.join(directory, RESULT_NAME)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None, ""
    with os.fdopen(fd, "rb") as stream:
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None, f"{RESULT_NAME} is not a file: ignored"
            raw = stream.read(RESULT_JSON_LIMIT_BYTES + 1)
        except OSError as error:
            return None, f"{RESULT_NAME} cannot be read: {error.strerror}"
    return parse_fields(raw)


def parse_fields(raw: bytes) -> Tuple[Optional[Dict[str, Any]], str]:
    """The same for its content."""
    if len(raw) > RESULT_JSON_LIMIT_BYTES:
        return None, f"{RESULT_NAME} has more than {RESULT_JSON_LIMIT_BYTES:,} bytes: ignored"
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            return None, f"{RESULT_NAME} holds no JSON object: ignored"
        # One value that the server or its database cannot take would spoil a whole exchange.
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
        if "\\u0000" in text:
            return None, f"{RESULT_NAME} holds a NUL character: ignored"
    except (ValueError, RecursionError) as error:
        return None, f"{RESULT_NAME} is not JSON: ignored ({error})"
    return value, ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
