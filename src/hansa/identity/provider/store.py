"""Tables of the provider: clients, browser sessions, sign-ins, and what leads to them. Secrets are kept as hashes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.identity.provider import desk as d
from hansa.identity.store import users
from hansa.kernel.database import Document, Moment, Tx, insert_ignore, metadata

clients = sa.Table(
    "oidc_clients",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.Text),
    sa.Column("redirect_uris", Document, nullable=False),
    sa.Column("logout_uris", Document, nullable=False),
    sa.Column("audiences", Document, nullable=False),
    sa.Column("api", sa.Boolean, nullable=False),
    sa.Column("trusted", sa.Boolean, nullable=False),
    sa.Column("introspects", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("service_user", sa.Text),
    sa.Column("service_vo", sa.Text),
    sa.Column("scopes", Document),
)

sessions = sa.Table(
    "oidc_sessions",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("auth_time", Moment, nullable=False),
    sa.Column("expires", Moment, nullable=False, index=True),
)

grants = sa.Table(
    "oidc_grants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("auth_time", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment, nullable=False, index=True),
    sa.Column("session", sa.Text, index=True),
    sa.Column("revoked", Moment),
)

codes = sa.Table(
    "oidc_codes",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("redirect_uri", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("nonce", sa.Text),
    sa.Column("code_challenge", sa.Text),
    sa.Column("code_challenge_method", sa.Text),
    sa.Column("auth_time", Moment, nullable=False),
    sa.Column("session", sa.Text),
    sa.Column("expires", Moment, nullable=False, index=True),
    sa.Column("grant_id", sa.Text),
)

refresh_tokens = sa.Table(
    "oidc_refresh_tokens",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("grant_id", sa.Text, sa.ForeignKey("oidc_grants.id"), nullable=False, index=True),
    sa.Column("expires", Moment, nullable=False, index=True),
    sa.Column("used", Moment),
)

devices = sa.Table(
    "oidc_devices",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("user_code", sa.Text, nullable=False, unique=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("expires", Moment, nullable=False, index=True),
    sa.Column("interval_s", sa.Integer, nullable=False),
    sa.Column("last_poll", Moment),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id")),
    sa.Column("approved", sa.Boolean),
    sa.Column("auth_time", Moment),
    sa.Column("used", sa.Boolean, nullable=False),
)

consents = sa.Table(
    "oidc_consents",
    metadata,
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("client_id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("given", Moment, nullable=False),
)

revoked_tokens = sa.Table(
    "oidc_revoked_tokens",
    metadata,
    sa.Column("jti", sa.Text, primary_key=True),
    sa.Column("expires", Moment, nullable=False, index=True),
)


async def get_client(tx: Tx, client_id: str) -> Any | None:
    return (await tx.execute(sa.select(clients).where(clients.c.id == client_id))).first()


async def list_clients(tx: Tx) -> Sequence[Any]:
    query = sa.select(clients).where(clients.c.service_user.is_(None)).order_by(clients.c.id)
    return (await tx.execute(query)).all()


async def services_of(tx: Tx, vo: str) -> Sequence[Any]:
    """The service accounts of a VO."""
    return (await tx.execute(sa.select(clients).where(clients.c.service_vo == vo).order_by(clients.c.id))).all()


async def insert_client(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(clients), [values])


async def delete_client(tx: Tx, client_id: str, now: datetime) -> bool:
    live = sa.and_(grants.c.client_id == client_id, grants.c.revoked.is_(None))
    await tx.execute(sa.update(grants).where(live).values(revoked=now))
    return (await tx.execute(sa.delete(clients).where(clients.c.id == client_id))).rowcount == 1


async def get_grant(tx: Tx, grant_id: str) -> d.Grant | None:
    row = (await tx.execute(sa.select(grants).where(grants.c.id == grant_id))).first()
    return _grant(row) if row else None


def _grant(row: Any) -> d.Grant:
    return d.Grant(
        row.id,
        row.user_id,
        row.client_id,
        row.scope,
        row.auth_time,
        row.created,
        row.expires,
        row.session,
        row.revoked,
    )


async def find_code(tx: Tx, digest: str) -> d.Code | None:
    """A code. Who asks for the same one at the same time waits."""
    row = (await tx.execute(sa.select(codes).where(codes.c.hash == digest).with_for_update())).first()
    return d.Code(**row._mapping) if row else None


async def find_refresh(tx: Tx, digest: str) -> d.Refresh | None:
    """A refresh token and its grant. Who asks for the same one at the same time waits."""
    query = sa.select(refresh_tokens).where(refresh_tokens.c.hash == digest).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    grant = await get_grant(tx, row.grant_id)
    return d.Refresh(row.hash, grant, row.expires, row.used) if grant else None


async def find_device(tx: Tx, digest: str) -> d.Device | None:
    row = (await tx.execute(sa.select(devices).where(devices.c.hash == digest).with_for_update())).first()
    return d.Device(**row._mapping) if row else None


async def find_user_code(tx: Tx, user_code: str, now: datetime) -> d.Device | None:
    """A device that waits for its user."""
    waiting = sa.and_(devices.c.user_code == user_code, devices.c.approved.is_(None), devices.c.expires > now)
    row = (await tx.execute(sa.select(devices).where(waiting))).first()
    return d.Device(**row._mapping) if row else None


async def decide_device(tx: Tx, digest: str, user_id: str, auth_time: datetime, *, approved: bool) -> bool:
    """What the user says; False where it was said already."""
    waiting = sa.and_(devices.c.hash == digest, devices.c.approved.is_(None))
    values = {"user_id": user_id, "auth_time": auth_time, "approved": approved}
    return (await tx.execute(sa.update(devices).where(waiting).values(values))).rowcount == 1


async def is_revoked(tx: Tx, jti: str) -> bool:
    return (await tx.execute(sa.select(revoked_tokens.c.jti).where(revoked_tokens.c.jti == jti))).first() is not None


_STATE = (  # built once: it is asked with every request
    sa.select(
        users.c.name,
        users.c.operator,
        users.c.suspended,
        grants.c.id.label("grant_id"),
        grants.c.revoked,
        revoked_tokens.c.jti,
    )
    .select_from(users)
    .outerjoin(grants, sa.and_(grants.c.id == sa.bindparam("grant"), grants.c.user_id == users.c.id))
    .outerjoin(revoked_tokens, revoked_tokens.c.jti == sa.bindparam("token"))
    .where(users.c.id == sa.bindparam("user"))
)


async def state_of(tx: Tx, user_id: str, grant_id: str, jti: str) -> Any | None:
    """All that decides whether a valid access token is still welcome, in one look; None: no such user."""
    return (await tx.execute(_STATE, {"user": user_id, "grant": grant_id, "token": jti})).first()


async def insert_session(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(sessions), [values])


async def get_session(tx: Tx, digest: str) -> Any | None:
    query = sa.select(sessions, users.c.name, users.c.operator, users.c.suspended).join(users)
    return (await tx.execute(query.where(sessions.c.hash == digest))).first()


async def delete_session(tx: Tx, digest: str, now: datetime) -> None:
    """End a browser's sign-in, and the sign-ins at clients that were given under it."""
    await tx.execute(sa.delete(sessions).where(sessions.c.hash == digest))
    under = sa.and_(grants.c.session == digest, grants.c.revoked.is_(None))
    await tx.execute(sa.update(grants).where(under).values(revoked=now))


