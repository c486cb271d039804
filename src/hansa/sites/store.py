"""Tables of sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.identity.store import users
from hansa.kernel.database import Document, Moment, Tx, insert_for, metadata
from hansa.kernel.reconcile import Queue, reconcile_columns
from hansa.sites.kinds.base import Finding
from hansa.sites.model import Visibility

sites = sa.Table(
    "sites",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False, index=True),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("capacity", Document, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("country", sa.Text, nullable=False, server_default=""),
    sa.Column("visibility", sa.Text, nullable=False, server_default="owner", index=True),
    sa.Column("contacts", Document, nullable=False, server_default="[]"),
    sa.Column("policy", Document, nullable=False, server_default="{}"),
    sa.Column("drained", sa.Text),  # why; null: it takes work
    sa.Column("created", Moment),
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("url", sa.Text),
    sa.Column("settings", Document, nullable=False),
    sa.Column("credential", sa.Text),  # sealed
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("damping", Document, nullable=False),  # model of health: what it remembers
    sa.Column("facts", Document, nullable=False),  # by VO
    sa.Column("facts_at", Moment),
    sa.Column("discover_at", Moment),  # null: at once
    sa.Column("canary", Document, nullable=False, server_default="{}"),  # model of canaries: what it remembers
    *reconcile_columns(),
    sa.UniqueConstraint("site", "name"),
)

endpoint_vos = sa.Table(
    "endpoint_vos",
    metadata,
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoints.id"), primary_key=True),
    sa.Column("vo", sa.Text, primary_key=True, index=True),
    sa.Column("project", sa.Text),
    sa.Column("settings", Document, nullable=False),
)

site_roles = sa.Table(
    "site_roles",
    metadata,
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name"), primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True, index=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
)

site_bans = sa.Table(
    "site_bans",
    metadata,
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),  # user or vo
    sa.Column("who", sa.Text, primary_key=True),  # id of a user, name of a VO
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
)

downtimes = sa.Table(
    "downtimes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, sa.ForeignKey("sites.name"), nullable=False, index=True),
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoints.id")),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("planned", sa.Boolean, nullable=False),
    sa.Column("starts", Moment, nullable=False),
    sa.Column("ends", Moment, nullable=False, index=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("created", Moment, nullable=False),
)

health_spans = sa.Table(
    "health_spans",
    metadata,
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoints.id"), primary_key=True),
    sa.Column("begins", Moment, primary_key=True),
    sa.Column("ends", Moment, nullable=False, index=True),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("probes", sa.Integer, nullable=False),
    sa.Column("took_ms", sa.BigInteger, nullable=False),  # of all probes together
)

canaries = sa.Table(
    "canaries",
    metadata,
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoints.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("sent", Moment, nullable=False),
    sa.Column("ended", Moment, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),  # ran, failed, withdrawn
    sa.Column("waited_s", sa.Float),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("ix_canaries_site_sent", "site", "sent"),
)


_GET = sa.select(sites).where(sites.c.name == sa.bindparam("this"))
_GET_LOCKED = _GET.with_for_update()


async def get(tx: Tx, name: str, *, lock: bool = False) -> Any | None:
    return (await tx.execute(_GET_LOCKED if lock else _GET, {"this": name})).first()


_MANY = sa.select(sites).where(sites.c.name.in_(sa.bindparam("names", expanding=True)))


async def get_many(tx: Tx, names: Sequence[str]) -> Sequence[Any]:
    return (await tx.execute(_MANY, {"names": list(names)})).all()


_POLICY = sa.select(sites.c.policy).where(sites.c.name == sa.bindparam("this"))


async def demands_grant(tx: Tx, name: str) -> bool:
    """Whether a site takes only work of VOs with a capacity grant; one that is gone does not."""
    policy = (await tx.execute(_POLICY, {"this": name})).scalar()
    return bool(policy and policy.get("demands_grant"))


async def of_owner(tx: Tx, owner_id: str) -> Sequence[Any]:
    """The sites of this user."""
    return (await tx.execute(sa.select(sites).where(sites.c.owner_id == owner_id).order_by(sites.c.name))).all()


_OF_VOS = (
    sa.select(endpoints.c.site).join(endpoint_vos).where(endpoint_vos.c.vo.in_(sa.bindparam("vos", expanding=True)))
)
_SERVING = (
    sa.select(sites)
    .where(
        sa.or_(
            sa.and_(sites.c.visibility == Visibility.OWNER.value, sites.c.owner_id == sa.bindparam("user")),
            sites.c.visibility == Visibility.ALL.value,
            sa.and_(sites.c.visibility == Visibility.VOS.value, sites.c.name.in_(_OF_VOS)),
        )
    )
    .order_by(sites.c.name)
)


async def serving(tx: Tx, user_id: str, vos: Sequence[str]) -> Sequence[Any]:
    """The sites that are there for this user, in these VOs, by name."""
    return (await tx.execute(_SERVING, {"user": user_id, "vos": list(vos)})).all()


async def listed(tx: Tx, user_id: str, vos: Sequence[str], after: str, limit: int, *, operator: bool) -> Sequence[Any]:
    """A page of the sites that a user may see: that serve, or are administered; to operators all shared ones."""
    mine = sa.and_(sites.c.visibility == Visibility.OWNER.value, sites.c.owner_id == user_id)
    of_vo = sa.select(endpoints.c.site).join(endpoint_vos).where(endpoint_vos.c.vo.in_(vos))
    administered = sa.select(site_roles.c.site).where(site_roles.c.user_id == user_id)
    shared = sites.c.visibility != Visibility.OWNER.value
    if not operator:
        is_for_all = sites.c.visibility == Visibility.ALL.value
        shared = sa.and_(shared, sa.or_(is_for_all, sites.c.name.in_(of_vo), sites.c.name.in_(administered)))
    query = sa.select(sites).where(sites.c.name > after, sa.or_(mine, shared)).order_by(sites.c.name).limit(limit)
    return (await tx.execute(query)).all()


async def insert(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(sites), [values])


async def update(tx: Tx, name: str, **values: Any) -> None:
    await tx.execute(sa.update(sites).where(sites.c.name == name).values(**values))


async def delete(tx: Tx, name: str) -> None:
    """Forget a site and all that hangs on it."""
    await delete_endpoints(tx, [row.id for row in await endpoints_of(tx, [name])])
    for table in (downtimes, site_bans, site_roles):
        await tx.execute(sa.delete(table).where(table.c.site == name))
    await tx.execute(sa.delete(sites).where(sites.c.name == name))


_ENDPOINTS = (
    sa.select(endpoints)
    .where(endpoints.c.site.in_(sa.bindparam("names", expanding=True)))
    .order_by(endpoints.c.site, endpoints.c.name)
)


async def endpoints_of(tx: Tx, names: Iterable[str]) -> Sequence[Any]:
    return (await tx.execute(_ENDPOINTS, {"names": list(names)})).all()


async def get_endpoint(tx: Tx, endpoint_id: str) -> Any | None:
    return (await tx.execute(sa.select(endpoints).where(endpoints.c.id == endpoint_id))).first()


async def with_credentials(tx: Tx) -> Sequence[Any]:
    query = sa.select(endpoints.c.id, endpoints.c.credential).where(endpoints.c.credential.is_not(None))
    return (await tx.execute(query)).all()


async def insert_endpoint(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(endpoints), [values])


async def update_endpoint(tx: Tx, endpoint_id: str, **values: Any) -> None:
    await tx.execute(sa.update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))


async def delete_endpoints(tx: Tx, ids: Sequence[str]) -> None:
    for table in (endpoint_vos, health_spans, downtimes, canaries):
        await tx.execute(sa.delete(table).where(table.c.endpoint_id.in_(ids)))
    await tx.execute(sa.delete(endpoints).where(endpoints.c.id.in_(ids)))


_VOS = (
    sa.select(endpoint_vos)
    .where(endpoint_vos.c.endpoint_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(endpoint_vos.c.vo)
)


async def vos_of(tx: Tx, ids: Iterable[str]) -> Sequence[Any]:
    return (await tx.execute(_VOS, {"ids": list(ids)})).all()


async def set_vos(tx: Tx, endpoint_id: str, rows: Sequence[dict[str, Any]]) -> None:
    """The VOs of an endpoint, in the place of those there were."""
    await tx.execute(sa.delete(endpoint_vos).where(endpoint_vos.c.endpoint_id == endpoint_id))
    if rows:
        await tx.execute(sa.insert(endpoint_vos), [{"endpoint_id": endpoint_id, **row} for row in rows])


async def roles_of_user(tx: Tx, user_id: str, names: Iterable[str]) -> dict[str, str]:
    """The user's role at sites, by site."""
    query = sa.select(site_roles).where(site_roles.c.user_id == user_id, site_roles.c.site.in_(list(names)))
    return {row.site: row.role for row in (await tx.execute(query)).all()}


