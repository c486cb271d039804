"""Tables of identity."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, insert_for, metadata

_KEYS_LOCK = 0x48414E534B  # "HANSK"

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("sub", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("operator", sa.Boolean, nullable=False),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.UniqueConstraint("issuer", "sub"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("pilot_id", sa.Text, index=True),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("key_hash", sa.Text),  # of a pilot's: of the key that it is bound to, since its first word
    sa.Column("misused", Moment),  # of a pilot's: when it was first shown without that key
)

passwords = sa.Table(
    "passwords",
    metadata,
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed", Moment, nullable=False),
)

login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("last", Moment, nullable=False, index=True),
)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id")),
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), index=True),
    sa.Column("roles", Document, nullable=False),
    sa.Column("groups", Document, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment, nullable=False),
    sa.Column("used", Moment),
    sa.Column("used_by", sa.Text),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("public", Document, nullable=False),
    sa.Column("private", sa.Text, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("retired", Moment),
)

_FIND_TOKEN = (  # built once: every request executes it
    sa.select(tokens, users.c.name, users.c.operator, users.c.suspended)
    .join(users)
    .where(tokens.c.hash == sa.bindparam("digest"))
)


async def find_token(tx: Tx, digest: str) -> Any | None:
    """The token's row with its user's columns, or None."""
    return (await tx.execute(_FIND_TOKEN, {"digest": digest})).first()


async def find_user(tx: Tx, issuer: str, sub: str) -> Any | None:
    return (await tx.execute(sa.select(users).where(users.c.issuer == issuer, users.c.sub == sub))).first()


_USER = sa.select(users).where(users.c.id == sa.bindparam("which"))


async def get_user(tx: Tx, user_id: str) -> Any | None:
    return (await tx.execute(_USER, {"which": user_id})).first()


async def insert_user(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(users), [values])


async def insert_token(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(tokens), [values])


async def delete_pilot_tokens(tx: Tx, pilot_id: str) -> None:
    await tx.execute(sa.delete(tokens).where(tokens.c.pilot_id == pilot_id))


async def bind_pilot_token(tx: Tx, pilot_id: str, key_hash: str) -> bool:
    """Bind a pilot's token to a key, if it is to none yet; whether it is bound to that one now."""
    mine = tokens.c.pilot_id == pilot_id
    await tx.execute(sa.update(tokens).where(mine, tokens.c.key_hash.is_(None)).values(key_hash=key_hash))
    return (await tx.execute(sa.select(tokens.c.key_hash).where(mine))).scalar() == key_hash


async def is_misused_for_the_first_time(tx: Tx, pilot_id: str, now: datetime) -> bool:
    """Note that a pilot's token was shown without its key; whether that is news."""
    query = sa.update(tokens).where(tokens.c.pilot_id == pilot_id, tokens.c.misused.is_(None)).values(misused=now)
    return (await tx.execute(query)).rowcount > 0


async def renew_pilot_tokens(tx: Tx, pilot_id: str, before: datetime, until: datetime) -> None:
    query = sa.update(tokens).where(tokens.c.pilot_id == pilot_id, tokens.c.expires < before)
    await tx.execute(query.values(expires=until))


async def delete_expired(tx: Tx, now: datetime) -> int:
    return (await tx.execute(sa.delete(tokens).where(tokens.c.expires < now))).rowcount


async def list_users(tx: Tx, after: str | None, limit: int, word: str = "") -> Any:
    """Users by name; with ``word`` those who have it in name or id."""
    query = sa.select(users).order_by(users.c.name, users.c.id).limit(limit)
    if word:
        query = query.where(sa.or_(users.c.name.icontains(word, autoescape=True), users.c.id == word))
    return (await tx.execute(query if after is None else query.where(users.c.name > after))).all()


async def set_suspended(tx: Tx, user_id: str, *, suspended: bool) -> None:
    await tx.execute(sa.update(users).where(users.c.id == user_id).values(suspended=suspended))


async def find_password(tx: Tx, user_id: str) -> str | None:
    found: str | None = (await tx.execute(sa.select(passwords.c.hash).where(passwords.c.user_id == user_id))).scalar()
    return found


async def set_password(tx: Tx, user_id: str, digest: str, now: datetime) -> None:
    row = {"user_id": user_id, "hash": digest, "changed": now}
    insert = insert_for(tx, passwords).values(row)
    await tx.execute(insert.on_conflict_do_update(index_elements=["user_id"], set_={"hash": digest, "changed": now}))


async def find_failures(tx: Tx, keys: list[str]) -> dict[str, Any]:
    query = sa.select(login_failures).where(login_failures.c.key.in_(keys))
    return {row.key: row for row in (await tx.execute(query)).all()}


async def add_failure(tx: Tx, key: str, now: datetime) -> None:
    insert = insert_for(tx, login_failures).values(key=key, count=1, last=now)
    more = {"count": login_failures.c.count + 1, "last": now}
    await tx.execute(insert.on_conflict_do_update(index_elements=["key"], set_=more))


async def delete_failures(tx: Tx, keys: list[str]) -> None:
    await tx.execute(sa.delete(login_failures).where(login_failures.c.key.in_(keys)))


async def delete_old_failures(tx: Tx, before: datetime) -> None:
    await tx.execute(sa.delete(login_failures).where(login_failures.c.last < before))


async def insert_invitation(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(invitations), [values])


async def get_invitation(tx: Tx, digest: str) -> Any | None:
    return (await tx.execute(sa.select(invitations).where(invitations.c.hash == digest))).first()


async def use_invitation(tx: Tx, digest: str, user_id: str, now: datetime) -> bool:
    """Mark it used; False where it was used before, or has expired. Of two at once, one wins."""
    live = sa.and_(invitations.c.hash == digest, invitations.c.used.is_(None), invitations.c.expires > now)
    done = await tx.execute(sa.update(invitations).where(live).values(used=now, used_by=user_id))
    return done.rowcount == 1


async def withdraw_invitations(tx: Tx, user_id: str, now: datetime) -> None:
    """Void what invitations there are to set this user's password."""
    unused = sa.and_(invitations.c.user_id == user_id, invitations.c.used.is_(None))
    await tx.execute(sa.update(invitations).where(unused).values(used=now))


async def withdraw_vo_invitations(tx: Tx, vo: str, now: datetime) -> None:
    """Void what invitations there are to join a VO."""
    unused = sa.and_(invitations.c.vo == vo, invitations.c.used.is_(None))
    await tx.execute(sa.update(invitations).where(unused).values(used=now))


async def lock_keys(tx: Tx) -> None:
    """One at a time, of all servers, changes the keys. SQLite has one writer anyway."""
    if tx.dialect == "postgresql":
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_KEYS_LOCK)))


async def insert_key(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(signing_keys), [values])


async def list_keys(tx: Tx) -> Any:
    return (await tx.execute(sa.select(signing_keys).order_by(signing_keys.c.created.desc()))).all()


async def retire_keys(tx: Tx, now: datetime) -> None:
    await tx.execute(sa.update(signing_keys).where(signing_keys.c.retired.is_(None)).values(retired=now))


async def delete_keys(tx: Tx, retired_before: datetime) -> None:
    await tx.execute(sa.delete(signing_keys).where(signing_keys.c.retired < retired_before))


async def update_key(tx: Tx, key_id: str, private: str) -> None:
    await tx.execute(sa.update(signing_keys).where(signing_keys.c.id == key_id).values(private=private))