async def end_sign_ins_of(tx: Tx, user_id: str, now: datetime) -> None:
    """Sign a user out of everything: browsers, clients, offline access."""
    await tx.execute(sa.delete(sessions).where(sessions.c.user_id == user_id))
    live = sa.and_(grants.c.user_id == user_id, grants.c.revoked.is_(None))
    await tx.execute(sa.update(grants).where(live).values(revoked=now))


async def get_consent(tx: Tx, user_id: str, client_id: str) -> set[str]:
    query = sa.select(consents.c.scope).where(consents.c.user_id == user_id, consents.c.client_id == client_id)
    return set(((await tx.execute(query)).scalar() or "").split())


async def save_consent(tx: Tx, user_id: str, client_id: str, scope: set[str], now: datetime) -> None:
    here = sa.and_(consents.c.user_id == user_id, consents.c.client_id == client_id)
    before = await get_consent(tx, user_id, client_id)
    row = {"user_id": user_id, "client_id": client_id, "scope": "", "given": now}
    await tx.execute(insert_ignore(tx, consents).values(row))
    await tx.execute(sa.update(consents).where(here).values(scope=" ".join(sorted(before | scope)), given=now))


async def apply(tx: Tx, effects: Sequence[d.Effect], now: datetime) -> None:
    """Write what a request decided."""
    for effect in effects:
        await _apply(tx, effect, now)


