"""Rows as views: for other rooms, and for the API."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hansa.kernel.database import Tx
from hansa.kernel.status import Party, Status
from hansa.kernel.wire import decode
from hansa.sites import store
from hansa.sites.kinds.base import sign_in_of
from hansa.sites.model import Ban, Downtime, EndpointView, Health, Severity, SiteView, Visibility, VoAccess, Word
from hansa.sites.wire import (
    Access,
    Capacity,
    Contact,
    DowntimeView,
    Endpoint,
    Facts,
    Site,
    SitePolicy,
)

SiteRow = Any
"""A row of ``sites``."""


@dataclass
class Rows:
    """All that hangs on some sites, read in a handful of queries whatever their number."""

    sites: Sequence[Any]
    endpoints: dict[str, list[Any]] = field(default_factory=dict)
    vos: dict[str, list[Any]] = field(default_factory=dict)
    downtimes: dict[str, list[Any]] = field(default_factory=dict)
    bans: dict[str, list[Any]] = field(default_factory=dict)


async def read_rows(tx: Tx, found: Sequence[Any], now: datetime) -> Rows:
    """What belongs to these rows of sites; of downtimes those that are not over."""
    names = [row.name for row in found]
    ends = await store.endpoints_of(tx, names)
    return Rows(
        found,
        _grouped(ends, "site"),
        _grouped(await store.vos_of(tx, [row.id for row in ends]), "endpoint_id"),
        _grouped(await store.downtimes_of(tx, names, now), "site"),
        _grouped(await store.bans_of(tx, names), "site"),
    )


def _grouped(rows: Iterable[Any], key: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(getattr(row, key), []).append(row)
    return groups


def status_of(row: Any) -> Status:
    return Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since)


def policy_of(row: Any) -> SitePolicy:
    return decode(SitePolicy, row.policy)


def downtime_of(row: Any) -> Downtime:
    return Downtime(row.id, Severity(row.severity), row.planned, row.starts, row.ends, row.description, row.endpoint_id)


def site_view(rows: Rows, row: Any, user_id: str, user_name: str, vos: Collection[str]) -> SiteView:
    """A site for one user in these VOs."""
    bans = rows.bans.get(row.name, [])
    users = [one.why for one in bans if one.kind == Ban.USER and one.who == user_id]
    return SiteView(
        name=row.name,
        kind=row.kind,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        visibility=Visibility(row.visibility),
        status=status_of(row),
        capacity=decode(Capacity, row.capacity),
        policy=policy_of(row),
        endpoints=tuple(_endpoint_view(rows, one, vos) for one in rows.endpoints.get(row.name, [])),
        downtimes=tuple(downtime_of(one) for one in rows.downtimes.get(row.name, [])),
        drained=row.drained,
        banned_user=users[0] if users else None,
        banned_vos={one.who: one.why for one in bans if one.kind == Ban.VO and one.who in vos},
        user_id=user_id,
        user_name=user_name,
        country=row.country,
    )


async def words(
    tx: Tx, pairs: Collection[tuple[str, str]], known: Sequence[SiteRow] | None = None
) -> dict[tuple[str, str], Word]:
    """The word of sites on users, by (site, id of the user); without sites that are gone. ``known``: their rows."""
    read = await store.get_many(tx, sorted({site for site, _ in pairs})) if known is None else known
    rows = {row.name: row for row in read}
    bans = await store.bans_of(tx, rows)
    found: dict[tuple[str, str], Word] = {}
    for site, user_id in pairs:
        if (row := rows.get(site)) is None:
            continue
        policy, here = policy_of(row), [one for one in bans if one.site == site]
        name = await store.name_of_user(tx, user_id) if policy.users is not None else user_id
        users = [one.why for one in here if one.kind == Ban.USER and one.who == user_id]
        vos = {one.who: one.why for one in here if one.kind == Ban.VO}
        found[site, user_id] = Word(site, policy, row.drained, users[0] if users else None, vos, user_id, name)
    return found


def _endpoint_view(rows: Rows, row: Any, vos: Collection[str]) -> EndpointView:
    served = rows.vos.get(row.id, [])
    return EndpointView(
        id=row.id,
        name=row.name,
        kind=row.kind,
        url=row.url,
        settings=row.settings,
        health=status_of(row),
        vos={one.vo: VoAccess(one.vo, one.project, one.settings) for one in served if one.vo in vos},
        is_for_vos=bool(served),
        facts={vo: decode(Facts, facts) for vo, facts in row.facts.items() if not vo or vo in vos},
        facts_at=row.facts_at,
    )


def shown_site(rows: Rows, row: Any, vos: Collection[str] | None, roles: Sequence[str]) -> Site:
    """A site as the API shows it: to administrators (``vos`` None) with all its VOs and settings."""
    ends = rows.endpoints.get(row.name, [])
    served = {one.vo for end in ends for one in rows.vos.get(end.id, [])}
    names = {end.id: end.name for end in ends}
    return Site(
        name=row.name,
        kind=row.kind,
        owner=row.owner_name,
        status=status_of(row),
        capacity=decode(Capacity, row.capacity),
        description=row.description,
        country=row.country,
        visibility=row.visibility,
        contacts=[decode(Contact, one) for one in row.contacts],
        endpoints=[_shown_endpoint(rows, end, vos) for end in ends],
        vos=sorted(served if vos is None else served & set(vos)),
        policy=policy_of(row),
        downtimes=[shown_downtime(one, names) for one in rows.downtimes.get(row.name, [])],
        drained=row.drained,
        my_roles=list(roles),
    )


def _shown_endpoint(rows: Rows, row: Any, vos: Collection[str] | None) -> Endpoint:
    served = [one for one in rows.vos.get(row.id, []) if vos is None or one.vo in vos]
    return Endpoint(
        id=row.id,
        name=row.name,
        kind=row.kind,
        url=row.url,
        health=status_of(row),
        vos=[Access(one.vo, one.project, one.settings) for one in served],
        settings=row.settings if vos is None else None,
        sign_in=sign_in_of(row.kind, row.settings),
        has_credential=row.credential is not None,
        discovered=row.facts_at,
    )


def shown_downtime(row: Any, endpoint_names: dict[str, str]) -> DowntimeView:
    """A downtime as the API shows it."""
    return DowntimeView(
        row.id,
        row.site,
        row.severity,
        row.planned,
        row.starts,
        row.ends,
        row.description,
        endpoint_names.get(row.endpoint_id) if row.endpoint_id else None,
        row.by,
    )


def site_status(row: Any, ends: Sequence[Any], now: datetime) -> Status:
    """How a site is, from its endpoints: ready while one takes work, else what the first of the others says."""
    bad = [one for one in ends if not Health(one.phase).takes_work]
    if row.drained is not None:
        why = f": {row.drained}" if row.drained else "."
        return _status(row, now, "drained", "sites.drained", f"It takes no new work{why}", Party.SITE)
    if not ends or len(bad) < len(ends):
        some = f" {len(bad)} of {len(ends)} endpoints do not work." if bad else ""
        return _status(row, now, "ready", "sites.ready", f"It takes work.{some}", Party.NOBODY)
    return _status(row, now, "failing", bad[0].reason, bad[0].message, Party(bad[0].waiting_on))


def _status(row: Any, now: datetime, phase: str, reason: str, message: str, waiting_on: Party) -> Status:
    since = row.since if row.phase == phase else now
    return Status(phase, reason, message, waiting_on, since)
