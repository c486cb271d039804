"""The controller of endpoints: looks at each now and then, and finds out what it has. Never inside a transaction."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from hansa.engines.egress import EgressPolicy
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Settle, Settled
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import SiteSettings
from hansa.kernel.status import Party
from hansa.kernel.wire import encode
from hansa.sites import canaries, health, store, views
from hansa.sites import facts as facts_of
from hansa.sites.canaries import Canary
from hansa.sites.health import Damping, Verdict
from hansa.sites.kinds.base import (
    Answer,
    EndpointKind,
    Finding,
    Sighting,
    Stage,
    StartsCanaries,
    State,
    Target,
    by_themselves,
    parse_settings,
)
from hansa.sites.model import EVERYBODY, Health, Severity, Visibility, VoAccess
from hansa.sites.service import credential_context
from hansa.sites.tokens import SiteTokens
from hansa.sites.wire import Facts

log = structlog.get_logger(__name__)
DISCOVER = "discover"
_MOST_BYTES = 4 * 1024 * 1024
_SOON_S = 2.0
"""After a discovery, where a canary is to be sent."""


@dataclass(frozen=True)
class Loaded:
    """An endpoint with all that a step needs."""

    row: Any
    target: Target
    vos: tuple[str | None, ...]
    """For whom discovery asks; None: for the site itself."""
    broken: str | None = None
    """Why it cannot be looked at: its kind is gone, its settings are not valid any more."""
    canary: Canary | None = None
    """What is remembered of its canaries; None: its site wants none, or its kind has none."""
    may_start: bool = False
    """Whether a canary may be sent: the site takes work, and nothing else was started there of late."""


@dataclass(frozen=True)
class Judged(Settle):
    """The probe and what follows of it."""

    verdict: Verdict | None = None
    finding: Finding | None = None


Found = Mapping[str, Facts | str]
"""Facts by VO, or why there are none."""

StartedSince = Callable[[Tx, str, str, datetime], Awaitable[bool]]
"""Whether anything was started at a site's endpoint since a time."""


async def _nothing_started(tx: Tx, site: str, endpoint_id: str, since: datetime) -> bool:  # noqa: ARG001
    return False


def rules_of(settings: SiteSettings) -> canaries.Rules:
    return canaries.Rules(settings.canary_s, settings.canary_wait_s)


def decide(loaded: Loaded, seen: Finding, now: datetime, settings: SiteSettings) -> Act | Judged:
    """What to do after a probe: see to a canary that is out; ask what it has, if that is known no more; send a canary;
    else judge it. Pure."""
    row = loaded.row
    finding = canaries.overlaid(seen, loaded.canary)
    verdict = health.judge(Health(row.phase), Damping.load(row.damping), finding.answer, now, settings.probe_s)
    is_due = row.discover_at is None or row.discover_at <= now
    is_out = loaded.canary is not None and loaded.canary.since is not None
    if is_due and not is_out and seen.answer in (Answer.UP, Answer.UNKNOWN) and verdict.health.takes_work:
        return Act(DISCOVER, "sites.discover")
    if loaded.canary is not None:
        rules = rules_of(settings)
        operation = canaries.operation(loaded.canary, seen, now, rules, may_start=loaded.may_start)
        if operation is not None:
            vo = loaded.canary.vo if is_out else loaded.vos[0]
            return Act(operation, "sites.canary", {"number": loaded.canary.number, "vo": vo})
    return Judged("sites.probed", now + timedelta(seconds=verdict.again_s), verdict, finding)


