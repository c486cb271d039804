"""The computer at hand: the embedded site."""

from __future__ import annotations

import asyncio

from hansa.kernel.settings import LocalSettings
from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Stage, Target
from hansa.sites.local import discover
from hansa.sites.wire import Facts


class LocalKindSettings(KindSettings):
    """Nothing to set here: the server's settings ``local`` say how much of the computer is offered."""


class LocalKind:
    """This computer. It is up while the server is."""

    name = "local"
    settings: type[KindSettings] = LocalKindSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:  # noqa: ARG002
        return Needs((), 0)

    async def probe(self, target: Target) -> Finding:  # noqa: ARG002
        return Finding(Answer.UP, Stage.LIST, "This computer is up.")

    async def discover(self, target: Target, vo: str | None) -> Facts:  # noqa: ARG002
        return Facts(capacity=await asyncio.to_thread(discover, LocalSettings()))
