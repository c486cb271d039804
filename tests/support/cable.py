"""A cable between pilots and a server that can be cut, in either direction.

What is on its way when it is cut waits, as TCP would send it again; what is cut for long makes the ends give up by
their own time-outs. No end is told anything.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

_PIECE = 65536
UP, DOWN = "up", "down"


class Cable:
    """Forwards connections to ``port`` of this computer. ``cut`` names the directions in which nothing passes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.cut: frozenset[str] = frozenset()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._pairs: dict[socket.socket, tuple[socket.socket, str]] = {}
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._door.getsockname()[1])

    def stop(self) -> None:
        self._is_over = True
        self._thread.join()
        for one in [self._door, *self._pairs]:
            one.close()

    def _run(self) -> None:
        while not self._is_over:
            with selectors.DefaultSelector() as selector:
                if UP not in self.cut:
                    selector.register(self._door, selectors.EVENT_READ)
                for one, (_, way) in self._pairs.items():
                    if way not in self.cut:
                        selector.register(one, selectors.EVENT_READ)
                ready = {key.fd for key, _ in selector.select(0.05)}
            if self._door.fileno() in ready:
                self._accept()
            for source in [one for one in self._pairs if one.fileno() in ready]:
                if source in self._pairs:
                    self._pass(source)

    def _accept(self) -> None:
        near, _ = self._door.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = (far, UP), (near, DOWN)

    def _pass(self, source: socket.socket) -> None:
        target, _ = self._pairs[source]
        with contextlib.suppress(OSError):
            data = source.recv(_PIECE)
            if data:
                target.sendall(data)
                return
        for one in (source, target):
            self._pairs.pop(one, None)
            one.close()