class EndpointRoom:
    """Endpoints, for the reconcile engine: ``observe`` is the probe, ``act`` the discovery, or a canary."""

    queue = store.QUEUE

    def __init__(
        self,
        kinds: Callable[[str], EndpointKind],
        events: EventLog,
        clock: Clock,
        vault: Vault,
        settings: SiteSettings,
        egress: EgressPolicy,
        sockets: Path | None = None,
        tokens: SiteTokens | None = None,
        timer: Callable[[], float] = time.monotonic,
        started_since: StartedSince = _nothing_started,
        canaries_of: StartsCanaries = by_themselves,
    ) -> None:
        self._kinds = kinds
        self._events = events
        self._clock = clock
        self._vault = vault
        self._settings = settings
        self._egress = egress
        self._sockets = sockets
        self._tokens = tokens
        self._timer = timer
        self._started_since = started_since
        self._canaries_of = canaries_of

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        row = await store.get_endpoint(tx, key)
        if row is None:
            return None
        vos = {one.vo: VoAccess(one.vo, one.project, one.settings) for one in await store.vos_of(tx, [key])}
        target, broken = make_target(row, vos, self._vault, self._egress)
        target = replace(target, sockets=self._sockets)
        site = await store.get(tx, row.site)
        loaded = Loaded(row, target, tuple(vos) or (None,), broken)
        if broken or site is None or self._canaries_of(self._kinds(row.kind)) is None:
            return loaded
        canary = _canary_of(row, self._clock.now())
        if not site.policy.get("canaries"):  # one that was sent before the site changed its mind is taken back
            return replace(loaded, canary=canary) if canary.since is not None else loaded
        return replace(loaded, canary=canary, may_start=await self._may_start(tx, site, row, canary))

    async def _may_start(self, tx: Tx, site: Any, row: Any, canary: Canary) -> bool:
        """A canary is new work as any other; and where one failed, another is sent whatever else was started."""
        now = self._clock.now()
        downtimes = (views.downtime_of(one) for one in await store.downtimes_of(tx, [row.site], now))
        outages = (one for one in downtimes if one.severity is Severity.OUTAGE and one.is_of(row.id))
        if site.drained is not None or any(one.is_on(now) for one in outages):
            return False
        if canary.since is not None or canary.failures:
            return True
        since = now - timedelta(seconds=self._settings.canary_s)
        return not await self._started_since(tx, row.site, row.id, since)

    async def observe(self, loaded: Loaded) -> Finding:
        """One probe. Whatever the site does to it is a finding, so that it shows in the site's history."""
        if loaded.broken:
            return Finding(Answer.DOWN, Stage.REACH, loaded.broken, "sites.settings")
        began = self._timer()
        target = await self._equipped(loaded.target, loaded.vos[0])
        finding = await probe(self._kinds(loaded.target.kind), target, self._settings.probe_timeout_s)
        return replace(finding, took_ms=round((self._timer() - began) * 1000))

    def decide(self, loaded: Loaded, seen: Finding, now: datetime) -> Act | Settle:
        return decide(loaded, seen, now, self._settings)

    async def act(self, loaded: Loaded, intent: Intent) -> Found | Sighting:
        """Ask for each VO; what fails for one is said of that one. Or see to a canary."""
        if intent.operation != DISCOVER:
            return await self._canary(loaded, intent)
        found: dict[str, Facts | str] = {}
        kind = self._kinds(loaded.target.kind)
        for vo in loaded.vos:
            try:
                target = await self._equipped(loaded.target, vo)
                facts = await discover(kind, target, vo, self._settings.discover_timeout_s)
            except (Temporary, Permanent) as error:
                found[vo or EVERYBODY] = str(error)
            else:
                found[vo or EVERYBODY] = facts
        return found

    async def _canary(self, loaded: Loaded, intent: Intent) -> Sighting:
        """Send it, look at it or take it back. What the site does to it is a sighting."""
        starter, canary = self._canaries_of(self._kinds(loaded.target.kind)), loaded.canary
        assert starter is not None  # noqa: S101 - load has looked, for the type checker
        assert canary is not None  # noqa: S101
        vo = intent.arguments["vo"]
        key = f"{loaded.row.id}-{intent.arguments['number']}"
        try:
            async with asyncio.timeout(self._settings.discover_timeout_s):
                target = await self._equipped(loaded.target, vo)
                if intent.operation == canaries.WITHDRAW:
                    await starter.withdraw(target, vo, key)
                    return canaries.withdrawn(canary)
                return await starter.canary(target, vo, key)
        except TimeoutError:
            return Sighting(State.WAITS, f"Nothing was heard of a canary for {self._settings.discover_timeout_s:g} s.")
        except Temporary as error:
            return Sighting(State.WAITS, f"A canary can be neither sent nor seen now: {error}")
        except Permanent as error:
            if intent.operation == canaries.WITHDRAW:  # what is there is not forgotten, whatever the site says
                return Sighting(State.WAITS, f"A canary cannot be taken back: {error}")
            return Sighting(State.FAILED, str(error))

    async def _equipped(self, target: Target, vo: str | None) -> Target:
        return target if self._tokens is None else await self._tokens.equip(target, vo)

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Finding, Found | Sighting]) -> Next:
        now = self._clock.now()
        row = await store.get_endpoint(tx, loaded.row.id)
        if row is None:
            return Next(None)
        if isinstance(outcome, Failed):  # a defect of ours, or of the kind: it says nothing about the site
            finding = Finding(Answer.UNKNOWN, Stage.REACH, f"The probe failed by itself: {outcome.error}.")
            verdict = health.judge(Health(row.phase), Damping.load(row.damping), Answer.UNKNOWN, now, 0)
            await self._note(tx, row, finding, verdict, now)
            return Next(outcome.retry_at or now + timedelta(seconds=self._settings.discover_s))
        soon_s = self._settings.probe_s
        if isinstance(outcome, Acted):
            canary = loaded.canary
            if not isinstance(outcome.result, Sighting):
                await self._keep(tx, row, outcome.result, now)
                if canary is not None and loaded.may_start and (canary.again_at is None or canary.again_at <= now):
                    soon_s = _SOON_S
            elif canary is not None:
                canary = replace(canary, vo=outcome.intent.arguments["vo"])
                canary = await self._note_canary(tx, row, canary, outcome.result, now)
                soon_s = canaries.LOOK_S if canary.since or canary.failures else soon_s
            finding = canaries.overlaid(outcome.seen, canary)
            verdict = health.judge(
                Health(row.phase), Damping.load(row.damping), finding.answer, now, self._settings.probe_s
            )
        else:
            assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
            judged = outcome.decision
            assert isinstance(judged, Judged)  # noqa: S101
            assert judged.verdict is not None  # noqa: S101
            assert judged.finding is not None  # noqa: S101
            finding, verdict = judged.finding, judged.verdict
        await self._note(tx, row, finding, verdict, now)
        return Next(now + timedelta(seconds=min(soon_s, verdict.again_s)), loaded.row.generation)

    async def _note_canary(self, tx: Tx, row: Any, canary: Canary, sighting: Sighting, now: datetime) -> Canary:
        """What was seen of it: remembered, and where it is over, kept for the site's rates and its history."""
        if sighting.is_over and not sighting.leaves:
            await store.add_canary(
                tx,
                endpoint_id=row.id,
                number=canary.number,
                site=row.site,
                sent=canary.since or now,
                ended=now,
                state=sighting.state.value,
                waited_s=sighting.waited_s,
                message=sighting.message[:1000],
            )
        following = canaries.after(canary, sighting, now, rules_of(self._settings))
        await store.update_endpoint(tx, row.id, canary=following.store())
        return following

    async def _note(self, tx: Tx, row: Any, finding: Finding, verdict: Verdict, now: datetime) -> None:
        """How it is: in its row, in its history, in its site's status, and as an event where that changed."""
        await store.add_probe(tx, row.id, finding, now, timedelta(seconds=2.5 * self._settings.probe_s))
        reason, party = _meaning(verdict.health, finding)
        message = _sentence(verdict, finding)
        values: dict[str, Any] = {
            "phase": verdict.health.value,
            "reason": reason,
            "message": message,
            "waiting_on": party.value,
            "damping": verdict.damping.store(),
        }
        if verdict.health != row.phase:
            values["since"] = now
        await store.update_endpoint(tx, row.id, **values)
        await refresh_site(tx, self._events, row.site, now)
        if verdict.health != row.phase:
            site = await store.get(tx, row.site)
            owner = site.owner_id if site and site.visibility == Visibility.OWNER else None
            subject = f"endpoint/{row.site}/{row.name}"
            event = Event("hansa", subject, verdict.health.value, reason, message, owner)
            await self._events.record(tx, event)

    async def _keep(self, tx: Tx, row: Any, found: Found, now: datetime) -> None:
        """The new facts; for VOs where it failed the old ones, with a note."""
        kept: dict[str, Any] = {}
        failed = 0
        for vo, one in found.items():
            if isinstance(one, Facts):
                kept[vo] = encode(one)
            else:
                failed += 1
                kept[vo] = {**row.facts.get(vo, {}), "notes": [f"Looking for news failed: {one}"]}
        again_s = self._settings.probe_s if failed else self._settings.discover_s
        values: dict[str, Any] = {"facts": kept, "discover_at": now + timedelta(seconds=again_s)}
        if failed < len(found):
            values["facts_at"] = now
        await store.update_endpoint(tx, row.id, **values)
        whole = found.get(EVERYBODY)
        if isinstance(whole, Facts) and whole.capacity is not None:
            await store.update(tx, row.site, capacity=asdict(whole.capacity))


