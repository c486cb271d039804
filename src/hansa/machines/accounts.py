"""What a machine uses, and what is reserved for it. Always inside the unit of work of what happens to it.

Of a machine that was made for a pilot nothing is counted here: its tasks are, and the time that the pilot was idle.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hansa.accounting.store import Charge, Kind, charge
from hansa.kernel.database import Tx
from hansa.kernel.events import EventLog
from hansa.machines import store
from hansa.machines.model import site_of
from hansa.sites import capacity
from hansa.sites import store as site_store
from hansa.sites.capacity_model import Held
from hansa.sites.views import policy_of

CHARGE_EVERY = timedelta(hours=1)
_SLACK = timedelta(days=30)
"""A reservation outlives the machine's time by so much: it is stopped then, and somebody may extend it."""
_FOR_EVER = timedelta(days=3650)
"""A volume has no end: it is deleted, or not."""


def thing_of(machine_id: str) -> str:
    """How the books of grants name a machine."""
    return f"machine/{machine_id}"


async def reserve(tx: Tx, row: Any, place: str, now: datetime) -> None:
    """Reserve the machine's whole life of the VO's grant at the place, in the place of what was reserved elsewhere.

    Raises Fault ``capacity.none`` or ``capacity.used_up`` where the site demands a grant; sites that demand none
    count what is used, and refuse nothing.
    """
    if row.pilot_id is not None or row.vo is None:
        return
    await capacity.release(tx, thing_of(row.id))
    site = site_of(place)
    if not await site_store.demands_grant(tx, site):
        return
    size = row.sizes[place]
    until = row.expires or now + timedelta(days=365)
    core_ms = round(size["cores"] * (until - now).total_seconds() * 1000)
    wish = Held(core_ms, size["cores"], size["memory_mib"], size["gpus"], size["disk_gib"])
    await capacity.reserve(tx, who_of(row, site), wish, until + _SLACK, now)


def who_of(row: Any, site: str) -> capacity.Who:
    return capacity.Who(row.vo, site, row.owner_id, row.owner_name, thing_of(row.id), row.vo_group or "")


async def charge_now(tx: Tx, events: EventLog, row: Any, now: datetime, *, is_over: bool) -> None:
    """Charge what was used since the last time: every hour, and when the machine stops (``is_over``)."""
    if row.charged_until is None or row.place is None or row.pilot_id is not None:
        return
    elapsed_s = (now - row.charged_until).total_seconds()
    if elapsed_s <= 0 or not (is_over or elapsed_s >= CHARGE_EVERY.total_seconds()):
        return
    size, site = row.sizes[row.place], site_of(row.place)
    core_s = size["cores"] * elapsed_s
    used = Charge(
        row.owner_id, row.vo, site, 0, elapsed_s, core_s, 0.0, size["gpus"] * elapsed_s, row.vo_group, Kind.MACHINE
    )
    await charge(tx, now.date(), [used])
    if row.vo is not None:
        await capacity.spend(tx, events, who_of(row, site), round(core_s * 1000))
        await capacity.use_up(tx, thing_of(row.id), round(core_s * 1000))
    await store.update(tx, row.id, charged_until=now)


async def settle(tx: Tx, row: Any) -> None:
    """It has ended: nothing is reserved for it any more. What it used was charged before."""
    await capacity.release(tx, thing_of(row.id))


async def reserve_volume(tx: Tx, row: Any, place: str, now: datetime) -> None:
    """Reserve a volume's storage of the VO's grant at the place, for as long as it is there.

    Raises Fault ``capacity.none`` or ``capacity.used_up`` where the site demands a grant.
    """
    site = site_of(place)
    found = await site_store.get(tx, site)
    if row.vo is None or found is None or not policy_of(found).demands_grant:
        return
    who = capacity.Who(row.vo, site, row.owner_id, row.owner_name, volume_thing(row.id), row.vo_group or "")
    await capacity.reserve(tx, who, Held(storage_gib=row.size_gib), now + _FOR_EVER, now)


async def settle_volume(tx: Tx, row: Any) -> None:
    """A volume is gone: its storage is free."""
    await capacity.release(tx, volume_thing(row.id))


def volume_thing(volume_id: str) -> str:
    """How the books of grants name a volume."""
    return f"volume/{volume_id}"
