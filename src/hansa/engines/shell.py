"""Commands on some computer: what the drivers of batch systems need, on the spot or over SSH alike.

A command is a list of words and is never put together from text; files go through standard input and output, so that
nothing but the right to run commands is needed. Every call has a deadline. What cannot work raises Permanent, what may
work later Temporary; a command that ran and failed is an answer: look at ``Ran.status``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from hansa.kernel.errors import Permanent, Temporary

DEADLINE_S = 60.0
FILE_LIMIT_BYTES = 32 * 1024 * 1024
_PUT = 'umask 077; t="$1.$$"; cat > "$t" && chmod "$2" "$t" && mv -f "$t" "$1" || { s=$?; rm -f "$t"; exit "$s"; }'


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """The last words on standard error, or of the output: one line for a message."""
        said = self.stderr.decode("utf-8", "replace").strip() or self.text.strip()
        return said.splitlines()[-1][:500] if said else f"exit code {self.status}"


class Stream(Protocol):
    """A command that goes on: bytes in, bytes out."""

    async def read(self, limit: int = 65536) -> bytes:
        """Some bytes of its output; empty at its end. Raises Temporary where the connection broke."""

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while it does not read. Raises Temporary where it is gone."""

    async def complaint(self) -> str:
        """The end of what it said on standard error so far."""


class Shell(ABC):
    """A computer and an account on it. Safe to use from several tasks at once."""

    name: str
    """For messages: ``ada@login.example.org``."""

    @abstractmethod
    async def run(self, argv: Sequence[str], stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> Ran:
        """Run a command to its end. Raises Temporary (no connection, deadline) or Permanent (not let in)."""

    @abstractmethod
    def open(self, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        """Run a command as long as the context lasts; it is ended with it."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give connections back; the next call makes new ones."""

    async def script(self, text: str, *arguments: str, stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> Ran:
        """Run a POSIX shell script with ``$1`` … set to ``arguments``: values never become part of the text."""
        return await self.run(["/bin/sh", "-c", text, "hansa", *arguments], stdin, deadline_s)

    async def put(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a small file atomically; nobody else can read it at any moment unless ``mode`` says so."""
        done = await self.script(_PUT, path, f"{mode:o}", stdin=content)
        if done.status != 0:
            raise Temporary(f"{self.name}: {path} cannot be written: {done.complaint}.", 30)

    async def get(self, path: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        done = await self.script('[ -e "$1" ] || exit 44; exec cat -- "$1"', path)
        if done.status == 44:
            return None
        if done.status != 0:
            raise Temporary(f"{self.name}: {path} cannot be read: {done.complaint}.", 30)
        return done.stdout


class ProcessStream:
    """A child process of this one as a Stream."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._said = b""
        self._listener = asyncio.create_task(self._listen())

    async def read(self, limit: int = 65536) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        return await self._process.stdout.read(limit)

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionError, RuntimeError) as error:
            raise Temporary(f"{self._name}: the command is gone: {await self.complaint()}") from error

    async def complaint(self) -> str:
        lines = self._said.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else "it left no word"

    async def end(self) -> None:
        """Close its input, give it a moment, then kill it."""
        with contextlib.suppress(Exception):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 2)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            _let_go(self._process)
            await self._process.wait()
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        _let_go(self._process)

    async def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        while piece := await self._process.stderr.read(4096):
            self._said = (self._said + piece)[-4096:]


async def run_process(
    argv: Sequence[str], stdin: bytes, deadline_s: float, name: str, environment: Mapping[str, str]
) -> Ran:
    """A child process to its end; it is killed at the deadline or when the caller is cancelled."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise Permanent(f"{name}: {argv[0]} cannot be run: {error.strerror}.") from error
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(stdin), deadline_s)
    except TimeoutError as error:
        raise Temporary(f"{name}: no answer within {deadline_s:.0f} s from {argv[0]}.", 15) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            _let_go(process)
            await asyncio.shield(process.wait())
    return Ran(process.returncode or 0, stdout, stderr)


def _let_go(process: asyncio.subprocess.Process) -> None:
    """Close our ends of its pipes: asyncio's ``wait`` waits for their end, too, and an ssh that was killed may have
    given the other ends to the one that holds the connection, for as long as the command there runs."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


@asynccontextmanager
async def open_process(argv: Sequence[str], name: str, environment: Mapping[str, str]) -> AsyncIterator[ProcessStream]:
    """A child process for as long as the context lasts."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise Permanent(f"{name}: {argv[0]} cannot be run: {error.strerror}.") from error
    stream = ProcessStream(process, name)
    try:
        yield stream
    finally:
        await asyncio.shield(stream.end())


_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SHELL", "TMPDIR", "HANSA_TEST_RUN")


class LocalShell(Shell):
    """This computer, as whoever runs the server. Of the environment, commands see only what they need."""

    def __init__(self, environment: Mapping[str, str] | None = None, keep: Sequence[str] = ()) -> None:
        self.name = "this computer"
        kept = {name: os.environ[name] for name in (*_KEPT, *keep) if name in os.environ}
        self._environment = kept | dict(environment or {})

    async def run(self, argv: Sequence[str], stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> Ran:
        return await run_process(argv, stdin, deadline_s, self.name, self._environment)

    def open(self, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        return open_process(argv, self.name, self._environment)


def command_line(argv: Sequence[str]) -> str:
    """The words as one line that a POSIX shell splits into just them: SSH carries a line, not words."""
    return shlex.join(argv)
