"""Small things that all verbs use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from hansa.machines.drivers.nspawn.helper.words import Refusal

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*argv: str, **more: Any) -> str:
    """A command to its end; its output. Raises Refusal with its last words."""
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv, capture_output=True, text=True, timeout=300, check=False, **more
        )
    except FileNotFoundError:
        raise Refusal("missing", f"{argv[0]} is not installed") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise Refusal("failed", f"{argv[0]}: {words[-1][:400]}", passing=True)
    return done.stdout


def write(path: str, content: str, mode: int = 0o600, owner: int | None = None) -> None:
    """A file, whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
        file.write(content)
        if owner is not None:
            os.fchown(file.fileno(), owner, owner)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Alone among all helpers; the lock goes with the process."""
    with open(path, "w", encoding="ascii") as file:
        os.set_inheritable(file.fileno(), False)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_if_free(path: str) -> Iterator[bool]:
    """The same without waiting: says whether it has the lock."""
    with open(path, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def started_at(pid: int) -> int | None:
    """When a process started, in ticks: a process id alone may be somebody else's by now. None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def copy_sparse(source: int, target: int) -> None:
    """Copy a file's content, holes as holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:
            return
        offset = os.lseek(source, start, os.SEEK_HOLE)
        at = start
        while at < offset:
            done = os.copy_file_range(source, target, min(offset - at, 1 << 30), at, at)
            if not done:
                raise Refusal("failed", "the disk was cut off while it was read", passing=True)
            at += done
