"""The Protocol of batch drivers: what starts pilots at a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from hansa.kernel.errors import Permanent, Temporary

__all__ = ["BatchDriver", "Life", "LoginLapsed", "Permanent", "PilotOrder", "Seen", "Temporary"]


class LoginLapsed(Temporary):
    """A person must sign in again; the message says how. Nothing is lost meanwhile."""


class Life(StrEnum):
    """Whether a pilot lives, as the batch system knows it."""

    ABSENT = "absent"
    """Never started here, or cleaned up."""
    QUEUED = "queued"
    """The batch system has it, but has not started it."""
    ALIVE = "alive"
    ENDED = "ended"


@dataclass(frozen=True)
class Seen:
    """What the batch system says of a pilot, in its own words."""

    life: Life
    message: str = ""
    is_blameless: bool = False
    """It ended for a reason that none of its tasks has: pre-empted, its node failed, its time was over."""
    listened_s: float | None = None
    """For how long it could have been heard; None: always. Before that, its silence means nothing."""
    unborn_s: float | None = None
    """Of one that is queued: how long ago it was seen without any process. None: it may have one that is suspended."""
    batch_id: str = ""
    """Its number in the batch system, for people."""
    script: str = ""
    """What the batch system was given, told once after the start."""
    again_s: float = 5.0
    """How soon a further look tells more."""


@dataclass(frozen=True)
class PilotOrder:
    """A pilot to start. ``pilot_id`` is the idempotency key: at most one lives, however often it is asked for.

    ``token`` goes to the node in a 0600 file or on stdin, never in argv or the environment.
    """

    pilot_id: str
    token: str
    cores: int
    memory_mib: int
    gpus: list[str]
    idle_timeout_s: float
    wall_time_s: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """For the site's administrator: whose it is (``user``, ``vo``, ``job``)."""
    nodes: int = 1
    """Computers that it has at the same time; cores, memory and GPUs are those of each."""
    is_whole: bool = False
    """Whether nobody else's work may be on its nodes."""
    options: tuple[str, ...] = ()
    """For the batch system, a word each: of the site, the VO and the job."""


class BatchDriver(Protocol):
    """Starts and stops pilots. Every call may be repeated; errors are Temporary or Permanent."""

    async def start(self, order: PilotOrder) -> Seen:
        """See to it that the pilot lives, or waits to. Already there is fine."""

    async def observe(self, pilot_id: str) -> Seen:
        """What has become of it."""

    async def cancel(self, pilot_id: str) -> None:
        """Stop it with all its tasks. Absent is fine."""

    async def clean(self, pilot_id: str) -> None:
        """Remove what it left behind, once it has ended. Absent is fine."""
