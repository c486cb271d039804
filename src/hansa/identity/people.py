"""How a user comes to exist, whoever adds one."""

from __future__ import annotations

from hansa.identity import store
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id


async def create_user(
    tx: Tx, events: EventLog, clock: Clock, issuer: str, name: str, *, operator: bool = False, actor: str = "hansa"
) -> str:
    """Insert a user of this server's own, with the event that says so; the user's id."""
    user_id = new_id("user")
    await store.insert_user(
        tx,
        id=user_id,
        issuer=issuer,
        sub=name,
        name=name,
        operator=operator,
        suspended=False,
        created=clock.now(),
    )
    message = f"{name} may use this server{' and operates it' if operator else ''}."
    await events.record(tx, Event(actor, f"user/{user_id}", "active", "identity.added", message, owner_id=user_id))
    return user_id
