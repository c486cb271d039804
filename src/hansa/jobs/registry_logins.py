"""Who users are at container registries: kept sealed, and given to pilots with the orders of jobs that need them.

A password goes one way: in. It leaves the server only inside an exchange with a pilot of the same user, in the order
of a job whose image is of that very registry; the pilot hands it to the process that brings the image, on its stdin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from hansa.identity.model import Caller
from hansa.jobs import errors
from hansa.jobs.tables import registry_logins
from hansa.jobs.wire import NewRegistryLogin, RegistryLogin, RegistryLoginList
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.secrets import Vault
from hansa.node.containers.errors import ContainerError
from hansa.node.containers.model import Reference, canonical_registry
from hansa.node.protocol import JobOrder

_MOST = 100
_OF = sa.select(registry_logins).where(registry_logins.c.owner_id == sa.bindparam("owner"))


class RegistryLoginService:
    """A user's own logins at registries."""

    def __init__(self, database: Database, clock: Clock, vault: Vault) -> None:
        self._database = database
        self._clock = clock
        self._vault = vault

    async def list_logins(self, caller: Caller) -> RegistryLoginList:
        """Where the caller has logins, and as whom. No password."""
        async with self._database.read() as tx:
            rows = (await tx.execute(_OF.order_by(registry_logins.c.registry), {"owner": caller.user_id})).all()
        return RegistryLoginList([RegistryLogin(row.registry, row.username, row.since) for row in rows])

    async def put(self, caller: Caller, registry: str, new: NewRegistryLogin) -> RegistryLogin:
        """Keep a login, in the place of an earlier one. Raises Fault ``jobs.bad_registry``, ``jobs.many_logins``."""
        host, now = read_registry(registry), self._clock.now()
        secret = json.dumps({"username": new.username, "password": new.password}).encode()
        values = {
            "owner_id": caller.user_id,
            "registry": host,
            "username": new.username,
            "sealed": self._vault.seal(secret, _context(caller.user_id, host)),
            "since": now,
        }
        async with self._database.begin() as tx:
            others = {row.registry for row in (await tx.execute(_OF, {"owner": caller.user_id})).all()} - {host}
            if len(others) >= _MOST:
                raise Fault(errors.MANY_LOGINS, f"You have logins at {_MOST} registries; that is the most.")
            await _delete(tx, caller.user_id, host)
            await tx.execute(sa.insert(registry_logins), [values])
        return RegistryLogin(host, new.username, now)

    async def remove(self, caller: Caller, registry: str) -> None:
        """Forget a login. Raises Fault ``jobs.no_login``."""
        host = read_registry(registry)
        async with self._database.begin() as tx:
            if not await _delete(tx, caller.user_id, host):
                raise Fault(
                    errors.NO_LOGIN, f"There is no login of yours at {host}.", hint="hansa registry list shows them."
                )


class RegistryKeys:
    """For the exchange: opens the logins that orders need."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def add_to(self, tx: Tx, owner_id: str, orders: Sequence[JobOrder]) -> list[JobOrder]:
        """The orders, those with an image of a registry where the owner has a login with that login."""
        if not any(order.image for order in orders):
            return list(orders)
        rows = (await tx.execute(_OF, {"owner": owner_id})).all()
        sealed = {row.registry: row.sealed for row in rows}
        return [self._with_login(owner_id, order, sealed) for order in orders]

    def _with_login(self, owner_id: str, order: JobOrder, sealed: dict[str, str]) -> JobOrder:
        host = Reference.guess(order.image).registry if order.image else ""
        if host not in sealed:
            return order
        opened: dict[str, Any] = json.loads(self._vault.open(sealed[host], _context(owner_id, host)))
        return replace(order, registry_auth=opened)


def read_registry(written: str) -> str:
    """The registry's one name. Raises Fault ``jobs.bad_registry``."""
    host = canonical_registry((written.partition("://")[2] or written).strip("/"))
    try:
        is_host = Reference.parse(f"{host}/any/any").registry == host
    except ContainerError:
        is_host = False
    if not is_host:
        raise Fault(
            errors.BAD_REGISTRY,
            f"{written!r} is no container registry.",
            hint="Name its host alone, as in quay.io or registry.example.org:5000.",
        )
    return host


async def rewrap_registry_logins(tx: Tx, vault: Vault) -> int:
    """Put every login under the current master key; how many."""
    rows = (await tx.execute(sa.select(registry_logins))).all()
    for row in rows:
        sealed = vault.rewrap(row.sealed, _context(row.owner_id, row.registry))
        await tx.execute(sa.update(registry_logins).where(_is(row.owner_id, row.registry)).values(sealed=sealed))
    return len(rows)


async def _delete(tx: Tx, owner_id: str, registry: str) -> int:
    return int((await tx.execute(sa.delete(registry_logins).where(_is(owner_id, registry)))).rowcount)


def _is(owner_id: str, registry: str) -> sa.ColumnElement[bool]:
    return (registry_logins.c.owner_id == owner_id) & (registry_logins.c.registry == registry)


def _context(owner_id: str, registry: str) -> str:
    return f"registry_login/{owner_id}/{registry}"
