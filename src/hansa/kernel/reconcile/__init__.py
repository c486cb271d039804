"""The reconcile engine: makes the world follow the store, for every room.

One step of one row, by whoever holds its lease::

    lease -> load -> observe -> decide (pure) -> commit the intent -> act -> apply WHERE key AND lease token

No network call happens inside a transaction. A step that dies anywhere is done again by whoever leases the
row next, so a room must find what an earlier step may have left (``observe`` searches by tag or name) before
it creates anything again. Where creation is not idempotent, an act that was given up may still succeed later:
such a room keeps looking for a minute after creation (``Next(due_at=…)``) and deletes what is surplus.
"""

from hansa.kernel.reconcile.engine import Counters, Engine, Tuning, backoff_s
from hansa.kernel.reconcile.queue import Intent, Queue, reconcile_columns
from hansa.kernel.reconcile.room import Act, Acted, Failed, Next, Outcome, Room, Settle, Settled

__all__ = [
    "Act",
    "Acted",
    "Counters",
    "Engine",
    "Failed",
    "Intent",
    "Next",
    "Outcome",
    "Queue",
    "Room",
    "Settle",
    "Settled",
    "Tuning",
    "backoff_s",
    "reconcile_columns",
]
