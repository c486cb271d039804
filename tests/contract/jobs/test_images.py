"""Container images of jobs: which a VO allows, and the logins that bring private ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from hansa.identity.wire import NewVo
from hansa.images import store as image_store
from hansa.jobs import store as job_store
from hansa.jobs.registry_logins import rewrap_registry_logins
from hansa.jobs.tables import registry_logins
from hansa.jobs.wire import JobSpec, NewRegistryLogin
from hansa.kernel.errors import Fault
from hansa.kernel.secrets import Vault
from tests.support.jobworld import World, done

SPEC = JobSpec(["true"], image="docker://quay.io/biomed/tool:1", vo="sky")
ADA, MARY = NewRegistryLogin("ada", "hush-hush"), NewRegistryLogin("mary", "psst")


async def allow(world: World, *places: str) -> None:
    async with world.database.begin() as tx:
        await image_store.put_policy(tx, "sky", site_images=False, registries=list(places))


async def test_a_vo_says_of_which_registries_its_jobs_take_images(world: World) -> None:
    await world.vos.create(world.owner, NewVo("sky"))
    assert (await world.jobs.submit(world.owner, SPEC)).image == SPEC.image
    await allow(world, "quay.io/physics", "ghcr.io")
    with pytest.raises(Fault) as caught:
        await world.jobs.submit(world.owner, SPEC)
    assert caught.value.code.code == "images.registry_refused"
    assert "quay.io/physics, ghcr.io" in caught.value.detail
    assert len((await world.jobs.list_jobs(world.owner)).items) == 1
    assert await world.jobs.submit(world.owner, replace(SPEC, image=None))
    assert await world.jobs.submit(world.owner, replace(SPEC, image="ghcr.io/any/tool"))


async def test_what_a_vo_no_longer_allows_is_not_started_anew(world: World) -> None:
    await world.vos.create(world.owner, NewVo("sky"))
    held = await world.jobs.submit(world.owner, replace(SPEC, hold=True))
    failed = await world.jobs.submit(world.owner, SPEC)
    pilot = await world.pilot()
    await pilot.take(8)
    await pilot.finish(exit_code=1)
    await allow(world)
    for again in (world.jobs.release(world.owner, held.number), world.retry(failed.number)):
        with pytest.raises(Fault) as caught:
            await again
        assert caught.value.code.code == "images.registry_refused"
        assert "no registry at all" in caught.value.detail


async def test_a_login_goes_with_the_jobs_of_its_owner_and_registry_only(world: World) -> None:
    bob = await world.user("bob")
    await world.site(bob, "cellar")
    await world.registry_logins.put(world.owner, "https://Quay.io/", ADA)
    await world.registry_logins.put(bob, "quay.io", MARY)
    listed = (await world.registry_logins.list_logins(world.owner)).items
    assert [(one.registry, one.username) for one in listed] == [("quay.io", "ada")]
    for image in (None, "quay.io/biomed/tool", "quay.io.evil.org/tool", "python"):
        await world.jobs.submit(world.owner, JobSpec(["true"], image=image))
    pilot = await world.pilot()
    orders = (await pilot.exchange(want=8)).jobs
    assert {order.image: order.registry_auth for order in orders} == {
        None: None,
        "quay.io/biomed/tool": {"username": "ada", "password": "hush-hush"},
        "quay.io.evil.org/tool": None,
        "python": None,
    }
    assert "hush-hush" not in repr(orders)


async def test_logins_are_sealed_replaced_and_forgotten(world: World) -> None:
    await world.registry_logins.put(world.owner, "quay.io", ADA)
    await world.registry_logins.put(world.owner, "quay.io", MARY)
    async with world.database.begin() as tx:
        rows = (await tx.execute(sa.select(registry_logins))).all()
        assert [row.username for row in rows] == ["mary"]
        assert "psst" not in rows[0].sealed
        assert await rewrap_registry_logins(tx, Vault([b"n" * 32, b"k" * 32])) == 1
        fresh = (await tx.execute(sa.select(registry_logins))).one()
    opened = Vault([b"n" * 32]).open(fresh.sealed, f"registry_login/{world.owner.user_id}/quay.io")
    assert b"psst" in opened
    await world.registry_logins.remove(world.owner, "quay.io")
    assert (await world.registry_logins.list_logins(world.owner)).items == []
    with pytest.raises(Fault) as caught:
        await world.registry_logins.remove(world.owner, "quay.io")
    assert caught.value.code.code == "jobs.no_login"
    for nonsense in ("quay.io/biomed", "not a host", "quay", ""):
        with pytest.raises(Fault) as caught:
            await world.registry_logins.put(world.owner, nonsense, ADA)
        assert caught.value.code.code == "jobs.bad_registry"


async def test_what_waits_is_held_when_its_turn_comes_and_its_registry_was_taken_off_meanwhile(world: World) -> None:
    await world.vos.create(world.owner, NewVo("sky"))
    refused = await world.jobs.submit(world.owner, replace(SPEC, count=3, array=True))
    others = [await world.jobs.submit(world.owner, SPEC) for _ in range(40)]
    kept = await world.jobs.submit(world.owner, replace(SPEC, image="ghcr.io/any/tool"))
    pilot = await world.pilot(cores=1)
    (first,) = await pilot.take(1)
    await allow(world, "ghcr.io")
    explained = (await world.jobs.explain(world.owner, refused.number, None)).lines
    assert any("When its turn comes, it will be held." in line for line in explained)

    # What waits behind it comes at once; what runs goes on, and what it leaves is not begun.
    leases = await pilot.take(1)
    assert [lease.job for lease in leases] == [kept.number]
    job = await world.get(refused.number)
    assert (job.status.phase, job.status.reason) == ("running", "images.registry_refused")
    assert job.status.waiting_on == "vo_manager"
    assert f"only images of ghcr.io. It is held; once that is allowed again: hansa job release {job.number}" in (
        job.status.message
    )
    for other in others:
        status = (await world.get(other.number)).status
        assert (status.phase, status.reason) == ("waiting", "images.registry_refused")
        said = [event.reason for event in await world.jobs.timeline(world.owner, other.number)]
        assert said == ["jobs.queued", "images.registry_refused"]
    async with world.database.read() as tx:
        assert await job_store.owners_with_work(tx) == [], "no pilot is started for what is held"
    await pilot.report(done(first, first.first))
    assert await pilot.take(8) == []

    with pytest.raises(Fault):
        await world.jobs.release(world.owner, refused.number)
    await allow(world, "quay.io", "ghcr.io")
    await world.jobs.release(world.owner, refused.number)
    assert [(lease.first, lease.last) for lease in await pilot.take(2)] == [(1, 2)]
