"""Phases of a machine, which of them follow which, and what is to be done about one now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.kernel.reconcile import Act, Settle
from hansa.kernel.status import Party
from hansa.machines.drivers.base import Guest, Life, Observed
from hansa.placement import failover
from hansa.placement.failover import Course, Try

CREATE, DELETE, TRIM = "create", "delete", "trim"
STOP, START, REBOOT, RESIZE = "stop", "start", "reboot", "resize"
ADDRESS, PORTS = "address", "ports"

WARN_BEFORE = timedelta(days=1)
KEEP_STOPPED = timedelta(days=7)
"""How long a machine whose time is over stays, stopped, before it is deleted."""
LOOK_S, WATCH_S, POLL_S, SLOW_POLL_S = 60.0, 120.0, 0.2, 5.0
"""Seconds between looks: at one that runs; for how long a new one is watched for duplicates at that pace; at one that
something is under way with, at first and later."""
QUIET_S = 300.0
"""Seconds between looks at one that has run for long, or is stopped."""
MISSING_S = 60.0
"""A machine that its provider does not know counts as lost after so long: lists of clouds are not always complete."""


class Phase(StrEnum):
    """Where a machine is in its life."""

    WAITING = "waiting"
    """For its image, for a grant, or for a site: ``waiting_on`` says for whom."""
    CREATING = "creating"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    RESIZING = "resizing"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    """It came to nothing, or is lost. It stays to be looked at until it is deleted."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (Phase.RUNNING, Phase.STOPPED, Phase.DELETED, Phase.FAILED)


_P = Phase
_ALIVE = frozenset({_P.RUNNING, _P.STOPPING, _P.STOPPED, _P.STARTING, _P.RESIZING})
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    _P.WAITING: frozenset({_P.CREATING, _P.FAILED, _P.DELETING, _P.DELETED}),
    _P.CREATING: frozenset({_P.RUNNING, _P.STOPPED, _P.WAITING, _P.FAILED, _P.DELETING, _P.DELETED}),
    **{one: (_ALIVE - {one}) | {_P.CREATING, _P.FAILED, _P.DELETING} for one in _ALIVE},
    _P.DELETING: frozenset({_P.DELETED}),
    _P.DELETED: frozenset(),
    _P.FAILED: _ALIVE | {_P.CREATING, _P.DELETING, _P.DELETED},  # it may recover, or be made anew
}
"""What may follow what; staying where it is always may."""


class Wanted(StrEnum):
    """What its owner wants it to be."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


@dataclass(frozen=True)
class Machine:
    """What decides about a machine."""

    id: str
    phase: Phase
    wanted: Wanted
    course: Course
    created: datetime
    since: datetime
    expires: datetime | None = None
    warned: bool = False
    restart: bool = False
    public: bool = False
    wants_ports: bool = False
    """Ports are to be opened that are not yet."""
    resize_to: str | None = None
    """The flavour, or size in words, that it shall have and has not."""
    reboots: int = 0
    """How many are asked for and not done."""
    missing_since: datetime | None = None
    running_since: datetime | None = None
    site_ends: datetime | None = None
    """When its site's policy has it deleted, whatever its owner wants."""

    @property
    def place(self) -> str | None:
        """Where it is, or is being made."""
        return self.course.current.place if self.course.current else None


@dataclass(frozen=True)
class Seen:
    """What was seen of it where it should be. ``machine`` None: nothing there."""

    machine: Observed | None = None
    image_wait: str | None = None
    """Why its image cannot be used there yet; None: it can."""
    image_over: str | None = None
    """Why it is not waited for any longer, and what to do; None: it is."""


