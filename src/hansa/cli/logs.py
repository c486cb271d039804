"""``hansa job logs``: the output of a task, or of all tasks of a job; what there is, and what comes."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import click

from hansa.cli import completion, refs
from hansa.cli.session import note, open_session
from hansa.client import job_api, operations
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import Follower
from hansa.client.transport import Transport
from hansa.client.units import parse_bytes, parse_time
from hansa.jobs.wire import Job, LogLine
from hansa.kernel.errors import Exit

_EXAMPLES = """\b
Examples:
  hansa job logs 12
  hansa job logs 12.17 --stream stderr --tail 20
  hansa job logs -f last
  hansa job logs 12 --since 10m --grep 'error|warning'"""


@dataclass
class _Sink:
    """Where bytes of streams go: as they are, or line by line where lines are chosen or named."""

    out: Callable[[str], BinaryIO]
    pattern: re.Pattern[bytes] | None = None
    """Of what comes while a task runs: what is there is searched by the server."""
    name: Callable[[int], str] | None = None
    """What stands before a line of a task."""
    last: deque[tuple[str, bytes]] | None = None
    """Keeps the last lines instead of writing them."""
    found: int = 0
    """How much was chosen: lines, or bytes of what the server chose."""
    _rest: dict[tuple[int, int, str], bytes] = field(default_factory=dict)

    def add(self, index: int, attempt: int, stream: str, data: bytes) -> None:
        """Bytes of a stream, in order."""
        if self.pattern is None and self.name is None:
            self.found += len(data)
            self._write(stream, data)
            return
        *lines, rest = (self._rest.pop((index, attempt, stream), b"") + data).split(b"\n")
        self._rest[index, attempt, stream] = rest
        for line in lines:
            self._line(index, stream, line)

    def end(self) -> None:
        """Nothing comes any more."""
        for (index, _, stream), rest in self._rest.items():
            if rest:
                self._line(index, stream, rest)
        self._rest.clear()
        for stream, line in self.last or ():
            self.out(stream).write(line)
        for stream in ("stdout", "stderr"):
            self.out(stream).flush()

    def hear(self, line: LogLine) -> None:
        """A line that the server has found."""
        self.found += 1
        self._print(line.index, line.stream, line.text.encode())

    def _line(self, index: int, stream: str, line: bytes) -> None:
        if self.pattern is None or self.pattern.search(line):
            self.found += 1
            self._print(index, stream, line)

    def _print(self, index: int, stream: str, line: bytes) -> None:
        head = f"{self.name(index)} | ".encode() if self.name is not None else b""
        self._write(stream, head + line + b"\n")

    def _write(self, stream: str, data: bytes) -> None:
        if self.last is not None:
            self.last.append((stream, data))
            return
        out = self.out(stream)
        out.write(data)
        out.flush()


@click.command(epilog=_EXAMPLES)
@click.argument("job", metavar="JOB[.TASK]", shell_complete=completion.jobs)
@click.option(
    "--stream",
    type=click.Choice(["both", "stdout", "stderr", "setup"]),
    default="both",
    help="Which. [default: stdout to stdout, stderr to stderr]",
)
@click.option("--tail", metavar="N|SIZE", help="Only the end: 20 (lines), 4K, 1M.")
@click.option("--since", metavar="TIME", help="Only what came since then: 10m (ago), 2026-05-01T12:00.")
@click.option("--grep", metavar="REGEX", help="Only lines in which it is found; exit code 1 where there is none.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of an earlier attempt. [default: the last]")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
def logs(
    job: str,
    *,
    stream: str,
    tail: str | None,
    since: str | None,
    grep: str | None,
    attempt: int | None,
    follow: bool,
) -> int:
    """Print the output of a task, byte for byte; of an array, of all its tasks, each line after its task.

    Where more was written than is kept, the output ends with a line that says how much was dropped. With --grep the
    server looks through what there is, and --tail counts the lines that it found.
    """
    wanted = ("stdout", "stderr") if stream == "both" else (stream,)
    pattern, moment, end = _pattern(grep) if follow else None, _moment(since), _Tail.read(tail)
    if attempt is not None and (follow or since):
        raise HansaError(USAGE, "--attempt names output that is complete: it goes without -f and --since.")
    session = open_session()
    ref = refs.one(session, job)
    found = session.run(job_api.job(ref.number))

    def out(name: str) -> BinaryIO:
        return sys.stderr.buffer if stream == "both" and name == "stderr" else sys.stdout.buffer

    if found.array and ref.task is None:
        sink = _Sink(out, pattern, lambda index: f"{found.number}.{index}")
        _limit(sink, end, is_followed=follow)
        if grep is not None and not follow:
            session.run(job_api.lines(found.number, grep, stream, sink.hear, moment))
        else:
            _all_tasks(session, found, wanted, sink, moment, is_followed=follow)
    else:
        index = ref.task if ref.task is not None else found.first
        sink = _Sink(out, pattern)
        searched = None if follow else grep
        ends = _one_task(session, found, index, wanted, sink, moment, end, attempt, searched, is_followed=follow)
        if follow:
            _follow(session, found, index, wanted, sink, ends)
    sink.end()
    return Exit.FAILED if grep is not None and not sink.found else 0


@dataclass(frozen=True)
class _Tail:
    """How much of the end."""

    lines: int | None = None
    size: int | None = None

    @classmethod
    def read(cls, text: str | None) -> _Tail:
        """``20`` are lines, ``4K`` is a size."""
        if text is None:
            return cls()
        if text.strip().isdecimal():
            lines = int(text)
            if not 1 <= lines <= 100_000:
                raise HansaError(USAGE, f"--tail {text}: 1 to 100,000 lines.", hint="Or a size, as in 1M.")
            return cls(lines)
        return cls(size=parse_bytes(text))


def _pattern(grep: str | None) -> re.Pattern[bytes] | None:
    """What comes while a task runs is looked through here, line by line."""
    if grep is None:
        return None
    try:
        return re.compile(grep.encode())
    except re.error as error:
        raise HansaError(USAGE, f"--grep {grep!r} is no regular expression: {error}.") from error


def _moment(text: str | None) -> datetime | None:
    """``10m``: so long ago; or a date, with a time or without, here where no time zone is named."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_time(text))
    except HansaError as error:
        raise HansaError(
            USAGE, f"--since {text!r} is neither a length of time nor a date.", hint="As in 10m, 2h, 2026-05-01T12:00."
        ) from error


