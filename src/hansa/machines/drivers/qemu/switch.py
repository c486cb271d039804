"""A private network without root: a small learning switch on a Unix socket, for QEMU's ``-netdev stream``.

``python -m hansa.machines.drivers.qemu.switch SOCKET``: standard library only. A frame comes with its length before it
(four bytes, big-endian). Who may open the socket is in the network: its folder is its owner's alone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from pathlib import Path

_MOST_FRAME = 70_000
_MOST_WAITING = 4 * 1024**2
_LEARNT = 4096


class Switch:
    """Frames go to the port behind which their address was seen, else to all others."""

    def __init__(self) -> None:
        self._ports: set[asyncio.StreamWriter] = set()
        self._seen: dict[bytes, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, port: asyncio.StreamWriter) -> None:
        """One machine, as long as it is there."""
        self._ports.add(port)
        try:
            while True:
                (length,) = struct.unpack(">I", await reader.readexactly(4))
                if not 14 <= length <= _MOST_FRAME:
                    return
                self._pass_on(await reader.readexactly(length), port)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._ports.discard(port)
            self._seen = {address: other for address, other in self._seen.items() if other is not port}
            port.close()

    def _pass_on(self, frame: bytes, source: asyncio.StreamWriter) -> None:
        if len(self._seen) < _LEARNT:
            self._seen[frame[6:12]] = source
        known = None if frame[0] & 1 else self._seen.get(frame[:6])
        for port in [known] if known is not None else list(self._ports):
            # A machine that does not read loses frames, as on any wire.
            if port is not source and port.transport.get_write_buffer_size() < _MOST_WAITING:
                port.write(struct.pack(">I", len(frame)) + frame)


async def serve(listener: socket.socket) -> None:
    server = await asyncio.start_unix_server(Switch().serve, sock=listener)
    async with server:
        await server.serve_forever()


def main(path: str) -> None:
    """Listen, then go on alone: who started it waits until the socket is there. Its number is in the file ``pid``."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    child = os.fork()
    if child:
        Path("pid").write_text(str(child), encoding="ascii")
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    asyncio.run(serve(listener))


if __name__ == "__main__":
    main(sys.argv[1])
