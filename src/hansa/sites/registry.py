"""Joining, changing and removing sites: the use cases of their administrators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hansa.engines.egress import EgressPolicy
from hansa.identity.model import Caller
from hansa.identity.policy import may_add_site
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault, Permanent
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.secrets import Vault
from hansa.kernel.status import Party
from hansa.sites import egi, errors, store
from hansa.sites.canaries import Canary
from hansa.sites.kinds.base import kind_of, parse_settings
from hansa.sites.model import Health, Visibility
from hansa.sites.service import LOCAL, allow, credential_context, show_site
from hansa.sites.wire import Capacity, ImportedSite, ImportReport, ImportRequest, NewAccess, NewEndpoint, NewSite, Site

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

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        vault: Vault,
        *,
        is_embedded: bool,
        egress: EgressPolicy | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._vault = vault
        self._is_embedded = is_embedded
        self._egress = egress or EgressPolicy(allow_private=is_embedded)

    async def add(self, caller: Caller, new: NewSite) -> Site:
        """A new site. Sites for others are added by operators, one's own by everybody."""
        visibility = self.check(caller, new)
        wanted = [self.wanted(one, new.vos) for one in new.endpoints]
        async with self._database.begin() as tx:
            if await store.get(tx, new.name) is not None:
                hint = f"hansa site update changes it, if it is yours; hansa site show {new.name}"
                raise Fault(errors.TAKEN, f"There is a site {new.name} already.", hint=hint)
            await self._insert(tx, caller, new, wanted, visibility)
            return await show_site(tx, caller, new.name, self._clock)

    async def change(self, caller: Caller, name: str, new: NewSite) -> Site:
        """A site as its file now says. Endpoints keep their ids, history and credentials by their names."""
        if new.name != name:
            raise Fault(INVALID, f"This file is of {new.name}, not of {name}.", hint="A site's name stays as it is.")
        visibility = self.check(caller, new, is_new=False)
        wanted = [self.wanted(one, new.vos) for one in new.endpoints]
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            if (row.visibility == Visibility.OWNER) != (visibility is Visibility.OWNER):
                raise Fault(INVALID, "A user's own site cannot become a shared one, nor the other way round.")
            await store.update(tx, name, **_described(new, visibility))
            if new.admins:
                admins = [await user_id(tx, one) for one in new.admins]
                await store.set_admins(tx, name, admins, self._clock.now())
            await self._replace_endpoints(tx, name, wanted)
            await self._record(tx, caller, name, "ready", "sites.changed", f"{caller.name} changed it.", visibility)
            return await show_site(tx, caller, name, self._clock)

    async def import_sites(self, caller: Caller, request: ImportRequest) -> ImportReport:
        """Sites of the EGI federation's files, all or none: new ones are added, those there were brought up to date.

        What is kept here only (policy, contacts, administrators, downtimes) stays. For operators.
        """
        if not may_add_site(caller, is_private=False):
            raise Fault(errors.FORBIDDEN, "Only operators of this server import sites.")
        found = egi.read_sites(request.documents, request.vo_mappings)
        wanted = {one.site.name: [self.wanted(end, {}) for end in one.site.endpoints] for one in found}
        for one in found:
            self.check(caller, one.site)
        items = []
        async with self._database.begin() as tx:
            there = {row.name: row for row in await store.get_many(tx, list(wanted))}
            for one in found:
                name = one.site.name
                row = there.get(name)
                if row is None:
                    await self._insert(tx, caller, one.site, wanted[name], Visibility.VOS)
                    outcome = "added"
                elif row.visibility == Visibility.OWNER:
                    outcome = "refused"
                    one.notes.append(f"Somebody's own site is called {name}.")
                else:
                    has_changed = await self._replace_endpoints(tx, name, wanted[name])
                    outcome = "changed" if has_changed else "unchanged"
                if outcome == "changed":
                    said = f"{caller.name} imported it anew."
                    await self._record(tx, caller, name, "ready", "sites.changed", said, Visibility.VOS)
                vos = len({vo for end in wanted[name] for vo, _, _ in end.vos})
                items.append(ImportedSite(name, outcome, one.files, len(wanted[name]), vos, one.notes))
        return ImportReport(items)

    async def remove(self, caller: Caller, name: str) -> None:
        """Forget a site, its history and its credentials. What runs there is not touched."""
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            if name == LOCAL:
                hint = "Set local.enabled = false, and this computer is no site any more."
                raise Fault(errors.FORBIDDEN, "The site local is this computer.", hint=hint)
            _refuse_canaries(name, await store.endpoints_of(tx, [name]))
            message = f"{caller.name} removed it."
            await self._record(tx, caller, name, "gone", "sites.removed", message, Visibility(row.visibility))
            await store.delete(tx, name)

    def wanted(self, new: NewEndpoint, shared: Mapping[str, NewAccess | str | None]) -> Wanted:
        """An endpoint with everything validated. Raises Fault ``sites.kind``, ``sites.settings``, ``sites.url``."""
        if new.kind == LOCAL:
            said = "The computer of this server is its site local by itself; no site file can name it."
            hint = "What of it is offered is set in config.toml ([local]). Another computer is an endpoint of kind ssh."
            raise Fault(errors.KIND, said, hint=hint)
        kind = kind_of(new.kind)
        settings = parse_settings(new.kind, new.settings)
        if kind.has_url != (new.url is not None) and new.kind != "libcloud":
            wrong = "needs a url" if kind.has_url else "has no url; its settings say how it is reached"
            raise Fault(errors.URL, f"An endpoint of kind {new.kind} {wrong}.", hint="See the reference of site files.")
        if new.url is not None:
            try:
                self._egress.check_url(new.url)
            except Permanent as error:
                raise Fault(errors.URL, str(error), hint="See the setting sites.networks.") from error
        own = [name for name in ("own_config", "here") if getattr(settings, name, False)]
        if own and not self._is_embedded:
            said = f"{own[0]} is for a server on your own computer, which this shared one is not."
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

    def check(self, caller: Caller, new: NewSite, *, is_new: bool = True) -> Visibility:
        """For whom the site is there. Raises Fault where the site as a whole cannot be, or the caller may not."""
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

    async def _insert(
        self, tx: Tx, caller: Caller, new: NewSite, wanted: Sequence[Wanted], visibility: Visibility
    ) -> None:
        now = self._clock.now()
        admins = [await user_id(tx, name) for name in new.admins]
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
        await self._replace_endpoints(tx, new.name, wanted)
        message = f"{caller.name} added it: {', '.join(one.kind for one in wanted)}."
        await self._record(tx, caller, new.name, "ready", "sites.added", message, visibility)

    async def _replace_endpoints(self, tx: Tx, name: str, wanted: Sequence[Wanted]) -> bool:
        """Endpoints as they are wanted; those of the same name keep id, history and credential. Whether any changed."""
        there = {row.name: row for row in await store.endpoints_of(tx, [name])}
        names = {one.name for one in wanted}
        gone = [row.id for word, row in there.items() if word not in names]
        if gone:
            _refuse_canaries(name, [row for word, row in there.items() if word not in names])
            await store.delete_endpoints(tx, gone)
        has_changed = bool(gone)
        vos: dict[str, list[Any]] = {}
        for row in await store.vos_of(tx, [row.id for row in there.values()]):
            vos.setdefault(row.endpoint_id, []).append(row)
        for one in wanted:
            row = there.get(one.name)
            if row is None:
                await self._insert_endpoint(tx, name, one)
            elif _is_as(one, row, vos.get(row.id, [])):
                continue
            else:
                await self._update_endpoint(tx, row, one)
            has_changed = True
        if has_changed:
            await store.update(tx, name, kind=wanted[0].kind)
            tx.ring(store.QUEUE.topic)
        return has_changed

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
        values["canary"] = {**row.canary, "again_at": None}  # what is new is tried at once, where the site agreed
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


