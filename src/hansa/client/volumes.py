"""What people do with volumes and snapshots, each once, for the synchronous and the asynchronous client alike."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from hansa.client.api import get, send
from hansa.client.api import post as post_object
from hansa.client.effects import Now, Operation, Pause
from hansa.client.errors import MACHINE_FAILED, TIMED_OUT, USAGE, HansaError, Timeout
from hansa.client.machines import FIRST_PAUSE_S, LONGEST_PAUSE_S
from hansa.client.units import parse_memory
from hansa.machines.volume_wire import (
    AttachVolume,
    MachineVolume,
    NewSnapshot,
    NewVolume,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumePage,
)
from hansa.machines.wire import MachineExplanation

F = TypeVar("F", Volume, Snapshot)
Told = Callable[[str], None]
"""Hears whatever is new, in a sentence."""


def create(new: NewVolume, key: str | None = None) -> Operation[Volume]:
    """Have a volume made. The Idempotency-Key makes it safe to repeat."""
    return (yield from post_object(Volume, "/volumes", new, {"Idempotency-Key": key or uuid.uuid4().hex}))


def volumes(after: str | None = None) -> Operation[VolumePage]:
    return (yield from get(VolumePage, "/volumes", after=after))


def volume(name: str) -> Operation[Volume]:
    return (yield from get(Volume, _path(name)))


def attach(name: str, machine: str, path: str | None = None) -> Operation[Volume]:
    return (yield from send(Volume, "POST", f"{_path(name)}/attach", AttachVolume(machine, path)))


def detach(name: str) -> Operation[Volume]:
    return (yield from send(Volume, "POST", f"{_path(name)}/detach"))


def delete(name: str) -> Operation[Volume]:
    return (yield from send(Volume, "DELETE", _path(name)))


def explain(name: str) -> Operation[MachineExplanation]:
    return (yield from get(MachineExplanation, f"{_path(name)}/explain"))


def take_snapshot(machine: str, new: NewSnapshot | None = None, key: str | None = None) -> Operation[Snapshot]:
    """Have a machine's disk made a version of a VM image. The Idempotency-Key makes it safe to repeat."""
    path = f"/machines/{quote(machine, safe='')}/snapshots"
    return (yield from post_object(Snapshot, path, new or NewSnapshot(), {"Idempotency-Key": key or uuid.uuid4().hex}))


def snapshots(after: str | None = None) -> Operation[SnapshotPage]:
    return (yield from get(SnapshotPage, "/snapshots", after=after))


def snapshot(snapshot_id: str) -> Operation[Snapshot]:
    return (yield from get(Snapshot, f"/snapshots/{quote(snapshot_id, safe='')}"))


def wait(
    volume_id: str, phases: frozenset[str], timeout_s: float | None = None, told: Told | None = None
) -> Operation[Volume]:
    """Follow a volume until it is in one of these phases.

    Raises HansaError ``client.machine_failed`` where it fails, or its machine cannot have it; Timeout when the time is
    over; it goes on.
    """
    return (yield from _follow(lambda: volume(volume_id), phases, timeout_s, told))


def wait_snapshot(snapshot_id: str, timeout_s: float | None = None, told: Told | None = None) -> Operation[Snapshot]:
    """Follow a snapshot until machines can be started of it. Raises as :func:`wait` does."""
    return (yield from _follow(lambda: snapshot(snapshot_id), frozenset({"ready"}), timeout_s, told))


def _follow(
    ask: Callable[[], Operation[F]],
    phases: frozenset[str],
    timeout_s: float | None,
    told: Told | None,
) -> Operation[F]:
    began: float = yield Now()
    pause, before = FIRST_PAUSE_S, ""
    while True:
        found = yield from ask()
        status = found.status
        name = found.name if isinstance(found, Volume) else f"{found.image}@{found.version}"
        if status.message != before:
            pause, before = FIRST_PAUSE_S, status.message
            if told is not None:
                told(f"{name}: {before}")
        if status.phase in phases:
            return found
        if status.phase in ("failed", "deleted") or status.reason == "machines.volume_refused":
            raise HansaError(MACHINE_FAILED, f"{name} is {status.phase}: {before}", id=found.id)
        now: float = yield Now()
        if timeout_s is not None and now - began > timeout_s:
            said = f"{name} is still {status.phase} after {timeout_s:g} s: {before}"
            raise Timeout(TIMED_OUT, said, hint="It goes on.")
        yield Pause(pause)
        pause = min(LONGEST_PAUSE_S, pause * 1.3)


def _path(name: str) -> str:
    return f"/volumes/{quote(name, safe='')}"


def parse_size(text: str) -> int:
    """``10G`` as whole GiB. Raises HansaError ``client.usage``."""
    if text.strip().isdigit():
        raise HansaError(USAGE, f"{text!r} has no unit.", hint=f"{text.strip()}G, or {text.strip()}T")
    return -(-parse_memory(text) // 1024)


def parse_volume(text: str) -> MachineVolume:
    """``SIZE[:PATH]`` for a new volume, ``NAME[:PATH]`` for one that there is. Raises HansaError ``client.usage``."""
    first, _, path = text.partition(":")
    if not first or (path and not path.startswith("/")):
        hint = "--volume 10G, --volume 10G:/data, or --volume NAME:/data"
        raise HansaError(USAGE, f"{text!r} is no volume.", hint=hint)
    if re.match(r"[0-9]", first):
        return MachineVolume(parse_size(first), None, path or None)
    return MachineVolume(None, first, path or None)
