"""Processes of machines and switches: started so that they go on by themselves, found again by their words, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers.qemu.store import process_of

_START_S = 60.0


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def detached(argv: list[str], folder: Path) -> None:
    """Run a program until it has detached itself. Raises Temporary with its words."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Permanent(f"{argv[0]} is not installed (QEMU's: apt install qemu-system-x86).") from error
    try:
        _, said = await asyncio.wait_for(process.communicate(), _START_S)
    except TimeoutError as error:
        raise Temporary(f"{argv[0]} did not start within {_START_S:.0f} s.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Temporary(f"{argv[0]} did not start: {said.decode('utf-8', 'replace').strip()[-300:]}")


async def until_gone(folder: Path, patience_s: float) -> None:
    end = asyncio.get_running_loop().time() + patience_s
    while process_of(folder) is not None and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.1)


async def end(folder: Path) -> None:
    """No process of this folder runs any more."""
    pid = process_of(folder)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await until_gone(folder, 20)
    if process_of(folder) is not None:
        raise Temporary(f"The process {pid} does not end.")


def kill_all(folder: Path) -> None:
    """End every process that was started with this folder in its words."""
    for pid, named in _named(folder):
        if folder in named or any(folder in one.parents for one in named):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def strays(root: Path) -> list[int]:
    """Processes of folders below ``root`` which are not there any more."""
    return [pid for pid, named in _named(root) if not any(path.exists() for path in named)]


def _named(root: Path) -> Iterator[tuple[int, list[Path]]]:
    """Processes with paths at or below ``root`` among their words."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found = [
                    Path(os.fsdecode(word)) for word in words if (word + b"/").startswith(os.fsencode(root) + b"/")
                ]
                if found:
                    yield int(entry.name), found