def _canary_of(row: Any, now: datetime) -> Canary:
    """What is remembered. Where a server died while it sent one, that one is out: its intent was written down."""
    canary, intent = Canary.load(row.canary), row.intent or {}
    if canary.since is None and intent.get("operation") == canaries.START:
        return replace(canary, since=now, vo=intent["arguments"].get("vo"))
    return canary


def make_target(row: Any, vos: Mapping[str, VoAccess], vault: Vault, egress: EgressPolicy) -> tuple[Target, str | None]:
    """An endpoint to look at, and what is wrong with it, if something is."""
    broken: str | None = None
    settings: Any = None
    credential: dict[str, str] = {}
    try:
        settings = parse_settings(row.kind, row.settings)
        if row.credential is not None:
            credential = json.loads(vault.open(row.credential, credential_context(row.id)))
    except Exception as error:  # noqa: BLE001 - a package that is gone, a key that is lost: the endpoint says so
        broken = f"It cannot be looked at: {error}"
    return Target(row.id, row.site, row.kind, row.url, settings, vos, credential, egress=egress), broken


async def probe(kind: EndpointKind, target: Target, timeout_s: float) -> Finding:
    """One probe within its time; every failure is a finding."""
    try:
        async with asyncio.timeout(timeout_s):
            if target.url is not None:
                await target.egress.allow(target.url)
            return await kind.probe(target)
    except TimeoutError:
        message = f"It did not answer within {timeout_s:g} s."
        return Finding(Answer.DOWN, Stage.REACH, message, "sites.silent")
    except (Temporary, Permanent) as error:
        return Finding(Answer.DOWN, Stage.REACH, str(error), "sites.probe_failed")
    except Exception as error:
        log.warning("sites.garbage", site=target.site, endpoint=target.id, exc_info=error)
        message = f"It answers what nobody can understand: {type(error).__name__}: {error}"
        return Finding(Answer.DOWN, Stage.LIST, message[:500], "sites.garbage")


