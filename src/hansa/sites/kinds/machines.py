"""Machines for jobs: a site's cloud, or this computer, as a place where pilots start in machines made for them."""

from __future__ import annotations

import asyncio

from pydantic import Field

from hansa.kernel.settings import LocalSettings
from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.local import discover
from hansa.sites.wire import Facts

NAME = "machines"


class MachinesSettings(KindSettings):
    """Of what machines for jobs are made, how many there may be, and how long they stay."""

    image: str = Field(min_length=1, max_length=200)
    """VM image of the catalogue, ``NAME`` or ``NAME@VERSION``, with cloud-init and Python 3.9 or later. The VO whose
    jobs run must have endorsed it."""
    here: bool = False
    """Whether the machines run on this server's own computer. Default: at the clouds of the same site. Only on the
    owner's own server."""
    urls: list[str] = Field(default_factory=list, max_length=10)
    """Addresses of this server as the machines reach it. Default: the server's own."""
    network: str | None = Field(default=None, max_length=200)
    """Network for the machines, by name or id. Default: the cloud's usual one."""
    idle_timeout_s: float = Field(default=300.0, ge=1, le=86_400)
    """Seconds without a task after which a machine is deleted."""
    max_pilots: int = Field(default=10, ge=1, le=10_000)
    """Machines that may be there at a time."""
    max_waiting: int = Field(default=5, ge=1, le=10_000)
    """Machines that may be on their way at a time."""
    pilot_cores: int | None = Field(default=None, ge=1, le=100_000)
    """Cores of the largest machine, unless a task needs more. Default: those of the largest flavour."""
    pilot_wall_time_s: int = Field(default=86_400, ge=300, le=10_000_000)
    """Seconds that a machine takes tasks, unless a task needs more. A grant of authority must last that long."""
    tags: list[str] = Field(default_factory=list, max_length=200)
    """What jobs may ask for by name."""
    required_tags: list[str] = Field(default_factory=list, max_length=200)
    """Only jobs that ask for these are taken."""


class MachinesKind:
    """It is as healthy as the clouds that it uses, which are looked at themselves."""

    name = NAME
    settings: type[KindSettings] = MachinesSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:  # noqa: ARG002
        return Needs((Requirement("firewall", "TCP from the machines to this server, by HTTPS."),), 0)

    async def probe(self, target: Target) -> Finding:
        where = "on this computer" if target.settings.here else "at the clouds of this site"
        return Finding(Answer.UP, Stage.LIST, f"Machines of {target.settings.image} are started {where}.")

    async def discover(self, target: Target, vo: str | None) -> Facts:  # noqa: ARG002
        if not target.settings.here:
            return Facts()
        return Facts(capacity=await asyncio.to_thread(discover, LocalSettings()))
