"""QEMU's machine protocol: one conversation at a time, each short."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hansa.kernel.errors import Temporary

SOCKET = "qmp"
_DEADLINE_S = 20.0


class QmpError(Temporary):
    """It said no, in its own words."""


class Qmp:
    """A conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; events in between are passed over. Raises QmpError."""
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        await self._writer.drain()
        while True:
            line = await self._reader.readline()
            if not line:
                raise QmpError(f"QEMU ended during {command}.")
            said = json.loads(line)
            if "return" in said:
                return said["return"]
            if "error" in said:
                raise QmpError(f"QEMU, asked for {command}: {said['error'].get('desc', 'no')}.")


@asynccontextmanager
async def talk(folder: Path) -> AsyncIterator[Qmp]:
    """A conversation with the QEMU whose socket is in a folder. Raises QmpError where there is none."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # paths of sockets have at most 107 bytes: this one is short
    writer = None
    try:
        async with asyncio.timeout(_DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{fd}/{SOCKET}", limit=4 * 1024**2)
            await reader.readline()
            qmp = Qmp(reader, writer)
            await qmp.ask("qmp_capabilities")
            yield qmp
    except (OSError, TimeoutError) as error:
        raise QmpError("QEMU does not answer.") from error
    finally:
        os.close(fd)
        if writer is not None:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