async def administered(tx: Tx, user_id: str) -> Sequence[str]:
    """The sites that a user administers."""
    query = sa.select(site_roles.c.site).where(site_roles.c.user_id == user_id).order_by(site_roles.c.site)
    return list((await tx.execute(query)).scalars())


async def admins_of(tx: Tx, name: str) -> Sequence[Any]:
    """Who administers a site, with names."""
    query = sa.select(site_roles, users.c.name).join(users).where(site_roles.c.site == name)
    return (await tx.execute(query.order_by(users.c.name))).all()


async def set_admins(tx: Tx, name: str, user_ids: Iterable[str], now: datetime) -> None:
    await tx.execute(sa.delete(site_roles).where(site_roles.c.site == name))
    rows = [{"site": name, "user_id": one, "role": "admin", "since": now} for one in sorted(set(user_ids))]
    if rows:
        await tx.execute(sa.insert(site_roles), rows)


async def find_users(tx: Tx, name: str) -> Sequence[Any]:
    """Users of this id or name, two at most: more than one means that the name says too little."""
    query = sa.select(users.c.id, users.c.name).where(sa.or_(users.c.id == name, users.c.name == name))
    return (await tx.execute(query.limit(2))).all()


async def name_of_user(tx: Tx, user_id: str) -> str:
    found: str | None = (await tx.execute(sa.select(users.c.name).where(users.c.id == user_id))).scalar()
    return found or user_id


