"""Volumes of the Python API: :class:`VolumeHandle`, and its twin for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hansa.client import volumes
from hansa.machines.volume_wire import Volume
from hansa.machines.wire import MachineExplanation

if TYPE_CHECKING:
    from hansa.client.async_transport import AsyncTransport
    from hansa.client.transport import Transport

SETTLED = frozenset({"available", "attached", "deleted"})


class KnownVolume:
    """What was last heard of a volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def volume(self) -> Volume:
        """All that the server says about it."""
        return self._volume

    @property
    def name(self) -> str:
        return self._volume.name

    @property
    def phase(self) -> str:
        return self._volume.status.phase

    def __repr__(self) -> str:
        return f"<volume {self.name}: {self.phase}>"


class VolumeHandle(KnownVolume):
    """A volume. Made by :meth:`Hansa.create_volume`, :meth:`Hansa.volume` and :meth:`Hansa.volumes`."""

    def __init__(self, transport: Transport, volume: Volume) -> None:
        super().__init__(volume)
        self._transport = transport

    def _do(self, operation: Any) -> VolumeHandle:
        self._volume = self._transport.run(operation)
        return self

    def refresh(self) -> VolumeHandle:
        """Ask the server how it is."""
        return self._do(volumes.volume(self._volume.id))

    def wait(self, *phases: str, timeout: float | None = None) -> VolumeHandle:
        """Wait until it is ``available``, ``attached`` or ``deleted``, or as said. Raises HansaError, or Timeout."""
        return self._do(volumes.wait(self._volume.id, frozenset(phases) or SETTLED, timeout))

    def attach(self, machine: str, path: str | None = None) -> VolumeHandle:
        """Give it to a machine at the same site."""
        return self._do(volumes.attach(self._volume.id, machine, path))

    def detach(self) -> VolumeHandle:
        """Take it from its machine."""
        return self._do(volumes.detach(self._volume.id))

    def delete(self) -> VolumeHandle:
        """Remove it and all that is on it."""
        return self._do(volumes.delete(self._volume.id))

    def explain(self) -> MachineExplanation:
        """Why it is where and as it is."""
        return self._transport.run(volumes.explain(self._volume.id))


class AsyncVolumeHandle(KnownVolume):
    """A volume, for asyncio: the twin of :class:`VolumeHandle`."""

    def __init__(self, transport: AsyncTransport, volume: Volume) -> None:
        super().__init__(volume)
        self._transport = transport

    async def _do(self, operation: Any) -> AsyncVolumeHandle:
        self._volume = await self._transport.run(operation)
        return self

    async def refresh(self) -> AsyncVolumeHandle:
        """Ask the server how it is."""
        return await self._do(volumes.volume(self._volume.id))

    async def wait(self, *phases: str, timeout: float | None = None) -> AsyncVolumeHandle:
        """Wait until it is ``available``, ``attached`` or ``deleted``, or as said. Raises HansaError, or Timeout."""
        return await self._do(volumes.wait(self._volume.id, frozenset(phases) or SETTLED, timeout))

    async def attach(self, machine: str, path: str | None = None) -> AsyncVolumeHandle:
        """Give it to a machine at the same site."""
        return await self._do(volumes.attach(self._volume.id, machine, path))

    async def detach(self) -> AsyncVolumeHandle:
        """Take it from its machine."""
        return await self._do(volumes.detach(self._volume.id))

    async def delete(self) -> AsyncVolumeHandle:
        """Remove it and all that is on it."""
        return await self._do(volumes.delete(self._volume.id))

    async def explain(self) -> MachineExplanation:
        """Why it is where and as it is."""
        return await self._transport.run(volumes.explain(self._volume.id))