def _refuse_canaries(site: str, rows: Iterable[Any]) -> None:
    """Raises Fault ``sites.in_use`` where a canary is out at an endpoint that answers: it would be forgotten there."""
    for row in rows:
        if Canary.load(row.canary).since is not None and row.phase == Health.UP:
            said = f"A canary is out at {site} ({row.name}), and only this server knows of it."
            hint = f"hansa site drain {site} takes it back within a minute or two; then try again."
            raise Fault(errors.IN_USE, said, hint=hint)


async def user_id(tx: Tx, name: str) -> str:
    """The id of the user of this name. Raises Fault ``sites.no_user``."""
    found = await store.find_users(tx, name)
    if len(found) != 1:
        said = f"Several users are called {name}" if found else f"There is no user {name}"
        raise Fault(errors.NO_USER, f"{said}.", hint="hansa admin user list shows ids.")
    return str(found[0].id)


def _is_as(one: Wanted, row: Any, vos: Sequence[Any]) -> bool:
    """Whether a stored endpoint is what is wanted. A credential that is given may be another one."""
    same_vos = sorted(one.vos, key=lambda each: each[0]) == [(vo.vo, vo.project, vo.settings) for vo in vos]
    same = (one.kind, one.url, one.settings) == (row.kind, row.url, row.settings)
    return same and same_vos and one.credential is None


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