@dataclass(frozen=True)
class Turn(Settle):
    """A decision: nothing is to be done in the world; the phase or other columns change. ``phase`` None: it stays."""

    phase: Phase | None = None
    message: str = ""
    waiting_on: Party = Party.NOBODY
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Columns; ``course`` is a :class:`Course`."""
    starts_at: str | None = None
    """A place where it is about to be made: for grants and reservations."""


def decide(machine: Machine, seen: Seen, now: datetime) -> Act | Settle:
    """The next step of a machine, and why."""
    if machine.phase is Phase.DELETED:
        return Settle("machines.deleted")
    if machine.wanted is Wanted.DELETED:
        return _remove(machine, now)
    if (turn := _of_site(machine, now) or _of_time(machine, now)) is not None:
        return turn
    current = machine.course.current
    if current is None:
        return _place(machine, now)
    if current.state is Try.STARTING:
        return _bring_up(machine, seen, now)
    return _keep(machine, seen, now)


def _remove(machine: Machine, now: datetime) -> Act | Settle:
    """Everywhere where something of it may be. Places are cleaned one after the other, failures tried again."""
    course = machine.course
    if course.current is not None:
        course = failover.has_failed(course, course.current.place, "deleted")
        return _turn("machines.deleting", now, Phase.DELETING, "It is being deleted.", Party.HANSA, {"course": course})
    dirty = [one for one in course.attempts if not one.is_clean]
    if not dirty:
        return _turn("machines.deleted", None, Phase.DELETED, "It is deleted.", changes={"ended": now})
    due = [one for one in dirty if one.clean_after is None or one.clean_after <= now]
    if due:
        return Act(DELETE, "machines.deleting", {"place": due[0].place})
    return Settle("machines.deleting", min(one.clean_after for one in dirty if one.clean_after is not None))


def _of_site(machine: Machine, now: datetime) -> Turn | None:
    """What the policy of its site asks for, which rules over its owner: a warning, and its deletion."""
    current, ends = machine.course.current, machine.site_ends
    if current is None or ends is None:
        return None
    site = site_of(current.place)
    if now >= ends:
        said = f"{site} lets no machine live longer than until {ends:%Y-%m-%d %H:%M} UTC: it is deleted."
        return _turn("machines.site_ended", now, None, said, changes={"wanted": Wanted.DELETED.value})
    is_first = machine.expires is None or ends < machine.expires
    if is_first and not machine.warned and now >= _warn_at(current.since, ends):
        said = f"{site} deletes it on {ends:%Y-%m-%d %H:%M} UTC: it lets no machine live longer."
        return _turn("machines.site_ends_soon", now, None, said, Party.USER, {"warned": True})
    return None


def _of_time(machine: Machine, now: datetime) -> Turn | None:
    """What its end asks for: a warning, a stop, and later its deletion."""
    expires = machine.expires
    if expires is None:
        return None
    gone = expires + KEEP_STOPPED
    if now >= gone:
        said = f"Its time was over on {expires:%Y-%m-%d}; it is deleted."
        return _turn("machines.expired", now, None, said, changes={"wanted": Wanted.DELETED.value})
    if machine.phase is Phase.FAILED:
        return None
    if now >= expires and machine.wanted is Wanted.RUNNING:
        said = f"Its time is over: it is stopped, and deleted on {gone:%Y-%m-%d}. To keep it: hansa machine extend."
        return _turn("machines.expired", now, None, said, Party.USER, {"wanted": Wanted.STOPPED.value})
    if not machine.warned and now >= _warn_at(machine.created, expires):
        said = f"It will be stopped on {expires:%Y-%m-%d %H:%M} UTC. To keep it longer: hansa machine extend."
        return _turn("machines.expires_soon", now, None, said, Party.USER, {"warned": True})
    return None


def _warn_at(created: datetime, expires: datetime) -> datetime:
    """A day before; of a short life when three quarters of it are over."""
    return expires - min(WARN_BEFORE, (expires - created) / 4)


def _place(machine: Machine, now: datetime) -> Act | Settle:
    """It is nowhere: the next place, or the end of it. What was left behind elsewhere is removed."""
    if machine.phase is Phase.FAILED:
        return _clean_up(machine, now) or Settle("machines.failed", None)
    steps = failover.decide(machine.course, now)
    start = next((step for step in steps if isinstance(step, failover.Start)), None)
    if start is not None:
        course = failover.has_started(machine.course, start.place, now)
        site = site_of(start.place)
        said = f"It is being created at {site}."
        if machine.course.causes:
            said += f" Before: {'; '.join(machine.course.causes)}."
        return replace(
            _turn("machines.creating", now, Phase.CREATING, said, Party.SITE, {"course": course}),
            starts_at=start.place,
        )
    return _turn("machines.no_place", now, Phase.FAILED, failover.summary(machine.course), Party.USER, {"ended": None})


def _clean_up(machine: Machine, now: datetime) -> Act | Settle | None:
    """Remove what a failed attempt may have left; None: nothing is left."""
    dirty = [one for one in machine.course.attempts if one.state is Try.FAILED and not one.is_clean]
    due = [one for one in dirty if one.clean_after is None or one.clean_after <= now]
    if due:
        return Act(DELETE, "machines.cleaning", {"place": due[0].place})
    later = [one.clean_after for one in dirty if one.clean_after is not None]
    return Settle("machines.cleaning", min(later)) if later else None


def _bring_up(machine: Machine, seen: Seen, now: datetime) -> Act | Settle:
    """It is being made at a place: until it runs, or its time there is over."""
    course = machine.course
    current = course.current
    assert current is not None  # noqa: S101 - asked by decide
    found, site = seen.machine, site_of(current.place)
    if found is not None and found.life is Life.FAILED:
        return _gave_up(course, f"{found.message or 'It could not be built'}", now)
    age_s = (now - current.since).total_seconds()
    is_up = found is not None and found.life in (Life.RUNNING, Life.STOPPED)
    if age_s >= course.timeout_s and not is_up:
        return _gave_up(course, f"It did not start within {course.timeout_s:,.0f} s", now)
    if not is_up and isinstance(act := _clean_up(machine, now), Act):
        return act
    if found is None:
        if seen.image_over is not None:
            return _no_image(course, seen.image_over, now)
        if seen.image_wait is not None:
            again = now + timedelta(seconds=SLOW_POLL_S)
            return _turn("machines.image_wait", again, Phase.CREATING, seen.image_wait, Party.HANSA)
        return Act(CREATE, "machines.creating", {"place": current.place})
    if found.surplus:
        return Act(TRIM, "machines.surplus", {"place": current.place})
    if not is_up:
        said = f"{site} is building it{f': {found.message}' if found.message else '.'}"
        return _turn("machines.building", _soon(now, age_s), Phase.CREATING, said, Party.SITE)
    if (act := _equip(machine, found, current.place)) is not None:
        return act
    return _is_up(machine, failover.has_succeeded(course, current.place), found, now)


def _is_up(machine: Machine, course: Course, found: Observed, now: datetime) -> Settle:
    changes: dict[str, Any] = {"course": course, "missing_since": None}
    if machine.running_since is None:
        changes["running_since"] = now
    again = now if found.life is Life.STOPPED else now + timedelta(seconds=LOOK_S)
    if found.guest is Guest.BOOTING:
        again = min(again, _soon(now, 0))
    return replace(_running(machine, found, again, now), changes=changes)


def _equip(machine: Machine, found: Observed, place: str) -> Act | None:
    """What a machine gets after it was made."""
    if machine.public and not found.public:
        return Act(ADDRESS, "machines.address", {"place": place})
    if machine.wants_ports:
        return Act(PORTS, "machines.ports", {"place": place})
    return None


def _gave_up(course: Course, cause: str, now: datetime) -> Turn:
    """The attempt has failed; what it may have left is removed while the next one is on."""
    current = course.current
    assert current is not None  # noqa: S101 - asked by the caller
    course = failover.has_failed(course, current.place, cause)
    said = f"At {site_of(current.place)}: {cause.rstrip('.')}."
    return _turn("machines.attempt_failed", now, None, said, Party.HANSA, {"course": course})


def _no_image(course: Course, cause: str, now: datetime) -> Turn:
    """No other site would do better without its image: this is the end of it."""
    current = course.current
    assert current is not None  # noqa: S101 - asked by the caller
    course = failover.has_failed(course, current.place, cause)
    course = replace(course, limit=len(course.attempts))
    return _turn("machines.no_image", now, Phase.FAILED, cause, Party.USER, {"course": course})


def _keep(machine: Machine, seen: Seen, now: datetime) -> Act | Settle:
    """It is there: make it as it is wanted, and look after it."""
    place, found = machine.place, seen.machine
    assert place is not None  # noqa: S101 - asked by decide
    if found is None:
        return _missing(machine, now)
    if found.surplus:
        return Act(TRIM, "machines.surplus", {"place": place})
    if found.life is Life.FAILED:
        return _broken(machine, found, now)
    if machine.phase is Phase.FAILED and found.life is Life.RUNNING:
        return _running(machine, found, now, now)
    if found.life in (Life.BUILDING, Life.CHANGING, Life.DELETING):
        age_s = (now - machine.since).total_seconds()
        return _turn("machines.changing", _soon(now, age_s), None, found.message or "Something is under way there.")
    if machine.resize_to is not None:
        if machine.phase is not Phase.RESIZING:
            return _turn("machines.resizing", now, Phase.RESIZING, f"It becomes {machine.resize_to}.", Party.SITE)
        return Act(RESIZE, "machines.resizing", {"place": place, "to": machine.resize_to})
    if machine.wanted is Wanted.STOPPED:
        return _to_stop(machine, found, place, now)
    return _to_run(machine, found, place, now)


def _to_stop(machine: Machine, found: Observed, place: str, now: datetime) -> Act | Settle:
    if found.life is Life.STOPPED:
        again = now + timedelta(seconds=QUIET_S)
        reason, said = "machines.stopped", "It is stopped."
        if machine.expires is not None and now >= machine.expires:
            reason = "machines.expired"
            said = f"It is stopped, as its time is over; it is deleted on {machine.expires + KEEP_STOPPED:%Y-%m-%d}."
        return _turn(reason, _before_its_end(machine, again, now), Phase.STOPPED, said, changes={"missing_since": None})
    if machine.phase is not Phase.STOPPING:
        return _turn("machines.stopping", now, Phase.STOPPING, "It is being stopped.", Party.SITE)
    return Act(STOP, "machines.stopping", {"place": place})


def _to_run(machine: Machine, found: Observed, place: str, now: datetime) -> Act | Settle:
    if found.life is Life.STOPPED:
        if machine.phase is Phase.RUNNING and not machine.restart:
            said = "It has stopped by itself, or somebody did at its site. To start it: hansa machine start."
            return _turn("machines.stopped_itself", now, None, said, Party.USER, {"wanted": Wanted.STOPPED.value})
        if machine.phase is not Phase.STARTING:
            return _turn("machines.starting", now, Phase.STARTING, "It is being started.", Party.SITE)
        return Act(START, "machines.starting", {"place": place})
    if machine.reboots:
        return Act(REBOOT, "machines.rebooting", {"place": place})
    if (act := _equip(machine, found, place)) is not None:
        return act
    if isinstance(clean := _clean_up(machine, now), Act):
        return clean
    # A duplicate of a lost answer may appear late, and a first boot takes a while: a new machine is looked at more.
    age_s = (now - (machine.running_since or now)).total_seconds()
    # One that shall be started again when it fails is looked at each minute as long as it lives.
    again = now + timedelta(seconds=LOOK_S if age_s < WATCH_S or machine.restart else QUIET_S)
    if found.guest is Guest.BOOTING:
        again = _soon(now, age_s)
    return replace(_running(machine, found, again, now), changes={"missing_since": None})


def _running(machine: Machine, found: Observed, again: datetime, now: datetime) -> Turn:
    site = site_of(machine.place or "")
    again = _before_its_end(machine, again, now)
    if found.guest is Guest.FAILED:
        said = f"It runs at {site}, but its first boot failed: {found.guest_message or 'it does not say why'}"
        return _turn("machines.guest_failed", again, Phase.RUNNING, said, Party.USER)
    if found.guest is Guest.BOOTING:
        return _turn("machines.booting", again, Phase.RUNNING, f"It runs at {site}, and cloud-init is at work.")
    return _turn("machines.running", again, Phase.RUNNING, f"It runs at {site}.")


def _missing(machine: Machine, now: datetime) -> Act | Settle:
    """Its provider does not know it: perhaps for a moment, perhaps it is lost."""
    site = site_of(machine.place or "")
    if machine.missing_since is None:
        again = now + timedelta(seconds=MISSING_S / 4)
        return _turn("machines.missing", again, None, f"{site} does not know it now.", changes={"missing_since": now})
    if (now - machine.missing_since).total_seconds() < MISSING_S:
        return Settle("machines.missing", now + timedelta(seconds=MISSING_S / 4))
    if machine.restart:
        return _again(machine, f"{site} has lost it; it is created anew.", now)
    return _lost(machine, f"{site} does not know it any more: somebody deleted it there, or it is lost.", now)


def _broken(machine: Machine, found: Observed, now: datetime) -> Act | Settle:
    said = found.message or "its site says that it has failed"
    if machine.restart:
        return Act(DELETE, "machines.restarting", {"place": machine.place, "why": said})
    again = now + timedelta(seconds=QUIET_S)
    said = f"It has failed: {said.rstrip('.')}. Its disk may be left there until you delete it."
    return _turn("machines.broken", _before_its_end(machine, again, now), Phase.FAILED, said, Party.USER)


def _lost(machine: Machine, said: str, now: datetime) -> Turn:
    course = failover.has_failed(machine.course, machine.place or "", said)
    return _turn("machines.lost", now, Phase.FAILED, said, Party.USER, {"course": course})


def _again(machine: Machine, said: str, now: datetime) -> Turn:
    """At the same place, anew."""
    changes = {"course": restarted(machine.course, now), "missing_since": None, "running_since": None}
    return _turn("machines.restarting", now, Phase.CREATING, said, Party.SITE, changes)


def restarted(course: Course, now: datetime) -> Course:
    """The same place is tried again, as if for the first time."""
    current = course.current
    assert current is not None  # noqa: S101 - it was there
    attempts = tuple(
        replace(one, state=Try.STARTING, since=now) if one.place == current.place else one for one in course.attempts
    )
    return replace(course, attempts=attempts)


def site_of(place: str) -> str:
    """The site of a place, which is ``SITE`` or ``SITE/ENDPOINT``."""
    return place.partition("/")[0]


def _soon(now: datetime, age_s: float) -> datetime:
    """When to look again at something under way: at first often, then less."""
    return now + timedelta(seconds=min(SLOW_POLL_S, max(POLL_S, age_s / 20)))


def _before_its_end(machine: Machine, again: datetime, now: datetime) -> datetime:
    """Not later than the next thing that its end asks for."""
    ends: list[datetime] = []
    if machine.expires is not None:
        ends += [_warn_at(machine.created, machine.expires), machine.expires, machine.expires + KEEP_STOPPED]
    if machine.site_ends is not None and machine.course.current is not None:
        ends += [_warn_at(machine.course.current.since, machine.site_ends), machine.site_ends]
    return min([again, *(end for end in ends if now < end < again)])


def _turn(
    reason: str,
    due_at: datetime | None,
    phase: Phase | None,
    message: str,
    waiting_on: Party = Party.NOBODY,
    changes: Mapping[str, Any] | None = None,
) -> Turn:
    return Turn(reason, due_at, phase, message, waiting_on, changes or {})
