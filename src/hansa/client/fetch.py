"""Outputs of a job into a folder here: never outside it, never over another file, never half a file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hansa.client import job_api
from hansa.client.effects import Operation, Work
from hansa.client.errors import NOT_HANSA, TARGET, UNSAFE_PATH, HansaError
from hansa.jobs.wire import Job, TaskFile

MARK = ".hansa-job"
"""The file in a folder of outputs that says whose they are."""
PAGE = 1_000
Download = Callable[[Callable[[bytes], None], Callable[[], object], int], Operation[None]]
"""Asks for a content: where bytes go, what to do where it begins anew, and from which byte on."""


@dataclass(frozen=True)
class Fetched:
    """What came: the folder (None: nothing to bring), files and bytes, files that were there already."""

    folder: Path | None
    files: int
    size: int
    kept: int


def fetch(
    job: Job,
    folder: Path,
    server: str,
    task: int | None = None,
    progress: Callable[[TaskFile], None] | None = None,
) -> Operation[Fetched]:
    """Bring the outputs of a job, or of one of its tasks. Files that are there with the same content stay.

    An array's files go into a folder per task. Raises HansaError ``client.target`` for a folder that is not
    this job's, or a file there that differs.
    """
    number = size = kept = 0
    after = None
    is_ready = False
    while True:
        page = yield from job_api.task_files(job.number, task, after, PAGE)
        for file in page.items:
            if not is_ready:
                yield Work(lambda: claim(folder, job, server))
                is_ready = True
            target = place(folder, f"{file.index}/{file.path}" if job.array else file.path)
            if (yield Work(_comparer(target, file))):
                kept += 1
                continue
            yield from bring(output_of(job.number, file), file, target)
            number, size = number + 1, size + file.size
            if progress is not None:
                progress(file)
        after = page.next
        if after is None:
            return Fetched(folder if is_ready else None, number, size, kept)


def _comparer(target: Path, file: TaskFile) -> Callable[[], bool]:
    return lambda: is_there(target, file)


def claim(folder: Path, job: Job, server: str) -> None:
    """Make the folder this job's, or see that it is. Raises HansaError if it is something else."""
    mine = {"job": job.number, "id": job.id, "server": server}
    mark = folder / MARK
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise _not_ours(folder, "is no folder")
    try:
        if mark.is_file():
            if json.loads(mark.read_bytes()).get("id") != job.id:
                raise _not_ours(folder, "has the outputs of another job")
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise _not_ours(folder, "has other files in it")
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(mine) + "\n", encoding="utf-8")
    except ValueError as error:
        raise _not_ours(folder, "has other files in it") from error
    except OSError as error:
        raise HansaError(
            TARGET,
            f"The outputs cannot be written to {folder}: {error.strerror}.",
            hint="Choose another: --to DIR",
        ) from error


def _not_ours(folder: Path, what: str) -> HansaError:
    return HansaError(
        TARGET,
        f"{folder} {what}; nothing was written.",
        hint="Move it away, or choose another folder: hansa job fetch JOB --to DIR",
    )


def place(folder: Path, path: str) -> Path:
    """The path of an output below the folder. Raises HansaError for one that would lead out of it.

    >>> place(Path("out"), "a/b.txt").as_posix()
    'out/a/b.txt'
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part in ("..", MARK) or "\x00" in part for part in parts):
        raise HansaError(UNSAFE_PATH, f"The server named an output {path!r}; it was not written.")
    target = folder
    for part in parts[:-1]:
        target = target / part
        if target.is_symlink():
            raise HansaError(UNSAFE_PATH, f"{target} is a link; nothing was written through it.")
    return target / parts[-1]


def is_there(target: Path, file: TaskFile) -> bool:
    """Whether the output is there already. Raises HansaError where another file is in its place."""
    if not target.is_symlink() and not target.exists():
        return False
    if not target.is_symlink() and target.is_file() and target.stat().st_size == file.size:
        with target.open("rb") as stream:
            if f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" == file.digest:
                return True
    raise HansaError(
        TARGET,
        f"{target} is there already and differs; it was not written over.",
        hint="Move it away, or fetch into another folder: hansa job fetch JOB --to DIR",
    )


def output_of(number: int, file: TaskFile) -> Download:
    """How an output of a job is had."""
    return lambda sink, restart, start: job_api.download(number, file.index, file.path, sink, restart, start)


def bring(ask: Download, file: TaskFile, target: Path) -> Operation[None]:
    """Download beside the target, check the digest, then rename: what has the name is whole.

    What has come stays when it breaks off, and whoever fetches again goes on there.
    """
    try:
        yield Work(lambda: _mkdir(target.parent))
        stream, part = yield Work(lambda: _open_part(target, file))
        with stream:
            whole = yield Work(lambda: _Whole(stream))
            yield from ask(whole.add, whole.restart, whole.size)
        if f"sha256:{whole.digest()}" != file.digest:
            part.unlink(missing_ok=True)
            raise HansaError(
                NOT_HANSA, f"{file.path} did not arrive as it was sent; it was not kept.", hint="Fetch again."
            )
        if file.executable:
            part.chmod(part.stat().st_mode | 0o111)
        part.rename(target)
    except OSError as error:
        raise HansaError(
            TARGET,
            f"{target} cannot be written: {error.strerror}.",
            hint="Free some space, or choose --to DIR.",
        ) from error


def _open_part(target: Path, file: TaskFile) -> tuple[BinaryIO, Path]:
    """Where a file arrives: what an earlier fetch left, unless another one is writing to it."""
    name = f".{target.name[:150]}.{file.digest[-16:]}"
    part = target.with_name(f"{name}.part")
    stream = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.exists() and part.stat().st_ino == os.fstat(stream.fileno()).st_ino:
            return stream, part
    except BlockingIOError:
        pass
    stream.close()
    part = target.with_name(f"{name}.{secrets.token_hex(4)}.part")
    return part.open("x+b"), part


def _mkdir(folder: Path) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - as fast as it gets, for many small files


class _Whole:
    """A file as it arrives, behind what is there of it, and the hash of all of that."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self.size = 0
        while piece := stream.read(1 << 20):
            self._hasher.update(piece)
            self.size += len(piece)

    def add(self, piece: bytes) -> None:
        self._hasher.update(piece)
        self._stream.write(piece)

    def restart(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self._hasher = hashlib.sha256()

    def digest(self) -> str:
        return self._hasher.hexdigest()
