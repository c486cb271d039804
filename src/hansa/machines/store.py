"""Tables of machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, metadata
from hansa.kernel.reconcile import Queue, reconcile_columns
from hansa.kernel.wire import decode, encode
from hansa.placement.failover import Attempt, Course

Column = Literal["name", "vo", "site", "state", "created", "updated", "expires"]


@dataclass(frozen=True)
class Search:
    """Which machines a table shows: with this word in name, VO, site, image or address, in this state, so sorted."""

    word: str = ""
    phase: str = ""
    sort: Column = "name"
    down: bool = False
    skip: int = 0
    limit: int = 50


machines = sa.Table(
    "machines",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # the idempotency key at every provider
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("vo", sa.Text, index=True),
    sa.Column("vo_group", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("spec", Document, nullable=False),  # as asked: wire.NewMachine
    sa.Column("image_version_id", sa.Text, index=True),  # None: an image of the site's own
    sa.Column("image", Document, nullable=False),  # name, version, checksum, format, login, arch
    sa.Column("course", Document, nullable=False),
    sa.Column("sizes", Document, nullable=False),  # by place: what it gets there
    sa.Column("place", sa.Text, index=True),  # SITE or SITE/ENDPOINT, of the current attempt
    sa.Column("resize_to", Document),
    sa.Column("wanted", sa.Text, nullable=False),
    sa.Column("reboots", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("hard", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("ports_open", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("seen", Document, nullable=False),  # as last observed
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("running_since", Moment),
    sa.Column("charged_until", Moment),
    sa.Column("missing_since", Moment),
    sa.Column("expires", Moment),
    sa.Column("site_ends", Moment),  # when its site's policy has it deleted; null: never
    sa.Column("warned", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("ended", Moment, index=True),
    sa.Column("pilot_id", sa.Text, index=True),  # for whose tasks it was made; null: for its owner to use
    sa.Column("let_go", sa.Boolean, nullable=False, server_default=sa.false()),  # that pilot needs it no more
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    *reconcile_columns(),
    sa.Index(
        "uq_machines_name",
        "owner_id",
        "name",
        unique=True,
        sqlite_where=sa.text("phase <> 'deleted'"),
        postgresql_where=sa.text("phase <> 'deleted'"),
    ),
)

_SORTED_BY: dict[Column, sa.Column[Any]] = {
    "name": machines.c.name, "vo": machines.c.vo, "site": machines.c.place, "state": machines.c.phase,
    "created": machines.c.created, "updated": machines.c.since, "expires": machines.c.expires,
}  # fmt: skip

QUEUE = Queue("machines", machines, machines.c.id)

_GET = sa.select(machines).where(machines.c.id == sa.bindparam("which"))
_LOCK = _GET.with_for_update()


def load_course(document: Any) -> Course:
    """A course as it was stored."""
    attempts = tuple(decode(Attempt, one) for one in document["attempts"])
    return Course(tuple(document["order"]), document["limit"], document["timeout_s"], attempts)


def dump_course(course: Course) -> dict[str, Any]:
    """A course as JSON."""
    found: dict[str, Any] = encode(course)
    return found


_INSERT = sa.insert(machines).returning(*machines.c)


async def insert(tx: Tx, **values: Any) -> Any:
    """The new row."""
    return (await tx.execute(_INSERT, values)).one()


async def get(tx: Tx, machine_id: str, *, lock: bool = False) -> Any | None:
    return (await tx.execute(_LOCK if lock else _GET, {"which": machine_id})).first()


async def find(tx: Tx, owner_id: str, name: str, *, lock: bool = False) -> Any | None:
    """A machine by its name or id; deleted ones by id only."""
    by_name = sa.and_(machines.c.name == name, machines.c.phase != "deleted")
    query = sa.select(machines).where(machines.c.owner_id == owner_id, sa.or_(by_name, machines.c.id == name))
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def of_pilot(tx: Tx, pilot_id: str) -> Any | None:
    """The machine that was made for a pilot, until it is let go of."""
    mine = sa.and_(machines.c.pilot_id == pilot_id, ~machines.c.let_go)
    return (await tx.execute(sa.select(machines).where(mine))).first()


_NAMES = sa.select(machines.c.name).where(
    machines.c.owner_id == sa.bindparam("owner"),
    machines.c.phase != "deleted",
    machines.c.name.like(sa.bindparam("like"), escape="/"),
)


async def names(tx: Tx, owner_id: str, start: str) -> set[str]:
    """The names of an owner's machines that begin so."""
    like = re.sub(r"([%_/])", r"/\1", start) + "%"
    return set((await tx.execute(_NAMES, {"owner": owner_id, "like": like})).scalars())


