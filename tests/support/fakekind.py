"""A kind of endpoint that does what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Sighting, Stage, State, Target
from hansa.sites.kinds.openstack import OpenstackSettings
from hansa.sites.wire import Facts, Quota


async def public(_host: str, _port: int) -> list[str]:
    """Every name has a public address, and nobody is asked for it."""
    return ["8.8.8.8"]


@dataclass
class FakeKind:
    """Up with a quota of ten cores, unless told otherwise. ``takes_s`` delays both calls."""

    name: str = "openstack"
    settings: type[KindSettings] = OpenstackSettings
    has_url: bool = True
    takes_s: float = 0.0
    tells_s: float | None = None
    """Seconds that discovery takes. Default: ``takes_s``."""
    only_at: str = ""
    """Of which site ``takes_s``, ``answer``, ``error`` and ``facts`` are; all others are well. Default: of all."""
    answer: Answer = Answer.UP
    error: Exception | None = None
    facts: Facts | Exception = field(default_factory=lambda: Facts(quotas={"cores": Quota(10, 2)}))
    probes: list[str] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        return Needs((), 0)

    async def probe(self, target: Target) -> Finding:
        self.probes.append(target.site)
        if self.only_at not in ("", target.site):
            return Finding(Answer.UP, Stage.LIST, "It is up.")
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return Finding(self.answer, Stage.LIST, f"It is {self.answer}.")

    async def discover(self, target: Target, vo: str | None) -> Facts:
        self.asked.append(vo)
        if self.only_at not in ("", target.site):
            return Facts(quotas={"cores": Quota(10, 2)})
        if takes_s := self.takes_s if self.tells_s is None else self.tells_s:
            await asyncio.sleep(takes_s)
        if isinstance(self.facts, Exception):
            raise self.facts
        return self.facts


@dataclass
class FakeBatch(FakeKind):
    """A kind that has canaries: they run at once, unless told otherwise."""

    canary_load: str = "A job of no time"
    sighting: Sighting | Exception = field(default_factory=lambda: Sighting(State.RAN, "It ran.", 2.0))
    sent: list[str] = field(default_factory=list)
    """Keys, one for each call."""
    withdrawn: list[str] = field(default_factory=list)

    async def canary(self, target: Target, vo: str | None, key: str) -> Sighting:
        self.sent.append(key)
        if isinstance(self.sighting, Exception):
            raise self.sighting
        return self.sighting

    async def withdraw(self, target: Target, vo: str | None, key: str) -> None:
        self.withdrawn.append(key)
