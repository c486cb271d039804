"""The columns by which a table is a work queue of the reconcile engine, and the statements over them.

While a row is leased, ``due_at`` equals ``lease_until``: a row whose engine died becomes due when the lease
ends, and whoever pokes a row in work moves ``due_at`` away from ``lease_until``, which :meth:`Queue.hold`
notices. So no wish that is written during a step is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx

K = TypeVar("K")


@dataclass(frozen=True)
class Intent:
    """What a step is about to do, committed before it does it.

    ``key`` is the idempotency key, the same for every attempt at one operation of one generation.
    """

    operation: str
    key: str
    attempt: int
    generation: int
    arguments: dict[str, Any]

    def is_for(self, operation: str, generation: int, arguments: dict[str, Any]) -> bool:
        return (self.operation, self.generation, self.arguments) == (operation, generation, arguments)


@dataclass
class Lease(Generic[K]):
    """The right to work on one row until ``until``; ``token`` is never given twice."""

    key: K
    token: str
    until: datetime
    generation: int
    attempt: int
    intent: Intent | None


@dataclass(frozen=True)
class Held:
    """A leased row, locked. ``is_poked``: somebody wants it looked at again since it was leased."""

    is_poked: bool


def reconcile_columns() -> tuple[sa.Column[Any], ...]:
    """The columns that a room adds to its table. A new row is due at once if ``due_at`` is set to now."""
    return (
        sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("observed_generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", Moment, index=True),
        sa.Column("lease_token", sa.Text),
        sa.Column("lease_until", Moment),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("intent", Document),
    )


class Queue:
    """The work queue in one table. ``name`` is the room's; ``key`` is the table's primary key."""

    def __init__(self, name: str, table: sa.Table, key: sa.Column[Any]) -> None:
        self.name = name
        self.topic = f"reconcile/{name}"
        self._table = table
        self._key = key
        columns = table.c
        self._mine = sa.and_(key == sa.bindparam("which"), columns.lease_token == sa.bindparam("token"))
        self._is_free = sa.or_(columns.lease_until.is_(None), columns.lease_until <= sa.bindparam("now", type_=Moment))
        # Extending a lease keeps due_at where a poke has put it.
        self._until = sa.bindparam("until", type_=Moment)
        self._due_unless_poked = sa.case((columns.due_at == columns.lease_until, self._until), else_=columns.due_at)
        self._statements = {
            "lease": self._lease_statement(),
            "renew": self._renew_statement(),
            "next_due": sa.select(columns.due_at)
            .where(columns.due_at.is_not(None), self._is_free)
            .order_by(columns.due_at)
            .limit(1),
            "intend": sa.update(table)
            .where(self._mine)
            .values(
                intent=sa.bindparam("new_intent", type_=Document),
                lease_until=self._until,
                due_at=self._due_unless_poked,
            ),
            "hold": sa.select(columns.due_at, columns.lease_until, columns.generation)
            .where(self._mine)
            .with_for_update(),
            "release": sa.update(table)
            .where(self._mine)
            .values(
                due_at=sa.bindparam("new_due_at", type_=Moment),
                lease_token=None,
                lease_until=None,
                attempt=sa.bindparam("new_attempt", type_=sa.Integer),
                intent=sa.bindparam("new_intent", type_=Document),
                observed_generation=sa.func.coalesce(
                    sa.bindparam("new_observed", type_=sa.BigInteger), columns.observed_generation
                ),
            ),
        }

    async def poke(self, tx: Tx, now: datetime, *keys: Any) -> None:
        """Make rows due now, in work or not, and wake the engines."""
        await tx.execute(sa.update(self._table).where(self._key.in_(keys)).values(due_at=now))
        tx.ring(self.topic)

    async def changed(self, tx: Tx, now: datetime, *keys: Any) -> None:
        """The wish of these rows has changed: a new generation, due now."""
        values = {"generation": self._table.c.generation + 1, "due_at": now}
        await tx.execute(sa.update(self._table).where(self._key.in_(keys)).values(values))
        tx.ring(self.topic)

    async def take_over(self, tx: Tx, now: datetime) -> int:
        """End every lease. Only for a server that is alone, at its start; the number ended."""
        values = {"lease_token": None, "lease_until": None, "due_at": now}
        leased = self._table.c.lease_token.is_not(None)
        return (await tx.execute(sa.update(self._table).where(leased).values(values))).rowcount

    async def next_due(self, tx: Tx, now: datetime) -> datetime | None:
        """When the first row that nobody holds is due; None if none is."""
        due_at: datetime | None = (await tx.execute(self._statements["next_due"], {"now": now})).scalar()
        return due_at

    async def lease(self, tx: Tx, token: str, now: datetime, until: datetime, most: int) -> Sequence[Lease[Any]]:
        """Take up to ``most`` due rows, longest due first. Rows that others are taking are skipped."""
        params = {"token": token, "now": now, "until": until, "most": most}
        rows = (await tx.execute(self._statements["lease"], params)).all()
        return [
            Lease(
                row[0],
                token,
                until,
                row.generation,
                row.attempt,
                Intent(**row.intent) if row.intent else None,
            )
            for row in rows
        ]

    async def renew(self, tx: Tx, leases: Sequence[Lease[Any]], until: datetime) -> frozenset[tuple[Any, str]]:
        """Extend leases; the (key, token) of those that still hold."""
        params = {
            "keys": [lease.key for lease in leases],
            "tokens": list({lease.token for lease in leases}),
            "until": until,
        }
        rows = (await tx.execute(self._statements["renew"], params)).all()
        return frozenset((row[0], row.lease_token) for row in rows)

    async def intend(self, tx: Tx, lease: Lease[Any], intent: Intent, until: datetime) -> bool:
        """Write down what is about to happen and extend the lease; False if the lease is lost."""
        params = {"which": lease.key, "token": lease.token, "until": until, "new_intent": vars(intent)}
        return (await tx.execute(self._statements["intend"], params)).rowcount == 1

    async def hold(self, tx: Tx, lease: Lease[Any]) -> Held | None:
        """Lock the row until the end of the unit; None if the lease is lost."""
        params = {"which": lease.key, "token": lease.token}
        row = (await tx.execute(self._statements["hold"], params)).first()
        if row is None:
            return None
        return Held(is_poked=row.due_at != row.lease_until or row.generation != lease.generation)

    async def release(
        self,
        tx: Tx,
        lease: Lease[Any],
        due_at: datetime | None,
        attempt: int,
        intent: Intent | None,
        observed_generation: int | None = None,
    ) -> None:
        """End a lease that holds. ``observed_generation`` None leaves it as it is."""
        params = {
            "which": lease.key,
            "token": lease.token,
            "new_due_at": due_at,
            "new_attempt": attempt,
            "new_intent": vars(intent) if intent else None,
            "new_observed": observed_generation,
        }
        await tx.execute(self._statements["release"], params)

    def _lease_statement(self) -> sa.Executable:
        columns = self._table.c
        # A common table expression: PostgreSQL evaluates it once, whatever the plan, so the limit holds.
        due = (
            sa.select(self._key.label("which"))
            .where(columns.due_at <= sa.bindparam("now", type_=Moment), self._is_free)
            .order_by(columns.due_at)
            .limit(sa.bindparam("most", type_=sa.Integer))
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return (
            sa.update(self._table)
            .where(self._key.in_(sa.select(due.c.which)))
            .values(lease_token=sa.bindparam("token"), lease_until=self._until, due_at=self._until)
            .returning(self._key, columns.generation, columns.attempt, columns.intent)
        )

    def _renew_statement(self) -> sa.Executable:
        columns = self._table.c
        return (
            sa.update(self._table)
            .where(
                self._key.in_(sa.bindparam("keys", expanding=True)),
                columns.lease_token.in_(sa.bindparam("tokens", expanding=True)),
            )
            .values(lease_until=self._until, due_at=self._due_unless_poked)
            .returning(self._key, columns.lease_token)
        )
