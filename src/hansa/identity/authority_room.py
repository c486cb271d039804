"""The controller of grants of authority: refreshes them ahead of time, notices when they lapse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import authority as a
from hansa.identity import errors
from hansa.identity.upstream import store
from hansa.identity.upstream.issuers import Issuer, Issuers, profile_of
from hansa.identity.upstream.model import Profile
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Away, Refused, Remote
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Settle, Settled

REFRESH = "refresh"
_EVERY = timedelta(hours=12)
_MARGIN = timedelta(minutes=10)


@dataclass(frozen=True)
class Lapse(Settle):
    """A decision: it is over."""

    message: str = ""


def next_refresh(refreshed: datetime, expires: datetime | None) -> datetime:
    """When to refresh: well before the end, twice a day where no end is known. Pure."""
    if expires is None:
        return refreshed + _EVERY
    return refreshed + min(_EVERY, max((expires - refreshed) / 2, timedelta(seconds=1)))


def decide(row: Any, now: datetime) -> Act | Settle:
    """What to do about a grant. Pure."""
    if row.phase != a.Phase.ACTIVE:
        return Settle("identity.grant_over")
    if row.expires is not None and row.expires <= now:
        return Lapse("identity.grant_expired", None, f"It ended on {row.expires:%Y-%m-%d %H:%M} UTC.")
    if row.kind == a.Kind.SITE:
        return Settle("identity.grant_good", row.expires)
    due = next_refresh(row.refreshed or row.created, row.expires)
    is_stale = row.access_expires is None or row.access_expires - now < _MARGIN
    if due <= now or (row.generation > row.observed_generation and is_stale):
        return Act(REFRESH, "identity.grant_refresh")
    return Settle("identity.grant_good", due)


class AuthorityRoom:
    """Grants of authority, for the reconcile engine."""

    queue = a.queue

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        issuers: Issuers,
        remote: Remote,
        people: People,
        service: a.AuthorityService,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._issuers = issuers
        self._remote = remote
        self._people = people
        self._service = service

    async def load(self, tx: Tx, key: str) -> Any | None:
        return await store.get_authority(tx, key)

    async def observe(self, loaded: Any) -> None:  # noqa: ARG002 - a refresh is the only way to look, and it changes
        return None

    def decide(self, loaded: Any, seen: None, now: datetime) -> Act | Settle:  # noqa: ARG002 - the room's Protocol
        return decide(loaded, now)

    async def act(self, loaded: Any, intent: Intent) -> Profile | None:  # noqa: ARG002
        issuer = self._issuers.of_url(loaded.issuer)
        if issuer is None:
            raise Permanent(f"{loaded.issuer} is not among the issuers of this server any more")
        try:
            tokens = await self._remote.refresh(issuer, self._service.open_refresh(loaded))
        except Away as error:
            raise Temporary(str(error)) from error
        except Refused as error:
            if error.error in ("invalid_grant", "access_denied", "interaction_required", "consent_required"):
                raise Permanent(f"{issuer.title} does not prolong it ({error.error})") from error
            raise Temporary(f"{issuer.title} does not prolong it: {error}") from error
        except Fault as error:  # the master key is another one
            raise Permanent(error.detail) from error
        # At once, whoever holds the lease by now: where tokens rotate, the old one is worth nothing any more.
        async with self._database.begin() as tx:
            if await store.get_authority(tx, loaded.id, lock=True) is None:
                return None  # revoked meanwhile
            values = self._service.sealed_tokens(loaded.id, tokens, self._clock.now())
            await store.update_authority(tx, loaded.id, **values)
        return await self._look(issuer, tokens.access)

    async def _look(self, issuer: Issuer, access: str) -> Profile | None:
        """What the issuer says of the person now; None where it does not say."""
        try:
            claims = await self._remote.userinfo(issuer, access)
        except (Away, Refused):
            return None
        return profile_of(claims, issuer, is_complete=True) if claims.get("sub") else None

    async def apply(self, tx: Tx, loaded: Any, outcome: Outcome[None, Profile | None]) -> Next:
        now = self._clock.now()
        row = await store.get_authority(tx, loaded.id, lock=True)
        if row is None:
            return Next(None)
        if isinstance(outcome, Failed):
            if outcome.retry_at is None:
                await self._lapse(tx, row, f"{outcome.error}.", now)
                return Next(None, loaded.generation)
            message = f"{outcome.error} (attempt {outcome.attempt}); it is good all the same, and Hansa goes on trying."
            await store.update_authority(tx, row.id, reason="identity.upstream_away", message=message)
            return Next(outcome.retry_at)
        if isinstance(outcome, Acted):
            await self._refresh_person(tx, row, outcome.result)
            if row.reason != "identity.grant_given":
                good = a.status_values(a.Phase.ACTIVE, "identity.grant_given", "Good.", now)
                await store.update_authority(tx, row.id, **good)
            return Next(next_refresh(row.refreshed or now, row.expires), loaded.generation)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        if isinstance(outcome.decision, Lapse):
            await self._lapse(tx, row, outcome.decision.message, now)
            return Next(None, loaded.generation)
        return Next(outcome.decision.due_at, loaded.generation)

    async def _refresh_person(self, tx: Tx, row: Any, profile: Profile | None) -> None:
        identity = await store.get_identity(tx, row.identity_id) if row.identity_id else None
        if identity is not None and profile is not None and profile.sub == identity.sub:
            await self._people.refresh(tx, identity, profile)

    async def _lapse(self, tx: Tx, row: Any, why: str, now: datetime) -> None:
        reason = errors.GRANT_EXPIRED.code
        values = a.status_values(a.Phase.LAPSED, reason, why, now)
        await store.update_authority(tx, row.id, **values, sealed=None, access=None, access_expires=None)
        message = f"{why} Nothing is killed; nothing new starts under it. {a.RENEW if row.user_id else ''}".strip()
        event = Event("hansa", f"authority/{row.id}", "lapsed", reason, message, row.user_id, row.vo)
        await self._events.record(tx, event)
