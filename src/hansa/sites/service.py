"""Sites: which there are, whom they serve, what they offer. The way in for other rooms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.identity.policy import may_manage_site
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.secrets import Vault
from hansa.kernel.status import Party
from hansa.sites import errors, store, views
from hansa.sites.model import SiteView, Visibility
from hansa.sites.wire import Capacity, Site, SitePage

LOCAL = "local"


def credential_context(endpoint_id: str) -> str:
    """What the credential of an endpoint is sealed for."""
    return f"endpoint/{endpoint_id}"


class SiteService:
    """Looks into the registry of sites. The embedded site ``local`` serves its owner only."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, vault: Vault | None = None) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._vault = vault

    async def ensure_local(self, owner_id: str, owner_name: str, capacity: Capacity) -> None:
        """Register this computer as the site ``local``, or bring what it offers up to date."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await store.get(tx, LOCAL)
            if row is not None:
                if row.capacity != asdict(capacity):
                    await store.update(tx, LOCAL, capacity=asdict(capacity))
                return
            message = f"This computer: {capacity.cores} cores, {capacity.memory_mib:,} MiB, {len(capacity.gpus)} GPUs."
            await store.insert(
                tx,
                name=LOCAL,
                kind="local",
                owner_id=owner_id,
                owner_name=owner_name,
                capacity=asdict(capacity),
                phase="ready",
                reason="sites.ready",
                message=message,
                waiting_on=Party.NOBODY.value,
                since=now,
                visibility=Visibility.OWNER.value,
                contacts=[],
                policy={},
                created=now,
            )
            await self._events.record(tx, Event("hansa", f"site/{LOCAL}", "ready", "sites.ready", message, owner_id))

    async def remove_local(self) -> None:
        """This computer runs no jobs (setting local.enabled): forget the site, if it was there."""
        async with self._database.begin() as tx:
            await store.delete(tx, LOCAL)

    async def serving(self, tx: Tx, user_id: str, vos: Sequence[str]) -> Sequence[SiteView]:
        """The sites that are there for a user in these VOs, with all that decides whether work may start there.

        Sites that would refuse (drained, banned, failing) are among them: ``model.site_refusals`` and
        ``model.endpoint_refusals`` say why.
        """
        rows = await views.read_rows(tx, await store.serving(tx, user_id, vos), self._clock.now())
        is_named = any(row.policy.get("users") is not None for row in rows.sites)
        name = await store.name_of_user(tx, user_id) if is_named else user_id
        return [views.site_view(rows, row, user_id, name, frozenset(vos)) for row in rows.sites]

    async def credential(self, endpoint_id: str) -> Mapping[str, str]:
        """What a site gave Hansa to sign in with at an endpoint; empty: nothing. Never log it, never show it."""
        async with self._database.read() as tx:
            row = await store.get_endpoint(tx, endpoint_id)
        if row is None or row.credential is None or self._vault is None:
            return {}
        opened: dict[str, str] = json.loads(self._vault.open(row.credential, credential_context(endpoint_id)))
        return opened

    async def offers(self, caller: Caller) -> Sequence[Site]:
        """The sites that serve this caller, as the API shows them."""
        async with self._database.read() as tx:
            vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            rows = await views.read_rows(tx, await store.serving(tx, caller.user_id, vos), self._clock.now())
        return [views.shown_site(rows, row, vos, ()) for row in rows.sites]

    async def list_sites(self, caller: Caller, cursor: str | None = None, limit: int = 1000) -> SitePage:
        """The sites that serve the caller or are administered by the caller, by name; to operators all shared ones."""
        after = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            start = str(after[0]) if after else ""
            found = await store.listed(tx, caller.user_id, vos, start, limit, operator=caller.is_operator)
            rows = await views.read_rows(tx, found, self._clock.now())
            roles = await store.roles_of_user(tx, caller.user_id, [row.name for row in found])
        items = [_shown(rows, row, caller, vos, roles.get(row.name)) for row in found]
        return SitePage(items, encode_cursor(found[-1].name) if len(found) == limit else None)

    async def get(self, caller: Caller, name: str) -> Site:
        """One site. Raises Fault ``sites.not_found``."""
        async with self._database.read() as tx:
            return await show_site(tx, caller, name, self._clock)

    async def capacity(self, name: str) -> Capacity | None:
        """What a site offers, for controllers."""
        async with self._database.read() as tx:
            row = await store.get(tx, name)
        return Capacity(**row.capacity) if row else None


async def rewrap_credentials(tx: Tx, vault: Vault) -> int:
    """All credentials of endpoints under the current master key; their number."""
    rows = await store.with_credentials(tx)
    for row in rows:
        sealed = vault.rewrap(row.credential, credential_context(row.id))
        await store.update_endpoint(tx, row.id, credential=sealed)
    return len(rows)


async def show_site(tx: Tx, caller: Caller, name: str, clock: Clock) -> Site:
    """A site as this caller may see it. Raises Fault ``sites.not_found``."""
    row = await allow(tx, caller, name, manage=False)
    vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
    rows = await views.read_rows(tx, [row], clock.now())
    roles = await store.roles_of_user(tx, caller.user_id, [name])
    return _shown(rows, row, caller, vos, roles.get(name))


async def allow(tx: Tx, caller: Caller, name: str, *, manage: bool = True) -> views.SiteRow:
    """The row of a site, if the caller may change it, or without ``manage`` see it.

    Raises Fault ``sites.not_found`` where the site is none of the caller's business, else ``sites.forbidden``.
    """
    row = await store.get(tx, name, lock=manage)
    if row is not None:
        role = (await store.roles_of_user(tx, caller.user_id, [name])).get(name)
        if _manages(row, caller, role):
            return row
        vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
        if any(one.name == name for one in await store.serving(tx, caller.user_id, vos)):
            if not manage:
                return row
            said = f"Only administrators of {name} and operators of this server may do this."
            raise Fault(errors.FORBIDDEN, said, site=name)
    raise Fault(errors.NOT_FOUND, f"There is no site {name} that serves you.", hint="hansa site list", site=name)


def _manages(row: views.SiteRow, caller: Caller, role: str | None) -> bool:
    is_private = row.visibility == Visibility.OWNER
    return may_manage_site(
        caller, is_own=row.owner_id == caller.user_id, is_private=is_private, is_admin=role is not None
    )


def _shown(rows: views.Rows, row: views.SiteRow, caller: Caller, vos: Sequence[str], role: str | None) -> Site:
    is_owner = row.owner_id == caller.user_id and row.visibility == Visibility.OWNER
    roles = ["owner"] if is_owner else [role] if role else []
    return views.shown_site(rows, row, None if _manages(row, caller, role) else vos, roles)
