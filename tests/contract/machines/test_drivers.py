"""What every driver of machines promises."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from hansa.kernel.ids import new_id
from hansa.machines.drivers.base import (
    PROTOCOLS,
    Addresses,
    Can,
    Consoles,
    Guest,
    Life,
    Meters,
    Networks,
    Observed,
    Opening,
    Ports,
    Power,
    Progress,
    Refused,
    Resizes,
    Snapshot,
    Snapshots,
    Temporary,
    Volumes,
    Why,
    able,
)
from tests.contract.machines.conftest import SSH_KEY, Place

T = TypeVar("T")


async def until(place: Place, ask: Callable[[], Awaitable[T]], fits: Callable[[T], bool]) -> T:
    """What ``ask`` says once it fits; the last answer is told where it never does."""
    deadline = asyncio.get_running_loop().time() + place.deadline_s
    while not fits(answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"after {place.deadline_s} s still {answer}"
        await asyncio.sleep(0.05)
    return answer


async def made(place: Place, key: str, **values: object) -> Observed:
    """A machine that runs."""
    await place.driver.ensure(replace(place.spec, **values), key)  # type: ignore[arg-type]
    return await until_life(place, key, Life.RUNNING)


async def until_life(place: Place, key: str, life: Life) -> Observed:
    seen = await until(place, lambda: place.driver.observe(key), lambda one: one is not None and one.life is life)
    assert seen is not None
    return seen


async def gone(place: Place, key: str) -> None:
    await until(place, lambda: place.driver.delete(key), lambda progress: progress is Progress.DONE)


def needs(place: Place, can: Can) -> None:
    if can not in place.driver.capabilities().can:
        pytest.skip(f"this driver has no {can.value}")


@pytest.fixture
def key() -> str:
    return new_id("machine")


def test_what_a_driver_declares_it_has(place: Place) -> None:
    declared = place.driver.capabilities().can
    for can, protocol in PROTOCOLS.items():
        assert can not in declared or isinstance(place.driver, protocol), can
        if can not in declared:
            with pytest.raises(Refused) as refused:
                able(place.driver, protocol)
            assert refused.value.why is Why.UNABLE


async def test_a_machine_lives_and_dies(place: Place, key: str) -> None:
    assert await place.driver.observe(key) is None
    await place.driver.ensure(place.spec, key)
    seen = await until_life(place, key, Life.RUNNING)
    assert seen.provider_id
    assert seen.private or seen.public
    assert not seen.surplus
    assert key in await place.driver.list_keys()
    assert key not in await place.driver.list_keys("other_")
    await gone(place, key)
    assert await place.driver.observe(key) is None
    assert key not in await place.driver.list_keys()
    assert await place.leftovers() == []


async def test_one_machine_however_often_and_by_whom_it_is_asked(place: Place, key: str) -> None:
    first = await place.driver.ensure(place.spec, key)
    again = await place.driver.ensure(place.spec, key)
    reborn = await place.reborn.ensure(place.spec, key)
    assert first.provider_id == again.provider_id == reborn.provider_id
    seen = await place.reborn.observe(key)
    assert seen is not None
    assert seen.provider_id == first.provider_id
    assert await place.reborn.trim(key) is Progress.DONE  # there is nothing to trim
    assert await place.driver.observe(key) is not None
    await gone(replace(place, driver=place.reborn), key)
    assert await place.driver.observe(key) is None


async def lose(place: Place, what: str) -> None:
    if place.lose is None:
        pytest.skip("no answer of this place gets lost")
    await place.lose(what)


async def test_a_machine_whose_answer_was_lost_is_found_again(place: Place, key: str) -> None:
    await lose(place, "machine")
    with pytest.raises(Temporary):
        await place.driver.ensure(place.spec, key)
    made = await place.reborn.ensure(place.spec, key)
    seen = await until_life(place, key, Life.RUNNING)
    assert (seen.provider_id, seen.surplus) == (made.provider_id, ())
    await gone(place, key)
    assert await place.leftovers() == []


async def test_an_address_whose_answer_was_lost_is_found_again(place: Place, key: str) -> None:
    needs(place, Can.ADDRESSES)
    await made(place, key)
    await lose(place, "address")
    with pytest.raises(Temporary):
        await able(place.driver, Addresses).ensure_address(key)
    address = await able(place.reborn, Addresses).ensure_address(key)
    seen = await place.driver.observe(key)
    assert seen is not None
    assert address in seen.public
    await gone(place, key)
    assert await place.leftovers() == []


async def test_a_volume_whose_answer_was_lost_is_found_again(place: Place) -> None:
    needs(place, Can.VOLUMES)
    name = new_id("vol")
    await lose(place, "volume")
    with pytest.raises(Temporary):
        await able(place.driver, Volumes).ensure_volume(name, 1, "data")
    reborn = able(place.reborn, Volumes)
    made = await reborn.ensure_volume(name, 1, "data")
    seen = await until(place, lambda: reborn.observe_volume(name), lambda one: one is not None and one.is_ready)
    assert seen is not None
    assert (seen.provider_id, seen.surplus) == (made.provider_id, 0)
    await until(place, lambda: reborn.delete_volume(name), lambda progress: progress is Progress.DONE)
    assert await place.leftovers() == []


async def test_absent_is_done(place: Place, key: str) -> None:
    assert await place.driver.delete(key) is Progress.DONE
    assert await place.driver.trim(key) is Progress.DONE


async def test_user_data_over_the_limit_is_refused_and_nothing_is_made(place: Place, key: str) -> None:
    large = b"#cloud-config\n" + b"#" * place.driver.capabilities().user_data_bytes
    with pytest.raises(Refused) as refused:
        await place.driver.ensure(replace(place.spec, user_data=large), key)
    assert refused.value.why is Why.USER_DATA
    assert await place.driver.observe(key) is None


async def test_user_data_up_to_the_limit_is_taken_with_keys_beside(place: Place, key: str) -> None:
    """Of letters that no packing makes less of."""
    limit = place.driver.capabilities().user_data_bytes
    head = b"#cloud-config\n#"
    text = head + base64.b64encode(secrets.token_bytes(limit))[: limit - len(head)]
    assert len(text) == limit
    await place.driver.ensure(replace(place.spec, user_data=text, ssh_keys=(SSH_KEY,) * 3), key)
    assert await place.driver.observe(key) is not None
    await gone(place, key)


async def test_power(place: Place, key: str) -> None:
    needs(place, Can.POWER)
    power = able(place.driver, Power)
    with pytest.raises(Refused):
        await power.stop(key)
    await made(place, key)
    await power.stop(key)
    await until_life(place, key, Life.STOPPED)
    if Can.METERS in place.driver.capabilities().can:
        assert await able(place.driver, Meters).meter(key) is None
    await power.stop(key)
    await power.start(key)
    await until_life(place, key, Life.RUNNING)
    await power.reboot(key, hard=True)
    await until_life(place, key, Life.RUNNING)
    await gone(place, key)


async def test_resize(place: Place, key: str) -> None:
    needs(place, Can.RESIZE)
    await made(place, key)
    driver = able(place.driver, Resizes)
    await until(place, lambda: driver.resize(key, place.other_size), lambda progress: progress is Progress.DONE)
    seen = await until_life(place, key, Life.RUNNING)
    assert seen.size is not None
    assert (seen.size.cores, seen.size.memory_mib) == (place.other_size.cores, place.other_size.memory_mib)
    await gone(place, key)


async def test_snapshots_are_made_once(place: Place, key: str) -> None:
    needs(place, Can.SNAPSHOT)
    await made(place, key)
    driver, name = able(place.driver, Snapshots), new_id("snap")

    async def ask() -> Snapshot:
        found = await driver.snapshot(key, name, "before")
        await place.hypervisor()
        return found

    first = await until(place, ask, lambda one: one.progress is Progress.DONE)
    assert first.provider_id or first.path
    again = await ask()
    assert (again.provider_id, again.path) == (first.provider_id, first.path)
    await until(place, lambda: driver.delete_snapshot(name), lambda progress: progress is Progress.DONE)
    assert await driver.delete_snapshot(name) is Progress.DONE
    await gone(place, key)
    assert await place.leftovers() == []


async def test_volumes_outlive_machines(place: Place, key: str) -> None:
    needs(place, Can.VOLUMES)
    driver, name = able(place.driver, Volumes), new_id("vol")
    await made(place, key)
    volume = await driver.ensure_volume(name, 1, "data")
    assert (await driver.ensure_volume(name, 1, "data")).provider_id == volume.provider_id
    await until(place, lambda: driver.observe_volume(name), lambda one: one is not None and one.is_ready)
    await driver.attach(name, key)
    await until(place, lambda: driver.observe_volume(name), lambda one: one is not None and bool(one.attached_to))
    await driver.attach(name, key)  # once more, by who does not know it
    await until(place, lambda: driver.detach(name), lambda progress: progress is Progress.DONE)
    await driver.attach(name, key)
    await until(place, lambda: driver.observe_volume(name), lambda one: one is not None and bool(one.attached_to))
    await gone(place, key)
    kept = await until(place, lambda: driver.observe_volume(name), lambda one: one is not None and not one.attached_to)
    assert kept is not None
    assert kept.provider_id == volume.provider_id
    assert await driver.detach(name) is Progress.DONE
    await until(place, lambda: driver.delete_volume(name), lambda progress: progress is Progress.DONE)
    assert await driver.observe_volume(name) is None
    assert await driver.delete_volume(name) is Progress.DONE


async def test_a_public_address_goes_with_its_machine(place: Place, key: str) -> None:
    needs(place, Can.ADDRESSES)
    driver = able(place.driver, Addresses)
    await made(place, key)
    address = await driver.ensure_address(key)
    assert await driver.ensure_address(key) == address
    seen = await place.driver.observe(key)
    assert seen is not None
    assert address in seen.public
    assert await driver.release_address(key) is Progress.DONE
    assert await driver.release_address(key) is Progress.DONE
    await driver.ensure_address(key)
    await gone(place, key)
    assert await place.leftovers() == []


async def test_ports_can_be_opened_and_asked_again(place: Place, key: str) -> None:
    needs(place, Can.PORTS)
    driver = able(place.driver, Ports)
    await made(place, key)
    for openings in ([Opening(22, 22), Opening(8000, 8010)], [Opening(22, 22), Opening(8000, 8010)], [Opening(22, 22)]):
        await driver.open_ports(key, openings)
        if place.opened is not None:
            assert await place.opened(key) == {(one.first, one.last) for one in openings}
    await gone(place, key)
    assert await place.leftovers() == []


async def test_a_first_boot_that_fails_is_told_in_the_guests_own_words(place: Place, key: str) -> None:
    if place.says is None:
        pytest.skip("no guest of this place says what a test wants")
    await made(place, key, tags={"console": place.says})
    for driver in (place.driver, place.reborn):
        seen = await driver.observe(key)
        assert seen is not None
        assert (seen.life, seen.guest) == (Life.RUNNING, Guest.FAILED)
        assert "No module named 'numpy'" in seen.guest_message
    await gone(place, key)


async def test_private_networks(place: Place, key: str) -> None:
    needs(place, Can.NETWORKS)
    driver, name = able(place.driver, Networks), new_id("net")
    await driver.ensure_network(name)
    await driver.ensure_network(name)
    await made(place, key, network=name)
    assert await driver.delete_network(name) is Progress.PENDING
    await gone(place, key)
    await until(place, lambda: driver.delete_network(name), lambda progress: progress is Progress.DONE)
    assert await place.leftovers() == []


async def test_console_and_meters_can_be_read(place: Place, key: str) -> None:
    needs(place, Can.CONSOLE)
    driver = able(place.driver, Consoles)
    with pytest.raises(Refused):
        await driver.console_log(key)
    await made(place, key)
    text = await until(place, lambda: driver.console_log(key, 5), lambda said: bool(said) or not place.speaks)
    assert len(text.splitlines()) <= 5
    if Can.METERS in place.driver.capabilities().can:
        await _meters_grow(place, key)
    await gone(place, key)


async def _meters_grow(place: Place, key: str) -> None:
    """Totals grow and never fall, whoever looks; of a machine that is not there nothing is told."""
    meters, reborn = able(place.driver, Meters), able(place.reborn, Meters)
    assert await meters.meter("nobody") is None
    first = await meters.meter(key)
    assert first is not None
    later = await until(place, lambda: meters.meter(key), lambda one: one is not None and one.cpu_s > first.cpu_s)
    again = await reborn.meter(key)
    assert later is not None
    assert again is not None
    assert again.cpu_s >= later.cpu_s
    assert later.memory_mib > 0
