"""One end of a channel: what is said here goes there in pieces, what comes from there is handed on, in order.

Two threads: one speaks, the other listens, each with a request of its own. It works over whatever carries requests:
HTTP, the files of a spool, the client's own connection.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from .protocol import CHANNEL_PIECE_BYTES, ChannelReply, Frame

HOLD_S = 15.0
AGAIN_S = 0.5
PATIENCE_S = 60.0
"""Without an answer for so long the channel is over."""
_CROWDED_BYTES = 2 * 1024 * 1024

Json = Dict[str, Any]
Ask = Callable[[Json, float], ChannelReply]
"""Sends a ChannelRequest; raises :class:`Away` where it may be repeated, :class:`Over` where it may not."""


class Away(Exception):
    """There was no answer."""


class Over(Exception):
    """The channel is closed, or is not there any more."""


class Line:
    """An end. ``hear`` is called from the listening thread with each frame; ``over`` once, with the reason."""

    def __init__(
        self,
        speak: Ask,
        listen: Ask,
        hear: Callable[[Frame], None],
        over: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._speak = speak
        self._listen = listen
        self._hear = hear
        self._over = over
        self._clock = clock
        self._lock = threading.Condition()
        self._out: List[Frame] = []
        self._size = 0
        self._closing: Optional[str] = None
        self._reason: Optional[str] = None
        self._piece = 0

    def start(self) -> None:
        """Start both threads; they end with the channel."""
        for name, run in (("channel-speak", self._run_speaking), ("channel-listen", self._run_listening)):
            threading.Thread(target=run, name=name, daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._reason is not None

    def say(self, kind: str, stream: int = 0, data: bytes = b"") -> None:
        """To the other end. Waits where too much is under way."""
        with self._lock:
            while self._size > _CROWDED_BYTES and self._reason is None:
                self._lock.wait(1.0)
            self._out.append(Frame(kind, stream, base64.b64encode(data).decode("ascii")))
            self._size += len(data) * 4 // 3 + 60
            self._lock.notify_all()

    def close(self, reason: str) -> None:
        """Close it after what was said."""
        with self._lock:
            if self._closing is None:
                self._closing = reason
            self._lock.notify_all()

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            self._lock.notify_all()
        self._over(reason)

    def _run_speaking(self) -> None:
        while self._reason is None:
            with self._lock:
                while not self._out and self._closing is None and not self.is_over:
                    self._lock.wait(1.0)
                if self.is_over:
                    return
                frames, is_last = self._cut(), self._closing is not None and not self._out
                self._lock.notify_all()
            if not self._send(frames, self._closing if is_last else None):
                return
            if is_last:
                self._end(self._closing or "")

    def _cut(self) -> List[Frame]:
        """Take as much as goes into one piece."""
        taken: List[Frame] = []
        size = 0
        while self._out and size < CHANNEL_PIECE_BYTES:
            frame = self._out.pop(0)
            taken.append(frame)
            size += len(frame.data) + 60
        self._size = max(0, self._size - size) if self._out else 0
        return taken

    def _send(self, frames: List[Frame], close: Optional[str]) -> bool:
        """Until it has arrived. False: the channel is over."""
        body: Json = {"wait_s": HOLD_S}
        if frames:
            self._piece += 1
            body["piece"] = self._piece
            body["frames"] = [vars(frame) for frame in frames]
        if close is not None:
            body["close"] = close
        while self._reason is None:
            reply = self._ask(self._speak, body)
            if reply is None:
                return False
            if reply.closed is not None and (close is None or reply.accepted < self._piece):
                self._end(reply.closed)
                return False
            if reply.accepted >= self._piece:
                return True
        return False

    def _run_listening(self) -> None:
        received = 0
        while self._reason is None:
            reply = self._ask(self._listen, {"listen": True, "received": received, "wait_s": HOLD_S})
            if reply is None:
                return
            received = max(received, reply.piece)
            for frame in reply.frames:
                self._hear(frame)
            if reply.closed is not None and not reply.frames:
                self._end(reply.closed)

    def _ask(self, ask: Ask, body: Json) -> Optional[ChannelReply]:
        """An answer, however often it takes; None once the channel is over."""
        since = self._clock()
        while self._reason is None:
            try:
                return ask(body, HOLD_S)
            except Over as error:
                self._end(str(error))
            except Away as error:
                if self._clock() - since > PATIENCE_S:
                    self._end(f"the server does not answer: {error}")
                else:
                    time.sleep(AGAIN_S)
        return None


def bytes_of(frame: Frame) -> bytes:
    """What a frame carries."""
    return base64.b64decode(frame.data)
