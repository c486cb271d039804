"""Tables of VM images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, insert_ignore, metadata
from hansa.kernel.reconcile import reconcile_columns

TOPIC = "vm_images"
"""The bell of what may be started: an endorsement, or a version's phase, has changed."""

images = sa.Table(
    "vm_images",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),  # "preset", "vo/NAME", "user/ID": names are unique in it
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("vo", sa.Text),
    sa.Column("visibility", sa.Text, nullable=False),
    sa.Column("about", Document, nullable=False),  # title, description, os…: what nobody searches by
    sa.Column("created", Moment, nullable=False),
    sa.UniqueConstraint("scope", "name", name="uq_vm_images_name"),
)

versions = sa.Table(
    "vm_image_versions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Text, sa.ForeignKey("vm_images.id"), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # an address, "upload" or "snapshot"
    sa.Column("sums", sa.Text),  # address of a file of checksums, until it has pinned the version
    sa.Column("checksum", sa.Text),  # what the content must have
    sa.Column("sha256", sa.Text, index=True),  # what it has: the depot's name of it
    sa.Column("declared", sa.Text),
    sa.Column("format", sa.Text),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("virtual_bytes", sa.BigInteger),
    sa.Column("done_bytes", sa.BigInteger, nullable=False),
    sa.Column("wanted", sa.Boolean, nullable=False),  # whether the content shall be here
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("subscription_id", sa.Text, index=True),
    sa.Column("place", sa.Text),  # of a snapshot that is kept at its site: machines of it start there only
    sa.Column("provider_id", sa.Text),  # what that site calls it
    *reconcile_columns(),
    sa.UniqueConstraint("image_id", "version", name="uq_vm_image_versions_version"),
)

endorsements = sa.Table(
    "vm_endorsements",
    metadata,
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), primary_key=True),
    sa.Column("image_id", sa.Text, sa.ForeignKey("vm_images.id"), primary_key=True, index=True),
    sa.Column("version_id", sa.Text, sa.ForeignKey("vm_image_versions.id")),  # None: the newest that is ready
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("until", Moment),
)

policies = sa.Table(
    "vo_image_policies",
    metadata,
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), primary_key=True),
    sa.Column("site_images", sa.Boolean, nullable=False),
    sa.Column("registries", Document),
    sa.Column("is_listed", sa.Boolean, nullable=False, server_default=sa.false()),  # its list is for everybody
)

signer = sa.Table(
    "vm_list_signer",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("private", sa.Text, nullable=False),  # sealed
    sa.Column("certificate", sa.Text, nullable=False),
)

