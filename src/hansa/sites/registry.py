"""Joining, changing and removing sites: the use cases of their administrators."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hansa.identity.model import Caller
from hansa.identity.policy import may_add_site
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.secrets import Vault
from hansa.kernel.status import Party
from hansa.sites import errors, store
from hansa.sites.kinds.base import kind_of, parse_settings
from hansa.sites.model import Health, Visibility
from hansa.sites.service import LOCAL, allow, credential_context, show_site
from hansa.sites.wire import Capacity, NewAccess, NewEndpoint, NewSite, Site

SITE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Wanted:
    """An endpoint as it is to be stored, without its id."""

    name: str
    kind: str
    url: str | None
    settings: dict[str, Any]
    vos: tuple[tuple[str, str | None, dict[str, Any]], ...]
    credential: dict[str, str] | None

    def vo_rows(self) -> list[dict[str, Any]]:
        return [{"vo": vo, "project": project, "settings": settings} for vo, project, settings in self.vos]


class SiteRegistry:
    """The registry of sites, for those who join and keep them."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, vault: Vault, *, is_embedded: bool) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._vault = vault
        self._is_embedded = is_embedded

    async def add(self, caller: Caller, new: NewSite) -> Site:
        """A new site. Sites for others are added by operators, one's own by everybody."""
        visibility = self._check(caller, new)
        wanted = [self.wanted(one, new.vos) for one in new.endpoints]
        now = self._clock.now()
        async with self._database.begin() as tx:
            if await store.get(tx, new.name) is not None:
                hint = f"hansa site update changes it, if it is yours; hansa site show {new.name}"
                raise Fault(errors.TAKEN, f"There is a site {new.name} already.", hint=hint)
            admins = [await user_id(tx, name) for name in new.admins]
            message = f"{caller.name} added it: {', '.join(one.kind for one in wanted)}."
            await store.insert(
                tx,
                name=new.name,
                kind=wanted[0].kind,
                owner_id=caller.user_id,
                owner_name=caller.name,
                capacity=asdict(Capacity(0, 0)),
                phase="ready",
                reason="sites.ready",
                message="It takes work.",
                waiting_on=Party.NOBODY.value,
                since=now,
                created=now,
                **_described(new, visibility),
            )
            await store.set_admins(tx, new.name, admins or [caller.user_id], now)
            for one in wanted:
                await self._insert_endpoint(tx, new.name, one)
            await self._record(tx, caller, new.name, "ready", "sites.added", message, visibility)
            return await show_site(tx, caller, new.name, self._clock)

    async def change(self, caller: Caller, name: str, new: NewSite) -> Site:
        """A site as its file now says. Endpoints keep their ids, history and credentials by their names."""
        if new.name != name:
            raise Fault(INVALID, f"This file is of {new.name}, not of {name}.", hint="A site's name stays as it is.")
        visibility = self._check(caller, new, is_new=False)
        wanted = {one.name: one for one in (self.wanted(one, new.vos) for one in new.endpoints)}
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            if (row.visibility == Visibility.OWNER) != (visibility is Visibility.OWNER):
                raise Fault(INVALID, "A user's own site cannot become a shared one, nor the other way round.")
            await store.update(tx, name, kind=next(iter(wanted.values())).kind, **_described(new, visibility))
            if new.admins:
                admins = [await user_id(tx, one) for one in new.admins]
                await store.set_admins(tx, name, admins, self._clock.now())
            there = {one.name: one for one in await store.endpoints_of(tx, [name])}
            await store.delete_endpoints(tx, [one.id for word, one in there.items() if word not in wanted])
            for word, one in wanted.items():
                if word in there:
                    await self._update_endpoint(tx, there[word], one)
                else:
                    await self._insert_endpoint(tx, name, one)
            await self._record(tx, caller, name, "ready", "sites.changed", f"{caller.name} changed it.", visibility)
            return await show_site(tx, caller, name, self._clock)

    async def remove(self, caller: Caller, name: str) -> None:
        """Forget a site, its history and its credentials. What runs there is not touched."""
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            if name == LOCAL:
                hint = "Set local.enabled = false, and this computer is no site any more."
                raise Fault(errors.FORBIDDEN, "The site local is this computer.", hint=hint)
            message = f"{caller.name} removed it."
            await self._record(tx, caller, name, "gone", "sites.removed", message, Visibility(row.visibility))
            await store.delete(tx, name)

    def wanted(self, new: NewEndpoint, shared: Mapping[str, NewAccess | str | None]) -> Wanted:
        """An endpoint with everything validated. Raises Fault ``sites.kind``, ``sites.settings``, ``sites.url``."""
        kind = kind_of(new.kind)
        settings = parse_settings(new.kind, new.settings)
        if kind.has_url != (new.url is not None) and new.kind != "libcloud":
            wrong = "needs a url" if kind.has_url else "has no url; its settings say how it is reached"
            raise Fault(errors.URL, f"An endpoint of kind {new.kind} {wrong}.", hint="See the reference of site files.")
        if getattr(settings, "own_config", False) and not self._is_embedded:
            said = "own_config uses your own SSH on your own computer, which this shared server is not."
            raise Fault(errors.SETTINGS, said, hint="Add such a site to the server on your computer.")
        accesses = [_access(vo, one) for vo, one in {**shared, **new.vos}.items()]
        for _, _, more in accesses:
            parse_settings(new.kind, {**new.settings, **more})
        return Wanted(
            new.name or new.kind,
            new.kind,
            new.url.rstrip("/") if new.url else None,
            settings.model_dump(mode="json", exclude_unset=True),
            tuple(accesses),
            new.credential,
        )

    def _check(self, caller: Caller, new: NewSite, *, is_new: bool = True) -> Visibility:
        if not SITE_NAME.fullmatch(new.name) or new.name == LOCAL:
            hint = "Letters, digits and . _ - only, and not local."
            raise Fault(INVALID, f"{new.name!r} cannot name a site.", hint=hint)
        names = [one.name or one.kind for one in new.endpoints]
        if len(set(names)) < len(names):
            raise Fault(INVALID, "Two endpoints have the same name.", hint="Give each a name of its own.")
        has_vos = bool(new.vos) or any(one.vos for one in new.endpoints)
        visibility = Visibility(new.visibility or (Visibility.VOS if has_vos else Visibility.OWNER))
        if is_new and not may_add_site(caller, is_private=visibility is Visibility.OWNER):
            raise Fault(
                errors.FORBIDDEN,
                "Only operators of this server add sites for others.",
                hint="Send them the file. A site of your own has no vos, or visibility: owner.",
            )
        return visibility

    async def _insert_endpoint(self, tx: Tx, name: str, one: Wanted) -> None:
        now = self._clock.now()
        endpoint_id = new_id("endpoint")
        await store.insert_endpoint(
            tx,
            id=endpoint_id,
            site=name,
            name=one.name,
            kind=one.kind,
            url=one.url,
            settings=one.settings,
            credential=self._seal(endpoint_id, one),
            phase=Health.UNKNOWN.value,
            reason="sites.not_probed",
            message="It has not been looked at yet.",
            waiting_on=Party.HANSA.value,
            since=now,
            damping={},
            facts={},
            due_at=now,
        )
        await store.set_vos(tx, endpoint_id, one.vo_rows())

    async def _update_endpoint(self, tx: Tx, row: Any, one: Wanted) -> None:
        values: dict[str, Any] = {"kind": one.kind, "url": one.url, "settings": one.settings, "discover_at": None}
        if one.credential is not None:
            values["credential"] = self._seal(row.id, one)
        await store.update_endpoint(tx, row.id, **values)
        await store.set_vos(tx, row.id, one.vo_rows())
        await store.QUEUE.changed(tx, self._clock.now(), row.id)

    def _seal(self, endpoint_id: str, one: Wanted) -> str | None:
        if not one.credential:
            return None
        return self._vault.seal(json.dumps(one.credential).encode(), credential_context(endpoint_id))

    async def _record(
        self, tx: Tx, caller: Caller, name: str, phase: str, reason: str, message: str, visibility: Visibility
    ) -> None:
        owner = caller.user_id if visibility is Visibility.OWNER else None
        await self._events.record(tx, Event(caller.actor, f"site/{name}", phase, reason, message, owner))


async def user_id(tx: Tx, name: str) -> str:
    """The id of the user of this name. Raises Fault ``sites.no_user``."""
    found = await store.find_users(tx, name)
    if len(found) != 1:
        said = f"Several users are called {name}" if found else f"There is no user {name}"
        raise Fault(errors.NO_USER, f"{said}.", hint="hansa admin user list shows ids.")
    return str(found[0].id)


def _access(vo: str, access: NewAccess | str | None) -> tuple[str, str | None, dict[str, Any]]:
    if isinstance(access, NewAccess):
        return vo, access.project, access.settings
    return vo, access, {}


def _described(new: NewSite, visibility: Visibility) -> dict[str, Any]:
    return {
        "description": new.description,
        "country": new.country,
        "visibility": visibility.value,
        "contacts": [asdict(one) for one in new.contacts],
        "policy": asdict(new.policy),
    }