_BANS = (
    sa.select(site_bans, users.c.name.label("user_name"))
    .outerjoin(users, users.c.id == site_bans.c.who)
    .where(site_bans.c.site.in_(sa.bindparam("sites", expanding=True)))
    .order_by(site_bans.c.since)
)


async def bans_of(tx: Tx, names: Iterable[str]) -> Sequence[Any]:
    return (await tx.execute(_BANS, {"sites": list(names)})).all()


async def vos_banned(tx: Tx, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The VOs that sites have banned, by site."""
    found: dict[str, frozenset[str]] = {}
    for row in await bans_of(tx, names):
        if row.kind == "vo":
            found[row.site] = found.get(row.site, frozenset()) | {row.who}
    return found


async def insert_ban(tx: Tx, **values: Any) -> None:
    await delete_ban(tx, values["site"], values["kind"], values["who"])
    await tx.execute(sa.insert(site_bans), [values])


async def delete_ban(tx: Tx, name: str, kind: str, who: str) -> bool:
    here = sa.and_(site_bans.c.site == name, site_bans.c.kind == kind, site_bans.c.who == who)
    return (await tx.execute(sa.delete(site_bans).where(here))).rowcount == 1


_DOWNTIMES = (
    sa.select(downtimes)
    .where(downtimes.c.site.in_(sa.bindparam("names", expanding=True)), downtimes.c.ends > sa.bindparam("after"))
    .order_by(downtimes.c.starts, downtimes.c.id)
)


async def downtimes_of(tx: Tx, names: Iterable[str], after: datetime) -> Sequence[Any]:
    """Downtimes that end after that moment, by start."""
    return (await tx.execute(_DOWNTIMES, {"names": list(names), "after": after})).all()


async def get_downtime(tx: Tx, downtime_id: str) -> Any | None:
    return (await tx.execute(sa.select(downtimes).where(downtimes.c.id == downtime_id))).first()


async def insert_downtime(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(downtimes), [values])


async def update_downtime(tx: Tx, downtime_id: str, **values: Any) -> None:
    await tx.execute(sa.update(downtimes).where(downtimes.c.id == downtime_id).values(**values))


async def delete_downtime(tx: Tx, downtime_id: str) -> None:
    await tx.execute(sa.delete(downtimes).where(downtimes.c.id == downtime_id))


async def last_span(tx: Tx, endpoint_id: str) -> Any | None:
    query = sa.select(health_spans).where(health_spans.c.endpoint_id == endpoint_id)
    return (await tx.execute(query.order_by(health_spans.c.begins.desc()).limit(1))).first()


async def add_probe(tx: Tx, endpoint_id: str, finding: Finding, now: datetime, gap: timedelta) -> None:
    """Write a probe into the history: what was found holds until the next probe, unless that comes later than ``gap``.

    A span is one row however long it lasts, so a year of an endpoint that works is a handful of rows.
    """
    last = await last_span(tx, endpoint_id)
    fresh = {"answer": finding.answer.value, "stage": finding.stage.value, "message": finding.message[:1000]}
    is_near = last is not None and now - last.ends <= gap
    if last is not None and is_near:
        here = sa.and_(health_spans.c.endpoint_id == endpoint_id, health_spans.c.begins == last.begins)
        is_same = last.answer == finding.answer
        more = {"probes": last.probes + 1, "took_ms": last.took_ms + finding.took_ms, **fresh} if is_same else {}
        await tx.execute(sa.update(health_spans).where(here).values(ends=max(now, last.ends), **more))
        if is_same:
            return
    row = {"endpoint_id": endpoint_id, "begins": now, "ends": now, **fresh, "probes": 1, "took_ms": finding.took_ms}
    insert = insert_for(tx, health_spans).values(row)
    await tx.execute(insert.on_conflict_do_update(index_elements=["endpoint_id", "begins"], set_=row))


async def spans_of(tx: Tx, ids: Iterable[str], start: datetime, end: datetime) -> Sequence[Any]:
    """The history of endpoints within a time, the oldest first."""
    inside = sa.and_(health_spans.c.ends >= start, health_spans.c.begins < end)
    query = sa.select(health_spans).where(health_spans.c.endpoint_id.in_(list(ids)), inside)
    return (await tx.execute(query.order_by(health_spans.c.begins))).all()


async def add_canary(tx: Tx, **values: Any) -> None:
    """How a canary ended. Of one number the first word counts."""
    insert = insert_for(tx, canaries).values(values)
    await tx.execute(insert.on_conflict_do_nothing(index_elements=["endpoint_id", "number"]))


async def canaries_of(tx: Tx, endpoint_id: str, start: datetime, limit: int) -> Sequence[Any]:
    """The canaries of an endpoint since then, the newest first."""
    mine = sa.and_(canaries.c.endpoint_id == endpoint_id, canaries.c.sent >= start)
    return (await tx.execute(sa.select(canaries).where(mine).order_by(canaries.c.number.desc()).limit(limit))).all()


async def canaries_at(tx: Tx, names: Iterable[str], start: datetime) -> Sequence[Any]:
    """Canaries at these sites since then that tell something: they ran, or failed."""
    told = canaries.c.state.in_(["ran", "failed"])
    query = sa.select(canaries).where(canaries.c.site.in_(list(names)), canaries.c.sent >= start, told)
    return (await tx.execute(query)).all()


async def forget_spans(tx: Tx, before: datetime) -> int:
    await tx.execute(sa.delete(canaries).where(canaries.c.ended < before))
    return (await tx.execute(sa.delete(health_spans).where(health_spans.c.ends < before))).rowcount


QUEUE = Queue("endpoints", endpoints, endpoints.c.id)
"""The work queue of probes and discovery."""