subscriptions = sa.Table(
    "vm_image_subscriptions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), nullable=False, index=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("authorities", sa.Text),
    sa.Column("endorser", sa.Text),
    sa.Column("every_s", sa.BigInteger, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("identifier", sa.Text),
    sa.Column("version", sa.Text),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("read", Moment),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    *reconcile_columns(),
    sa.UniqueConstraint("vo", "url", name="uq_vm_image_subscriptions_url"),
)


async def insert_image(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(images), [values])


async def find_image(tx: Tx, scope: str, name: str) -> Any | None:
    query = sa.select(images).where(images.c.scope == scope, images.c.name == name)
    return (await tx.execute(query)).first()


_IMAGE = sa.select(images).where(images.c.id == sa.bindparam("which"))


async def get_image(tx: Tx, image_id: str) -> Any | None:
    return (await tx.execute(_IMAGE, {"which": image_id})).first()


@dataclass(frozen=True)
class Reader:
    """Somebody in these VOs."""

    user_id: str
    vos: tuple[str, ...]


_READER_VOS: sa.BindParameter[Any] = sa.bindparam("reader_vos", expanding=True)
_VISIBLE = sa.or_(
    images.c.owner_id == sa.bindparam("reader"),
    sa.and_(images.c.vo.in_(_READER_VOS), images.c.visibility != "owner"),
    images.c.visibility == "all",
    images.c.id.in_(sa.select(endorsements.c.image_id).where(endorsements.c.vo.in_(_READER_VOS))),
)
"""Own ones, those of the reader's VOs, those for all, and what the VOs endorse."""
_NAMED = sa.select(images).where(images.c.name == sa.bindparam("name"))
_NAMED_VISIBLE = _NAMED.where(_VISIBLE)


def _seen_by(reader: Reader) -> dict[str, Any]:
    return {"reader": reader.user_id, "reader_vos": list(reader.vos)}


async def list_images(tx: Tx, reader: Reader | None, after: tuple[str, str], limit: int) -> Sequence[Any]:
    """Images that a reader may see (None: all), by name and scope."""
    behind = sa.tuple_(images.c.name, images.c.scope) > sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
    query = sa.select(images).where(behind).order_by(images.c.name, images.c.scope).limit(limit)
    if reader is None:
        return (await tx.execute(query)).all()
    return (await tx.execute(query.where(_VISIBLE), _seen_by(reader))).all()


async def named(tx: Tx, reader: Reader | None, name: str) -> Sequence[Any]:
    """Images of this name that a reader may see; None: all."""
    if reader is None:
        return (await tx.execute(_NAMED, {"name": name})).all()
    return (await tx.execute(_NAMED_VISIBLE, {"name": name} | _seen_by(reader))).all()


async def update_image(tx: Tx, image_id: str, **values: Any) -> None:
    await tx.execute(sa.update(images).where(images.c.id == image_id).values(**values))


async def delete_image(tx: Tx, image_id: str) -> None:
    await tx.execute(sa.delete(endorsements).where(endorsements.c.image_id == image_id))
    await tx.execute(sa.delete(versions).where(versions.c.image_id == image_id))
    await tx.execute(sa.delete(images).where(images.c.id == image_id))


async def insert_version(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(versions), [values])


_VERSION = sa.select(versions).where(versions.c.id == sa.bindparam("which"))
_VERSION_LOCKED = _VERSION.with_for_update()


async def get_version(tx: Tx, version_id: str, *, lock: bool = False) -> Any | None:
    return (await tx.execute(_VERSION_LOCKED if lock else _VERSION, {"which": version_id})).first()


async def find_version(tx: Tx, image_id: str, version: str) -> Any | None:
    query = sa.select(versions).where(versions.c.image_id == image_id, versions.c.version == version)
    return (await tx.execute(query)).first()


_VERSIONS = (
    sa.select(versions)
    .where(versions.c.image_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(versions.c.id.desc())
)


async def versions_of(tx: Tx, image_ids: Sequence[str]) -> Sequence[Any]:
    """Versions of images, the newest first (ids sort by time)."""
    return (await tx.execute(_VERSIONS, {"ids": list(image_ids)})).all()


async def update_version(tx: Tx, version_id: str, **values: Any) -> None:
    await tx.execute(sa.update(versions).where(versions.c.id == version_id).values(**values))


async def of_subscription(tx: Tx, subscription_id: str) -> Sequence[Any]:
    query = sa.select(versions, images.c.name).join(images, images.c.id == versions.c.image_id)
    return (await tx.execute(query.where(versions.c.subscription_id == subscription_id))).all()


async def uses_of(tx: Tx, sha256: str) -> int:
    """How many versions, not withdrawn, have this content."""
    query = sa.select(sa.func.count()).where(
        versions.c.sha256 == sha256, versions.c.phase.not_in(("withdrawn", "expired", "refused"))
    )
    return int((await tx.execute(query)).scalar() or 0)


async def endorsements_of(tx: Tx, image_ids: Sequence[str]) -> Sequence[Any]:
    query = sa.select(endorsements).where(endorsements.c.image_id.in_(image_ids)).order_by(endorsements.c.vo)
    return (await tx.execute(query)).all()


async def get_endorsement(tx: Tx, vo: str, image_id: str) -> Any | None:
    query = sa.select(endorsements).where(endorsements.c.vo == vo, endorsements.c.image_id == image_id)
    return (await tx.execute(query)).first()


async def put_endorsement(tx: Tx, vo: str, image_id: str, **values: Any) -> None:
    await remove_endorsement(tx, vo, image_id)
    await tx.execute(sa.insert(endorsements), [{"vo": vo, "image_id": image_id, **values}])


async def remove_endorsement(tx: Tx, vo: str, image_id: str) -> bool:
    here = sa.and_(endorsements.c.vo == vo, endorsements.c.image_id == image_id)
    return (await tx.execute(sa.delete(endorsements).where(here))).rowcount > 0


async def endorsed_by(tx: Tx, vo: str) -> Sequence[Any]:
    """Images that a VO endorses, with the endorsement."""
    query = sa.select(
        images, endorsements.c.version_id, endorsements.c.until, endorsements.c.by, endorsements.c.since
    ).join(endorsements, endorsements.c.image_id == images.c.id)
    return (await tx.execute(query.where(endorsements.c.vo == vo).order_by(images.c.name, images.c.scope))).all()


async def get_policy(tx: Tx, vo: str) -> Any | None:
    return (await tx.execute(sa.select(policies).where(policies.c.vo == vo))).first()


async def put_policy(tx: Tx, vo: str, **values: Any) -> None:
    await tx.execute(sa.delete(policies).where(policies.c.vo == vo))
    await tx.execute(sa.insert(policies), [{"vo": vo, **values}])


async def is_listed(tx: Tx, version_id: str, now: datetime) -> bool:
    """Whether a VO endorses this version and lets everybody see what it endorses."""
    one = endorsements
    query = sa.select(versions.c.id).join(one, one.c.image_id == versions.c.image_id)
    query = query.join(policies, sa.and_(policies.c.vo == one.c.vo, policies.c.is_listed))
    good = sa.and_(
        sa.or_(one.c.version_id.is_(None), one.c.version_id == versions.c.id),
        sa.or_(one.c.until.is_(None), one.c.until > now),
    )
    return (await tx.execute(query.where(versions.c.id == version_id, good))).first() is not None


_SIGNER = "signer"


async def get_signer(tx: Tx) -> Any | None:
    return (await tx.execute(sa.select(signer).where(signer.c.id == _SIGNER))).first()


async def insert_signer(tx: Tx, private: str, certificate: str) -> None:
    """Keep it, unless another server was first."""
    await tx.execute(insert_ignore(tx, signer), [{"id": _SIGNER, "private": private, "certificate": certificate}])


async def update_signer(tx: Tx, private: str) -> None:
    await tx.execute(sa.update(signer).values(private=private))


async def insert_subscription(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(subscriptions), [values])


async def get_subscription(tx: Tx, subscription_id: str, *, lock: bool = False) -> Any | None:
    query = sa.select(subscriptions).where(subscriptions.c.id == subscription_id)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def subscriptions_of(tx: Tx, vo: str) -> Sequence[Any]:
    query = sa.select(subscriptions).where(subscriptions.c.vo == vo).order_by(subscriptions.c.id)
    return (await tx.execute(query)).all()


async def update_subscription(tx: Tx, subscription_id: str, **values: Any) -> None:
    await tx.execute(sa.update(subscriptions).where(subscriptions.c.id == subscription_id).values(**values))


async def delete_subscription(tx: Tx, subscription_id: str) -> None:
    await tx.execute(sa.delete(subscriptions).where(subscriptions.c.id == subscription_id))
