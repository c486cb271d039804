"""Couriers carry requests to the server: each repeats its request until it is answered."""

from __future__ import annotations

import queue
import random
import threading
from dataclasses import dataclass, field
from typing import Callable, List, Optional, Protocol

from .backoff import Backoff
from .outbox import Parcel
from .protocol import ExchangeReply
from .transport import Refused, Unreachable
from .wire import WireError, encode, parse_reply

ANSWER_TIMEOUT_S = 30.0
"""How long an answer may take beyond the time for which the server was asked to hold it."""


class Poster(Protocol):
    """What a courier needs of the transport."""

    def post(self, path: str, body: bytes, timeout_s: float) -> bytes: ...
    def interrupt(self) -> None: ...


@dataclass
class Report:
    """What a courier tells the agent: an answer, a refusal, or that an attempt failed (and will be
    repeated)."""

    parcel: Parcel
    reply: Optional[ExchangeReply] = None
    refused: Optional[Refused] = None
    problem: str = ""


@dataclass
class Nudge:
    """Lets a courier that got through end the other's back-off."""

    events: List[threading.Event] = field(default_factory=list)

    def all(self) -> None:
        for event in self.events:
            event.set()


class Courier(threading.Thread):
    """One thread with one connection. ``tell`` is called from it and must be thread-safe."""

    def __init__(
        self,
        name: str,
        path: str,
        transport: Poster,
        tell: Callable[[Report], None],
        nudge: Nudge,
        rng: random.Random,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._path = path
        self._transport = transport
        self._tell = tell
        self._nudge = nudge
        self._woken = threading.Event()
        nudge.events.append(self._woken)
        self._backoff = Backoff(rng)
        self._inbox: queue.SimpleQueue[Optional[Parcel]] = queue.SimpleQueue()
        self._ended = False

    def carry(self, parcel: Parcel) -> None:
        """Deliver it, however long it takes. One at a time."""
        self._inbox.put(parcel)

    def end(self) -> None:
        """Give up what is under way."""
        self._ended = True
        self._woken.set()
        self._inbox.put(None)
        self._transport.interrupt()

    def run(self) -> None:
        while not self._ended:
            parcel = self._inbox.get()
            if parcel is None:
                return
            report = self._deliver(parcel)
            if report is not None:
                self._tell(report)

    def _deliver(self, parcel: Parcel) -> Optional[Report]:
        body = encode(parcel.body)
        timeout_s = float(parcel.body.get("wait_s", 0.0)) + ANSWER_TIMEOUT_S
        while not self._ended:
            self._woken.clear()
            try:
                reply = parse_reply(self._transport.post(self._path, body, timeout_s))
            except Refused as error:
                if error.is_gone:
                    return Report(parcel, refused=error)
                problem = str(error)
            except (Unreachable, WireError) as error:
                problem = str(error)
            except Exception as error:  # whatever it is: a courier that stops is a pilot that is lost
                problem = f"{type(error).__name__}: {error}"
            else:
                self._backoff.reset()
                self._nudge.all()
                return Report(parcel, reply=reply)
            self._tell(Report(parcel, problem=problem))
            self._woken.wait(self._backoff.next_s())
        return None
