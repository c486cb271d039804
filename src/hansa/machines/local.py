"""The drivers of this computer, as its settings name them."""

from __future__ import annotations

from collections.abc import Mapping

from hansa.kernel.settings import MachineSettings
from hansa.machines.drivers.base import Machines
from hansa.machines.drivers.fake import FakeMachines


def drivers(settings: MachineSettings) -> Mapping[str, Machines]:
    """Those that are asked for and work here, the preferred one first."""
    found: dict[str, Machines] = {}
    for name in settings.local:
        if name == "fake":
            found[name] = FakeMachines()
    return found
