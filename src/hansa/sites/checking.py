"""Trying a site without joining it: what works from here, and what the site must allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hansa.engines.egress import EgressPolicy
from hansa.identity.model import Caller
from hansa.kernel.errors import Permanent, Temporary
from hansa.kernel.settings import SiteSettings
from hansa.sites.controller import discover, probe
from hansa.sites.kinds.base import EndpointKind, StartsCanaries, Target, by_themselves, parse_settings
from hansa.sites.model import VoAccess
from hansa.sites.registry import SiteRegistry, Wanted
from hansa.sites.tokens import SiteTokens
from hansa.sites.wire import CheckedEndpoint, CheckReport, CheckStep, NewSite, Requires, SitePolicy

_AT_ONCE = 8


class CheckService:
    """Looks at what a site file says, and writes nothing down."""

    def __init__(
        self,
        registry: SiteRegistry,
        kinds: Callable[[str], EndpointKind],
        settings: SiteSettings,
        egress: EgressPolicy,
        sockets: Path | None = None,
        tokens: SiteTokens | None = None,
        canaries_of: StartsCanaries = by_themselves,
    ) -> None:
        self._registry = registry
        self._kinds = kinds
        self._settings = settings
        self._egress = egress
        self._sockets = sockets
        self._tokens = tokens
        self._canaries_of = canaries_of
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def check(self, caller: Caller, new: NewSite) -> CheckReport:
        """Each endpoint as a probe and a discovery would find it."""
        self._registry.check(caller, new)
        wanted = [self._registry.wanted(one, new.vos) for one in new.endpoints]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._endpoint(caller, new.name, new.policy, one)) for one in wanted]
        found = [task.result() for task in tasks]
        return CheckReport(new.name, all(step.ok is not False for one in found for step in one.steps), found)

    async def _endpoint(self, caller: Caller, site: str, policy: SitePolicy, one: Wanted) -> CheckedEndpoint:
        kind = self._kinds(one.kind)
        settings = parse_settings(one.kind, one.settings)
        vos = {vo: VoAccess(vo, project, more) for vo, project, more in one.vos}
        target = Target(
            "", site, one.kind, one.url, settings, vos, one.credential or {}, sockets=self._sockets, egress=self._egress
        )
        needs = kind.needs(target, self._settings.probe_s, self._settings.discover_s)
        async with self._turns:
            steps = await self._steps(kind, target, caller)
        requires = [Requires(need.group, need.what) for need in needs.requirements]
        starter = self._canaries_of(kind)
        if policy.canaries and starter is not None:
            hours = f"{self._settings.canary_s / 3600:g}"
            said = f"{starter.canary_load}, where nothing else was started for {hours} hours (a canary, as agreed)."
            requires.append(Requires("load", said))
        return CheckedEndpoint(one.name, one.kind, one.url, steps, requires, needs.calls_per_hour)

    async def _equipped(self, target: Target, vo: str | None, caller: Caller) -> Target:
        """As whoever asks."""
        return target if self._tokens is None else await self._tokens.equip(target, vo, [caller.user_id])

    async def _steps(self, kind: EndpointKind, target: Target, caller: Caller) -> list[CheckStep]:
        first = await self._equipped(target, next(iter(target.vos), None), caller)
        finding = await probe(kind, first, self._settings.probe_timeout_s)
        ok = {"up": True, "unknown": None}.get(finding.answer, False)
        steps = [CheckStep(finding.stage, ok, finding.message)]
        if ok is not True:
            return steps
        for vo in tuple(target.vos)[:20] or (None,):
            where = f"what {vo} gets" if vo else "what there is"
            try:
                equipped = await self._equipped(target, vo, caller)
                facts = await discover(kind, equipped, vo, self._settings.discover_timeout_s)
            except (Temporary, Permanent) as error:
                steps.append(CheckStep(where, False, str(error)))
                continue
            said = [
                f"{len(items)} {word}"
                for word, items in (
                    ("flavours", facts.flavours),
                    ("VM images", facts.vm_images),
                    ("networks", facts.networks),
                    ("partitions", facts.partitions),
                )
                if items
            ]
            if facts.capacity:
                said.append(f"{facts.capacity.cores} cores")
            text = ", ".join(said) or "nothing that this server can ask for without a credential"
            steps.append(CheckStep(where, True, " ".join([f"{text[0].upper()}{text[1:]}.", *facts.notes])))
        return steps
