"""A provider in memory, for scale and for tests: quick, honest, and as faulty as its script says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from hansa.machines.drivers.base import (
    PROTOCOLS,
    Can,
    Capabilities,
    Guest,
    Key,
    Life,
    MachineSpec,
    Meter,
    Observed,
    Opening,
    Progress,
    Refused,
    Size,
    Snapshot,
    Ssh,
    Temporary,
    Volume,
    Why,
    adopt,
    check,
)


class Fault(StrEnum):
    """What may go wrong at the next creation."""

    AWAY = "away"
    """Nothing is made, and it says so: try later."""
    LOST_ANSWER = "lost answer"
    """The machine is made; the answer never comes."""
    DUPLICATE = "duplicate"
    """The machine is made twice, as by two processes at once; the answer never comes."""
    LATE = "late"
    """The answer never comes, and the machine appears only when the next one looks for the second time."""
    QUOTA = "quota"
    NO_HOST = "no host"
    FAILS = "fails"
    """It is taken, and then fails to build."""
    GUEST_FAILS = "guest fails"
    """It runs, and its first boot fails inside."""


@dataclass
class _Machine:
    key: Key
    spec: MachineSpec
    seen: Observed
    ready_at: float
    openings: tuple[Opening, ...] = ()
    hidden_looks: int = 0


@dataclass
class FakeCloud:
    """What the provider has: outlives drivers, as a cloud outlives the server of Hansa."""

    build_s: float = 0.0
    """How long a machine is building."""
    latency_s: float = 0.0
    """How long each call takes."""
    quota: int | None = None
    faults: list[Fault] = field(default_factory=list)
    """For the next creations, one each."""
    machines: dict[str, _Machine] = field(default_factory=dict)
    keyed: dict[Key, list[str]] = field(default_factory=dict)
    """Ids of all that was ever made for a key."""
    volumes: dict[Key, Volume] = field(default_factory=dict)
    addresses: dict[Key, str] = field(default_factory=dict)
    snapshots: dict[Key, Snapshot] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)
    calls: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def number(self) -> int:
        return next(self._numbers)

    def lose(self, key: Key) -> None:
        """A machine is gone, and nobody of ours did it."""
        for one in self.of(key):
            del self.machines[one.seen.provider_id]

    def set_life(self, key: Key, life: Life, message: str = "") -> None:
        """Whatever happens at a provider."""
        for one in self.of(key):
            one.seen = replace(one.seen, life=life, message=message)

    def of(self, key: Key) -> list[_Machine]:
        known = [self.machines.get(provider_id) for provider_id in self.keyed.get(key, ())]
        return [one for one in known if one is not None]


class FakeMachines:
    """A driver of a :class:`FakeCloud`. ``before``: called with the name of each call; it may raise, or end it all."""

    def __init__(self, cloud: FakeCloud | None = None, before: Callable[[str], None] = lambda _call: None) -> None:
        self.cloud = cloud or FakeCloud()
        self._before = before

    def capabilities(self) -> Capabilities:
        return Capabilities(
            frozenset({*PROTOCOLS, Can.GPUS} - {Can.IMAGES}), user_data_bytes=65_535, note="Nothing really runs."
        )

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        await self._call("ensure")
        if (found := self._adopted(key)) is not None:
            return found
        fault = self.cloud.faults.pop(0) if self.cloud.faults else None
        if fault is Fault.AWAY:
            raise Temporary("The fake provider is away.")
        quota = self.cloud.quota
        if fault is Fault.QUOTA or (quota is not None and len(self.cloud.machines) >= quota):
            raise Refused(Why.QUOTA, f"Quota exceeded: {len(self.cloud.machines)} of {quota or 0} machines are used.")
        if fault is Fault.NO_HOST:
            raise Refused(Why.NO_HOST, "No valid host was found.")
        made = [self._make(spec, key, fault) for _ in range(2 if fault is Fault.DUPLICATE else 1)]
        if fault in (Fault.LOST_ANSWER, Fault.DUPLICATE, Fault.LATE):
            made[0].hidden_looks = 2 if fault is Fault.LATE else 0
            raise Temporary("The fake provider did not answer.")
        self._before("ensured")
        return self._look(made[0])

    async def observe(self, key: Key) -> Observed | None:
        await self._call("observe")
        return self._adopted(key)

    async def meter(self, key: Key) -> Meter | None:
        """As if it were half busy."""
        await self._call("meter")
        found = self._adopted(key)
        if found is None or found.life is not Life.RUNNING:
            return None
        size = self.cloud.machines[found.provider_id].spec.size
        busy_s = max(0.0, asyncio.get_running_loop().time() - self.cloud.machines[found.provider_id].ready_at)
        return Meter(busy_s * size.cores / 2, size.memory_mib / 2)

    async def trim(self, key: Key) -> Progress:
        await self._call("trim")
        found = self._adopted(key)
        for provider_id in found.surplus if found else ():
            del self.cloud.machines[provider_id]
        return Progress.DONE

    async def delete(self, key: Key) -> Progress:
        await self._call("delete")
        gone = {one.seen.provider_id for one in self.cloud.of(key)}
        self.cloud.lose(key)
        self.cloud.addresses.pop(key, None)
        for name, volume in self.cloud.volumes.items():
            if volume.attached_to in gone:
                self.cloud.volumes[name] = replace(volume, attached_to=None, device="")
        self._before("deleted")
        return Progress.DONE

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        await self._call("list_keys")
        return sorted({one.key for one in self.cloud.machines.values() if one.key.startswith(prefix)})

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def stop(self, key: Key) -> Progress:
        return await self._change("stop", key, life=Life.STOPPED)

    async def start(self, key: Key) -> Progress:
        return await self._change("start", key, life=Life.RUNNING)

    async def reboot(self, key: Key, *, hard: bool = False) -> None:
        await self._change("reboot", key, life=Life.RUNNING, message="hard" if hard else "soft")

    async def resize(self, key: Key, size: Size) -> Progress:
        return await self._change("resize", key, size=size, flavour=size.flavour or "")

    async def snapshot(self, key: Key, snapshot_key: Key, name: str) -> Snapshot:
        await self._call("snapshot")
        if snapshot_key not in self.cloud.snapshots:
            self._need(key)
            self.cloud.snapshots[snapshot_key] = Snapshot(
                Progress.DONE, f"fake-image-{name}", size_bytes=1, min_disk_gib=3
            )
            self._before("snapshot made")
        return self.cloud.snapshots[snapshot_key]

    async def delete_snapshot(self, snapshot_key: Key) -> Progress:
        await self._call("delete_snapshot")
        self.cloud.snapshots.pop(snapshot_key, None)
        return Progress.DONE

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:  # noqa: ARG002
        await self._call("ensure_volume")
        if volume_key not in self.cloud.volumes:
            self.cloud.volumes[volume_key] = Volume(f"fake-volume-{self.cloud.number()}", size_gib)
            self._before("ensured_volume")
        return self.cloud.volumes[volume_key]

    async def observe_volume(self, volume_key: Key) -> Volume | None:
        await self._call("observe_volume")
        return self.cloud.volumes.get(volume_key)

    def device(self, volume_key: Key) -> str:
        return f"/dev/disk/by-id/{volume_key}"

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:  # noqa: ARG002
        await self._call("attach")
        machine = self._need(key)
        volume = self.cloud.volumes.get(volume_key)
        if volume is None or volume.attached_to not in (None, machine.provider_id):
            raise Refused(Why.UNABLE, "The volume is not there, or another machine has it.")
        self.cloud.volumes[volume_key] = replace(volume, attached_to=machine.provider_id, device="/dev/vdb")
        return self.cloud.volumes[volume_key]

    async def detach(self, volume_key: Key) -> Progress:
        await self._call("detach")
        if (volume := self.cloud.volumes.get(volume_key)) is not None:
            self.cloud.volumes[volume_key] = replace(volume, attached_to=None, device="")
        return Progress.DONE

    async def delete_volume(self, volume_key: Key) -> Progress:
        await self._call("delete_volume")
        self.cloud.volumes.pop(volume_key, None)
        return Progress.DONE

    async def ensure_address(self, key: Key) -> str:
        await self._call("ensure_address")
        self._need(key)
        return self.cloud.addresses.setdefault(key, f"198.51.100.{len(self.cloud.addresses) % 250 + 1}")

    async def release_address(self, key: Key) -> Progress:
        await self._call("release_address")
        self.cloud.addresses.pop(key, None)
        return Progress.DONE

    async def open_ports(self, key: Key, openings: Sequence[Opening]) -> None:
        await self._call("open_ports")
        self._need(key)
        for one in self.cloud.of(key):
            one.openings = tuple(openings)

    async def ensure_network(self, name: Key) -> None:
        await self._call("ensure_network")
        self.cloud.networks.add(name)

    async def delete_network(self, name: Key) -> Progress:
        await self._call("delete_network")
        if any(one.spec.network == name for one in self.cloud.machines.values()):
            return Progress.PENDING
        self.cloud.networks.discard(name)
        return Progress.DONE

    async def console_log(self, key: Key, lines: int = 200) -> str:
        await self._call("console_log")
        self._need(key)
        return "\n".join(["A fake machine boots.", "login:"][-lines:])

    async def _call(self, name: str) -> None:
        self.cloud.calls += 1
        if self.cloud.latency_s:
            await asyncio.sleep(self.cloud.latency_s)
        self._before(name)

    def _make(self, spec: MachineSpec, key: Key, fault: Fault | None) -> _Machine:
        number = self.cloud.number()
        failed = fault is Fault.FAILS
        seen = Observed(
            f"fake-{number}",
            Life.FAILED if failed else Life.RUNNING,
            "It could not be built." if failed else "",
            private=(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",),
            guest=Guest.FAILED if fault is Fault.GUEST_FAILS else Guest.READY,
            guest_message="cloud-init: modules-final: no such package" if fault is Fault.GUEST_FAILS else "",
            flavour=spec.size.flavour or "",
            size=spec.size,
            created=datetime.now(UTC),
        )
        machine = _Machine(key, spec, seen, asyncio.get_running_loop().time() + self.cloud.build_s)
        self.cloud.machines[seen.provider_id] = machine
        self.cloud.keyed.setdefault(key, []).append(seen.provider_id)
        return machine

    def _adopted(self, key: Key) -> Observed | None:
        visible = []
        for one in self.cloud.of(key):
            if one.hidden_looks:
                one.hidden_looks -= 1
            else:
                visible.append(self._look(one))
        return adopt(visible)

    def _look(self, machine: _Machine) -> Observed:
        seen, key = machine.seen, machine.key
        if seen.life is Life.RUNNING and asyncio.get_running_loop().time() < machine.ready_at:
            return replace(seen, life=Life.BUILDING, message="scheduling", private=(), guest=Guest.UNKNOWN)
        public = (self.cloud.addresses[key],) if key in self.cloud.addresses else ()
        host = (*public, *seen.private)[0]
        return replace(seen, public=public, ssh=Ssh(host, machine.spec.image.login))

    def _need(self, key: Key) -> Observed:
        found = self._adopted(key)
        if found is None:
            raise Refused(Why.UNABLE, "There is no such machine.")
        return found

    async def _change(self, call: str, key: Key, **values: object) -> Progress:
        await self._call(call)
        self._need(key)
        for one in self.cloud.of(key):
            one.seen = replace(one.seen, **values)  # type: ignore[arg-type]
        return Progress.DONE
