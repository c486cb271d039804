"""What people do with machines, each once, for the synchronous and the asynchronous client alike."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from hansa.client import ssh_keys
from hansa.client.api import get, send
from hansa.client.api import post as post_object
from hansa.client.effects import Now, Operation, Pause, Work
from hansa.client.errors import MACHINE_FAILED, TIMED_OUT, HansaError, Timeout
from hansa.machines.wire import (
    ConsoleText,
    Machine,
    MachineChange,
    MachineExplanation,
    MachinePage,
    MachineUsage,
    NewMachine,
    Reboot,
    Resize,
)

Told = Callable[[Machine], None]
"""Hears the machine whenever it has changed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
SETTLED = frozenset({"running", "stopped", "deleted", "failed"})


def create(new: NewMachine, key: str | None = None) -> Operation[Machine]:
    """Have a machine made. The Idempotency-Key makes it safe to repeat."""
    return (yield from post_object(Machine, "/machines", new, {"Idempotency-Key": key or uuid.uuid4().hex}))


def create_with_keys(new: NewMachine, *keys: Path) -> Operation[Machine]:
    """The same, with the public keys of these files, and without any with those of this computer."""

    def read() -> list[str]:
        return [*new.ssh_keys, *ssh_keys.public_keys(keys)]

    found: list[str] = yield Work(read)
    return (yield from create(replace(new, ssh_keys=list(dict.fromkeys(found)))))


def machines(after: str | None = None, site: str | None = None, deleted: bool = False) -> Operation[MachinePage]:
    return (yield from get(MachinePage, "/machines", after=after, site=site, deleted="true" if deleted else None))


def machine(name: str) -> Operation[Machine]:
    return (yield from get(Machine, _path(name)))


def change(name: str, changed: MachineChange) -> Operation[Machine]:
    return (yield from send(Machine, "PATCH", _path(name), changed))


def delete(name: str) -> Operation[Machine]:
    return (yield from send(Machine, "DELETE", _path(name)))


def stop(name: str) -> Operation[Machine]:
    return (yield from send(Machine, "POST", f"{_path(name)}/stop"))


def start(name: str) -> Operation[Machine]:
    return (yield from send(Machine, "POST", f"{_path(name)}/start"))


def reboot(name: str, *, hard: bool = False) -> Operation[Machine]:
    return (yield from send(Machine, "POST", f"{_path(name)}/reboot", Reboot(hard), repeatable=False))


def resize(name: str, size: Resize) -> Operation[Machine]:
    return (yield from send(Machine, "POST", f"{_path(name)}/resize", size))


def console(name: str, lines: int) -> Operation[ConsoleText]:
    return (yield from get(ConsoleText, f"{_path(name)}/console", lines=lines))


def usage(name: str) -> Operation[MachineUsage]:
    return (yield from get(MachineUsage, f"{_path(name)}/usage"))


def explain(name: str) -> Operation[MachineExplanation]:
    return (yield from get(MachineExplanation, f"{_path(name)}/explain"))


def wait(
    machine_id: str,
    phases: frozenset[str] = SETTLED,
    timeout_s: float | None = None,
    told: Told | None = None,
) -> Operation[Machine]:
    """Follow a machine until it is in one of these phases.

    Raises HansaError ``client.machine_failed`` where it fails instead, Timeout when the time is over; it goes on.
    """
    began: float = yield Now()
    pause, before = FIRST_PAUSE_S, ""
    while True:
        found = yield from machine(machine_id)
        if told is not None and found.status.message != before:
            told(found)
        if found.status.message != before:
            pause = FIRST_PAUSE_S
        before = found.status.message
        phase = found.status.phase
        if phase in phases:
            return found
        if phase in ("failed", "deleted"):
            hint = f"hansa machine explain {found.name}"
            raise HansaError(MACHINE_FAILED, f"{found.name} is {phase}: {before}", hint=hint, machine=found.id)
        now: float = yield Now()
        if timeout_s is not None and now - began > timeout_s:
            raise Timeout(
                TIMED_OUT,
                f"{found.name} is still {phase} after {timeout_s:g} s: {before}",
                hint=f"It goes on: hansa machine show {found.name}",
            )
        yield Pause(pause)
        pause = min(LONGEST_PAUSE_S, pause * 1.3)


def _path(name: str) -> str:
    return f"/machines/{quote(name, safe='')}"