async def listed(
    tx: Tx, owner_id: str, after: tuple[str, str] | None, limit: int, *, place: str | None, with_deleted: bool
) -> Sequence[Any]:
    """An owner's machines by name; ``place``: at this site only."""
    query = sa.select(machines).where(machines.c.owner_id == owner_id)
    if not with_deleted:
        query = query.where(machines.c.phase != "deleted")
    if place is not None:
        query = query.where(
            sa.or_(machines.c.place == place, machines.c.place.startswith(f"{place}/", autoescape=True))
        )
    if after is not None:
        key = sa.tuple_(machines.c.name, machines.c.id)
        query = query.where(key > sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
    return (await tx.execute(query.order_by(machines.c.name, machines.c.id).limit(limit))).all()


async def search(tx: Tx, owner_id: str, wanted: Search) -> tuple[Sequence[Any], int]:
    """A page of an owner's machines, and how many there are in all. What has no value comes last, either way."""
    is_it = [machines.c.owner_id == owner_id]
    is_it.append(machines.c.phase == wanted.phase if wanted.phase else machines.c.phase != "deleted")
    if wanted.word:
        texts = (machines.c.name, machines.c.vo, machines.c.place, machines.c.image["name"].as_string(),
                 machines.c.seen["public"].as_string())  # fmt: skip
        is_it.append(sa.or_(*(text.icontains(wanted.word, autoescape=True) for text in texts)))
    column = _SORTED_BY[wanted.sort]
    order = (column.is_(None), column.desc() if wanted.down else column, machines.c.name, machines.c.id)
    query = sa.select(machines).where(*is_it).order_by(*order).limit(wanted.limit).offset(wanted.skip)
    number = (await tx.execute(sa.select(sa.func.count()).select_from(machines).where(*is_it))).scalar()
    return (await tx.execute(query)).all(), int(number or 0)


async def update(tx: Tx, machine_id: str, **values: Any) -> None:
    """Values may be expressions of SQL."""
    plain = {name: value for name, value in values.items() if not isinstance(value, sa.ClauseElement)}
    query = _updating(tuple(sorted(plain)))
    if len(plain) < len(values):
        query = query.values({name: value for name, value in values.items() if name not in plain})
    await tx.execute(query, {"which": machine_id} | {f"new_{name}": value for name, value in plain.items()})


@lru_cache(maxsize=64)
def _updating(names: tuple[str, ...]) -> sa.Update:
    """Built once for each set of columns: to build a statement costs as much as to execute it."""
    new = {name: sa.bindparam(f"new_{name}", type_=machines.c[name].type) for name in names}
    mine = machines.c.id == sa.bindparam("which")
    return sa.update(machines).where(mine).values({**new, "version": machines.c.version + 1})


async def counted(tx: Tx, owner_id: str, place: str) -> int:
    """How many machines an owner has at a site, deleted ones left out."""
    here = sa.or_(machines.c.place == place, machines.c.place.startswith(f"{place}/", autoescape=True))
    query = sa.select(sa.func.count()).where(machines.c.owner_id == owner_id, machines.c.phase != "deleted", here)
    return int((await tx.execute(query)).scalar() or 0)


async def forget_deleted(tx: Tx, before: Any) -> int:
    """Forget machines that were deleted before then; how many."""
    old = sa.and_(machines.c.phase == "deleted", machines.c.ended < before)
    return (await tx.execute(sa.delete(machines).where(old))).rowcount