def _one_task(
    session: Transport,
    job: Job,
    index: int,
    wanted: Sequence[str],
    sink: _Sink,
    moment: datetime | None,
    end: _Tail,
    attempt: int | None,
    grep: str | None,
    *,
    is_followed: bool,
) -> tuple[str, dict[tuple[int, int, str], int]]:
    """What there is; where to go on, and how much of each stream was printed."""
    cursor = session.run(job_api.follow(job.number, "now", 0.0, logs=False)).cursor if is_followed else ""
    ends: dict[tuple[int, int, str], int] = {}
    for name in wanted:
        count = 0

        def write(piece: bytes, name: str = name) -> None:
            nonlocal count
            count += len(piece)
            sink.add(index, 0, name, piece)

        which, start = session.run(
            job_api.log(
                job.number, index, name, write, end.size, attempt, tail_lines=end.lines, since=moment, grep=grep
            )
        )
        ends[index, which, name] = start + count
    return cursor, ends


def _follow(
    session: Transport,
    job: Job,
    index: int,
    wanted: Sequence[str],
    sink: _Sink,
    known: tuple[str, dict[tuple[int, int, str], int]],
) -> None:
    def hear(which: int, attempt: int, stream: str, data: bytes) -> None:  # noqa: ARG001 - one attempt after another
        if stream in wanted and which == index:
            sink.add(index, 0, stream, data)

    cursor, ends = known
    follower = Follower(piece=hear, ends=ends, task=index if job.array else None)
    session.run(operations.follow(job.number, follower, cursor))


def _all_tasks(
    session: Transport,
    job: Job,
    wanted: Sequence[str],
    sink: _Sink,
    moment: datetime | None,
    *,
    is_followed: bool,
) -> None:
    """The output of all tasks as it came."""

    def hear(index: int, attempt: int, stream: str, data: bytes) -> None:
        if stream in wanted:
            sink.add(index, attempt, stream, data)

    follower = Follower(piece=hear, since=moment)
    if is_followed:
        note(f"following {job.count:,} tasks of job {job.number}")
        session.run(operations.follow(job.number, follower))
    else:
        session.run(operations.replay(job.number, follower))


def _limit(sink: _Sink, end: _Tail, *, is_followed: bool) -> None:
    """Of a whole array only the last lines, where those are wanted."""
    if end.size is not None:
        raise HansaError(USAGE, "Of a whole array --tail takes a number of lines.", hint="As in --tail 100.")
    if end.lines is not None and is_followed:
        raise HansaError(USAGE, "Of a whole array, -f goes without --tail.", hint="Use --since, as in --since 5m.")
    if end.lines is not None:
        sink.last = deque(maxlen=end.lines)