async def _apply(tx: Tx, effect: d.Effect, now: datetime) -> None:  # one line per kind
    match effect:
        case d.SaveCode(code):
            await tx.execute(sa.insert(codes), [vars(code)])
        case d.RedeemCode(digest, grant):
            await tx.execute(sa.insert(grants), [vars(grant)])
            await tx.execute(sa.update(codes).where(codes.c.hash == digest).values(grant_id=grant.id))
        case d.SaveGrant(grant):
            await tx.execute(sa.insert(grants), [vars(grant)])
        case d.SaveRefresh(digest, grant_id, expires):
            row = {"hash": digest, "grant_id": grant_id, "expires": expires, "used": None}
            await tx.execute(sa.insert(refresh_tokens), [row])
        case d.UseRefresh(digest, grant_id, expires):
            await tx.execute(sa.update(refresh_tokens).where(refresh_tokens.c.hash == digest).values(used=now))
            await tx.execute(sa.update(grants).where(grants.c.id == grant_id).values(expires=expires))
        case d.RevokeGrant(grant_id):
            live = sa.and_(grants.c.id == grant_id, grants.c.revoked.is_(None))
            await tx.execute(sa.update(grants).where(live).values(revoked=now))
        case d.RevokeAccess(jti, expires_s):
            row = {"jti": jti, "expires": datetime.fromtimestamp(expires_s, now.tzinfo)}
            await tx.execute(insert_ignore(tx, revoked_tokens).values(row))
        case d.SaveDevice(device):
            await tx.execute(sa.insert(devices), [vars(device)])
        case d.UseDevice(digest):
            await tx.execute(sa.update(devices).where(devices.c.hash == digest).values(used=True))
        case d.Polled(digest, interval_s):
            values = {"last_poll": now, "interval_s": interval_s}
            await tx.execute(sa.update(devices).where(devices.c.hash == digest).values(values))


async def delete_expired(tx: Tx, now: datetime) -> None:
    """Delete what nothing can come of any more. Used refresh tokens stay as long as they could tell of a theft."""
    for table in (codes, devices, revoked_tokens, sessions):
        await tx.execute(sa.delete(table).where(table.c.expires < now))
    await tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.expires < now))
    left = sa.select(refresh_tokens.c.grant_id)
    long_ago = now - timedelta(days=2)  # longer than any access token lives
    await tx.execute(sa.delete(grants).where(grants.c.expires < long_ago, grants.c.id.not_in(left)))


_BROWSER = ":browser"
"""The client of codes that sign in a browser here: no OpenID client can have this id."""


async def insert_sign_in_code(tx: Tx, digest: str, user_id: str, now: datetime, expires: datetime) -> None:
    """A code that signs a browser in here; no client can redeem it."""
    row = {"hash": digest, "client_id": _BROWSER, "user_id": user_id, "redirect_uri": "", "scope": ""}
    await tx.execute(sa.insert(codes), [row | {"auth_time": now, "expires": expires}])


async def take_sign_in_code(tx: Tx, digest: str, now: datetime) -> str | None:
    """Use such a code up: its user, if it was good."""
    good = sa.and_(codes.c.hash == digest, codes.c.client_id == _BROWSER, codes.c.expires > now)
    found: str | None = (await tx.execute(sa.delete(codes).where(good).returning(codes.c.user_id))).scalar()
    return found
