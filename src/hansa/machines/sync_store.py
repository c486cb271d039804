"""The table of VM images at sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.images import store as image_store
from hansa.images.model import Phase as ImagePhase
from hansa.kernel.database import Moment, Tx, metadata
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import reconcile_columns
from hansa.machines.sync_model import Key, Phase
from hansa.sites import store as site_store

places = sa.Table(
    "vm_image_places",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # No foreign key: what was withdrawn and forgotten must still be removed from its sites.
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("vo", sa.Text, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text),
    sa.Column("wanted", sa.Boolean, nullable=False),
    sa.Column("provider_id", sa.Text),
    sa.Column("checked", Moment),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    *reconcile_columns(),
    sa.UniqueConstraint("version_id", "place", "vo", name="uq_vm_image_places_what"),
)


async def get(tx: Tx, place_id: str, *, lock: bool = False) -> Any | None:
    query = sa.select(places).where(places.c.id == place_id)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def all_rows(tx: Tx) -> Sequence[Any]:
    return (await tx.execute(sa.select(places))).all()


async def of_vos(tx: Tx, vos: Sequence[str] | None) -> Sequence[Any]:
    """What is at sites for these VOs (None: for all), by image and place."""
    query = sa.select(places).order_by(places.c.name, places.c.version, places.c.place, places.c.vo)
    return (await tx.execute(query if vos is None else query.where(places.c.vo.in_(vos)))).all()


async def insert(tx: Tx, key: Key, version: Any, refused: tuple[str, str] | None, now: datetime) -> None:
    """A row for a version, with the name of its image. ``refused``: what its site has against it."""
    phase = Phase.REFUSED if refused else Phase.WAITING
    reason, message = refused or ("images.waiting", "It will be brought there.")
    status = {
        "phase": phase.value, "reason": reason, "message": message, "waiting_on": "site" if refused else "hansa",
        "since": now,
    }  # fmt: skip
    values = {
        "id": new_id("imgplace"), "version_id": key[0], "place": key[1], "vo": key[2], "name": version.image,
        "version": version.version, "checksum": version.checksum, "wanted": True, "due_at": now, **status,
    }  # fmt: skip
    await tx.execute(sa.insert(places), [values])


async def update(tx: Tx, place_id: str, **values: Any) -> None:
    await tx.execute(sa.update(places).where(places.c.id == place_id).values(**values))


async def delete(tx: Tx, place_id: str) -> None:
    await tx.execute(sa.delete(places).where(places.c.id == place_id))


async def others(tx: Tx, row: Any) -> int:
    """How many other VOs want the same content at the same place."""
    same = sa.and_(
        places.c.place == row.place, places.c.checksum == row.checksum, places.c.wanted, places.c.id != row.id
    )
    return int((await tx.execute(sa.select(sa.func.count()).where(same))).scalar() or 0)


async def endorsements(tx: Tx) -> Sequence[Any]:
    return (await tx.execute(sa.select(image_store.endorsements))).all()


async def named_versions(tx: Tx, ids: Iterable[str]) -> dict[str, Any]:
    """Versions with the names of their images, by id."""
    table, images = image_store.versions, image_store.images
    about = (images.c.name.label("image"), images.c.scope, images.c.visibility)
    query = sa.select(table, *about).join(images, images.c.id == table.c.image_id)
    return {row.id: row for row in (await tx.execute(query.where(table.c.id.in_(list(ids))))).all()}


async def checksums(tx: Tx) -> set[str]:
    """Of all versions that may be started, or may become so."""
    table = image_store.versions
    query = sa.select(table.c.sha256, table.c.checksum).where(
        table.c.phase.not_in([one for one in ImagePhase if one.is_final])
    )
    rows = (await tx.execute(query)).all()
    return {f"sha256:{row.sha256}" for row in rows if row.sha256} | {row.checksum for row in rows if row.checksum}


async def endpoints(tx: Tx) -> Sequence[Any]:
    """Endpoints of clouds, with a VO each, what differs for it (``vo_settings``), and who may see the site."""
    table, vos, sites = site_store.endpoints, site_store.endpoint_vos, site_store.sites
    columns = (table.c.site, table.c.name, table.c.settings, vos.c.vo, vos.c.settings.label("vo_settings"))
    query = sa.select(*columns, sites.c.visibility).select_from(table)
    query = query.join(vos, vos.c.endpoint_id == table.c.id).join(sites, sites.c.name == table.c.site)
    return (await tx.execute(query.where(table.c.kind == "openstack"))).all()
