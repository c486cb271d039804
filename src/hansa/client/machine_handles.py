"""Machines of the Python API: :class:`MachineHandle`, and its twin for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hansa.client import machines, volumes
from hansa.client.machines import Told
from hansa.machines.volume_wire import NewSnapshot, Snapshot
from hansa.machines.wire import Machine, MachineChange, MachineExplanation, MachineUsage, Resize

if TYPE_CHECKING:
    from hansa.client.async_transport import AsyncTransport
    from hansa.client.transport import Transport

RUNNING = frozenset({"running"})


class KnownMachine:
    """What was last heard of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def machine(self) -> Machine:
        """All that the server said of it."""
        return self._machine

    @property
    def name(self) -> str:
        return self._machine.name

    @property
    def phase(self) -> str:
        return self._machine.status.phase

    @property
    def address(self) -> str | None:
        """Where it can be reached: the public address before private ones."""
        return next(iter([*self._machine.public, *self._machine.private]), None)

    def __repr__(self) -> str:
        return f"<machine {self.name}: {self.phase}>"


class MachineHandle(KnownMachine):
    """A machine. Made by :meth:`Hansa.create_machine`, :meth:`Hansa.machine` and :meth:`Hansa.machines`."""

    def __init__(self, transport: Transport, machine: Machine) -> None:
        super().__init__(machine)
        self._transport = transport

    def _do(self, operation: Any) -> MachineHandle:
        self._machine = self._transport.run(operation)
        return self

    def refresh(self) -> MachineHandle:
        """Ask the server how it is."""
        return self._do(machines.machine(self._machine.id))

    def wait(self, timeout: float | None = None, told: Told | None = None) -> MachineHandle:
        """Wait until it runs. Raises HansaError ``client.machine_failed``, or Timeout: then it goes on."""
        return self._do(machines.wait(self._machine.id, RUNNING, timeout, told))

    def stop(self) -> MachineHandle:
        """Shut it down; disk and addresses stay."""
        return self._do(machines.stop(self._machine.id))

    def start(self) -> MachineHandle:
        """Start it again."""
        return self._do(machines.start(self._machine.id))

    def reboot(self, *, hard: bool = False) -> MachineHandle:
        """Boot it anew; ``hard``: without asking the guest."""
        return self._do(machines.reboot(self._machine.id, hard=hard))

    def resize(
        self, flavour: str | None = None, cores: int | None = None, memory_mib: int | None = None
    ) -> MachineHandle:
        """Give it another size."""
        return self._do(machines.resize(self._machine.id, Resize(flavour, cores, memory_mib)))

    def extend(self, seconds: int) -> MachineHandle:
        """Let it live so long from now; 0: without an end."""
        return self._do(machines.change(self._machine.id, MachineChange(lifetime_s=seconds)))

    def snapshot(self, name: str | None = None, version: str | None = None, timeout: float | None = None) -> Snapshot:
        """Keep its disk as a version of a VM image, and wait until machines can be started of it."""
        made = self._transport.run(volumes.take_snapshot(self._machine.id, NewSnapshot(name, version)))
        return self._transport.run(volumes.wait_snapshot(made.id, timeout))

    def delete(self) -> MachineHandle:
        """Remove it with its addresses; volumes stay."""
        return self._do(machines.delete(self._machine.id))

    def console(self, lines: int = 200) -> str:
        """What its console said last."""
        return self._transport.run(machines.console(self._machine.id, lines)).text

    def usage(self) -> MachineUsage:
        """What it used over its time, where its provider tells that."""
        return self._transport.run(machines.usage(self._machine.id))

    def explain(self) -> MachineExplanation:
        """Why it is where and as it is."""
        return self._transport.run(machines.explain(self._machine.id))


class AsyncMachineHandle(KnownMachine):
    """A machine, for asyncio: the twin of :class:`MachineHandle`."""

    def __init__(self, transport: AsyncTransport, machine: Machine) -> None:
        super().__init__(machine)
        self._transport = transport

    async def _do(self, operation: Any) -> AsyncMachineHandle:
        self._machine = await self._transport.run(operation)
        return self

    async def refresh(self) -> AsyncMachineHandle:
        """Ask the server how it is."""
        return await self._do(machines.machine(self._machine.id))

    async def wait(self, timeout: float | None = None, told: Told | None = None) -> AsyncMachineHandle:
        """Wait until it runs. Raises HansaError ``client.machine_failed``, or Timeout: then it goes on."""
        return await self._do(machines.wait(self._machine.id, RUNNING, timeout, told))

    async def stop(self) -> AsyncMachineHandle:
        """Shut it down; disk and addresses stay."""
        return await self._do(machines.stop(self._machine.id))

    async def start(self) -> AsyncMachineHandle:
        """Start it again."""
        return await self._do(machines.start(self._machine.id))

    async def reboot(self, *, hard: bool = False) -> AsyncMachineHandle:
        """Boot it anew; ``hard``: without asking the guest."""
        return await self._do(machines.reboot(self._machine.id, hard=hard))

    async def resize(
        self, flavour: str | None = None, cores: int | None = None, memory_mib: int | None = None
    ) -> AsyncMachineHandle:
        """Give it another size."""
        return await self._do(machines.resize(self._machine.id, Resize(flavour, cores, memory_mib)))

    async def extend(self, seconds: int) -> AsyncMachineHandle:
        """Let it live so long from now; 0: without an end."""
        return await self._do(machines.change(self._machine.id, MachineChange(lifetime_s=seconds)))

    async def snapshot(
        self, name: str | None = None, version: str | None = None, timeout: float | None = None
    ) -> Snapshot:
        """Keep its disk as a version of a VM image, and wait until machines can be started of it."""
        made = await self._transport.run(volumes.take_snapshot(self._machine.id, NewSnapshot(name, version)))
        return await self._transport.run(volumes.wait_snapshot(made.id, timeout))

    async def delete(self) -> AsyncMachineHandle:
        """Remove it with its addresses; volumes stay."""
        return await self._do(machines.delete(self._machine.id))

    async def console(self, lines: int = 200) -> str:
        """What its console said last."""
        return (await self._transport.run(machines.console(self._machine.id, lines))).text

    async def usage(self) -> MachineUsage:
        """What it used over its time, where its provider tells that."""
        return await self._transport.run(machines.usage(self._machine.id))

    async def explain(self) -> MachineExplanation:
        """Why it is where and as it is."""
        return await self._transport.run(machines.explain(self._machine.id))