async def discover(kind: EndpointKind, target: Target, vo: str | None, timeout_s: float) -> Facts:
    """Facts, bounded and checked. Raises Temporary or Permanent, whatever the site answers."""
    try:
        async with asyncio.timeout(timeout_s):
            found = facts_of.checked(await kind.discover(target, vo))
    except TimeoutError as error:
        raise Temporary(f"It did not tell within {timeout_s:g} s what it has.") from error
    except (Temporary, Permanent):
        raise
    except Exception as error:
        raise Temporary(f"It answers what nobody can understand: {type(error).__name__}: {error}"[:500]) from error
    if len(json.dumps(encode(found))) > _MOST_BYTES:
        raise Permanent("It says more about itself than can be kept.")
    return found


async def refresh_site(tx: Tx, events: EventLog, name: str, now: datetime) -> None:
    """A site's status after something of it changed; an event where its phase did."""
    row = await store.get(tx, name)
    if row is None:
        return
    status = views.site_status(row, await store.endpoints_of(tx, [name]), now)
    said = {"phase": status.phase, "reason": status.reason, "message": status.message}
    if all(getattr(row, word) == value for word, value in said.items()):
        return
    await store.update(tx, name, **said, waiting_on=status.waiting_on.value, since=status.since)
    if row.phase != status.phase:
        owner = row.owner_id if row.visibility == Visibility.OWNER else None
        await events.record(tx, Event("hansa", f"site/{name}", status.phase, status.reason, status.message, owner))


def _meaning(now: Health, finding: Finding) -> tuple[str, Party]:
    if now is Health.UP:
        return "sites.up", Party.NOBODY
    if now is Health.LOGIN:
        return "sites.login", Party.USER
    if now is Health.FLAPPING:
        return "sites.flapping", Party.SITE
    if now is Health.UNKNOWN:
        return "sites.unknown", Party.HANSA
    return finding.reason if finding.answer is Answer.DOWN else "sites.down", Party.SITE


def _sentence(verdict: Verdict, finding: Finding) -> str:
    where = f"at “{finding.stage}”"
    if verdict.health is Health.UP:
        if finding.answer is Answer.DOWN:
            return f"The last probe failed {where}; another one will tell. {finding.message}"
        return finding.message
    if verdict.health is Health.FLAPPING:
        number = len(verdict.damping.changes)
        minutes = round(health.STEADY.total_seconds() / 60)
        return f"It went up and down {number} times within an hour; it gets work after {minutes} steady minutes."
    if verdict.health is Health.DOWN:
        if finding.answer is Answer.UP:
            return "It answers again; one more good probe, and it gets work."
        return f"It fails {where}, so it gets no new work: {finding.message}"
    return finding.message
