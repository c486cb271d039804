"""Which pilots are started where, and what is said where none can be."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.identity.authority import RENEW, Authority, AuthorityService, Kind
from hansa.identity.wire import NewVo
from hansa.jobs.demand import Demand
from hansa.jobs.tables import pilots, queues
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party, Status
from hansa.kernel.wire import encode
from hansa.sites import capacity
from hansa.sites import store as site_store
from hansa.sites.capacity import Who
from hansa.sites.capacity_model import MS_PER_HOUR
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, GrantTerms
from hansa.sites.wire import Facts, Partition, SitePolicy
from tests.support.jobworld import World, running

MAIN = Partition("main", 4, 128, 32, 64_128, ["a100", "a100"], None, True, 128)


async def cluster(world: World, name: str = "cluster", part: Partition = MAIN, **more: Any) -> str:
    """A Slurm cluster of the owner's; the id of its endpoint."""
    now = world.clock.now()
    health = more.pop("health", "up")
    policy = more.pop("policy", SitePolicy())
    end = new_id("endpoint")
    status = {"phase": "ready", "reason": "r", "message": "", "waiting_on": "nobody", "since": now}
    async with world.database.begin() as tx:
        await site_store.insert(
            tx, name=name, kind="slurm", owner_id=world.owner.user_id, owner_name="ada",
            capacity={"cores": 0, "memory_mib": 0}, policy=encode(policy), **status,
        )  # fmt: skip
        party = "user" if health == "login" else "nobody"
        values = status | {"phase": health, "reason": f"sites.{health}", "waiting_on": party}
        values |= {"message": f"Sign in: hansa site login {name}" if health == "login" else "It is."}
        await site_store.insert_endpoint(
            tx, id=end, site=name, name="slurm", kind="slurm", settings={"host": "login", **more}, damping={},
            facts={"": encode(Facts(partitions=[part]))}, due_at=now, **values,
        )  # fmt: skip
    return end


async def started(world: World, site: str = "cluster") -> list[Any]:
    query = sa.select(pilots).where(pilots.c.site == site).order_by(pilots.c.id)
    async with world.database.read() as tx:
        return list((await tx.execute(query)).all())


async def test_pilots_are_as_large_as_their_tasks_need_within_a_node_and_the_limits(world: World) -> None:
    end = await cluster(world, max_waiting=3)
    await world.submit(site="cluster", cores=2, memory_mib=1000, wall_time_s=600)
    await world.demand.look()
    (one,) = await started(world)
    assert (one.endpoint_id, one.driver, one.cores, one.memory_mib, one.gpus) == (end, "slurm", 2, 1000, [])
    assert one.wall_time_s == 4 * 3600
    assert one.labels == {"user": "ada", "job": "1"}
    await world.submit(1000, site="cluster", cores=2, memory_mib=8000)
    await world.demand.look()
    more = (await started(world))[1:]
    assert [(pilot.cores, pilot.memory_mib) for pilot in more] == [(16, 64_000)] * 2, "eight tasks fit by memory"
    await world.demand.look()
    assert len(await started(world)) == 3, "no more than may wait there"


async def test_a_site_has_so_many_pilots_at_most_of_all_its_users(world: World) -> None:
    await cluster(world, max_pilots=3, max_waiting=10)
    async with world.database.begin() as tx:
        await tx.execute(sa.update(site_store.sites).values(visibility="all"))
    job = await world.submit(100, site="cluster", cores=32, memory_mib=1000)
    await world.demand.look()
    assert len(await started(world)) == 3
    eve = await world.user("eve")
    hers = await world.submit(site="cluster", caller=eve)
    await world.demand.look()
    assert len(await started(world)) == 3
    async with world.database.read() as tx:
        standing = (await tx.execute(sa.select(queues.c.standing).where(queues.c.owner_id == eve.user_id))).scalar_one()
    assert "cluster: 3 pilots are there, which is the site's limit" in str(standing)
    assert "3 pilots are there" in (await world.jobs.get(eve, hers.number)).status.message
    first, *_ = await started(world)
    async with world.database.begin() as tx:
        await tx.execute(sa.update(pilots).where(pilots.c.id == first.id).values(phase="ended"))
    await world.kill(job.number)
    await world.demand.look()
    assert [one.owner_id for one in await started(world)][3:] == [eve.user_id], "one has ended: another may come"


async def test_what_has_room_needs_no_pilot_and_what_has_none_soon_gets_one(world: World) -> None:
    await cluster(world)
    await world.submit(4, command=["true"])
    await world.demand.look()
    assert [pilot.site for pilot in [*await started(world), *await started(world, "local")]] == ["local"]
    await world.demand.look()
    assert await started(world) == []


async def test_a_pilot_on_its_way_may_find_what_is_asked_and_is_waited_for(world: World) -> None:
    await cluster(world, max_waiting=3)
    await world.submit(site="cluster", glibc="2.28", os="linux", cpu_features=["avx2"])
    await world.submit(site="cluster", gpus=1, gpu_memory_mib=30_000)
    for _ in range(3):
        await world.demand.look()
        assert len(await started(world)) == 2, "one for each: what their nodes have is not known yet"


async def test_a_task_of_many_nodes_is_one_pilot_of_just_its_size(world: World) -> None:
    await cluster(world)
    await world.submit(2, nodes=3, cores=16, memory_mib=2000, gpus=1, wall_time_s=600, batch={"qos": "high"})
    await world.demand.look()
    found = await started(world)
    assert [(one.nodes, one.cores, one.memory_mib, one.gpus) for one in found] == [(3, 16, 2000, ["a100"])] * 2
    assert [one.batch for one in found] == [["--qos=high"]] * 2
    assert all(one.wall_time_s == 780 for one in found)
    await world.submit(whole_node=True, site="cluster")
    await world.demand.look()
    whole = (await started(world))[-1]
    assert (whole.nodes, whole.is_whole, whole.cores, whole.memory_mib) == (1, True, 32, 64_000)
    assert whole.gpus == [], "nodes without GPUs will do, too"
    await world.submit(whole_node=True, site="cluster", gpus=1)
    await world.demand.look()
    assert (await started(world))[-1].gpus == ["a100"] * 2, "all that the node has"


async def test_what_is_more_urgent_has_its_pilot_first(world: World) -> None:
    await cluster(world, max_waiting=1)
    await world.submit(site="cluster")
    await world.submit(site="cluster", cores=16, priority=9)
    await world.demand.look()
    assert [one.cores for one in await started(world)] == [16], "only one may wait there"


async def test_a_pilot_that_has_its_node_to_itself_takes_all_of_it_to_pack_tasks(world: World) -> None:
    await cluster(world, max_waiting=3)
    await world.submit(3, site="cluster", cores=4, memory_mib=1000, batch={"exclusive": ""})
    await world.demand.look()
    (one,) = await started(world)
    assert (one.cores, one.memory_mib, one.gpus, one.is_whole) == (32, 64_000, [], False)
    assert one.wall_time_s == 4 * 3600, "not only for these tasks"
    await world.submit(3, site="cluster", cores=4, batch={"exclusive": "user"})
    await world.demand.look()
    assert (await started(world))[-1].cores == 12, "others of the same user may share its node"
    for name, most, cores in (("alone", None, [32]), ("small", 8, [4, 8])):
        await cluster(world, name, extra=["--exclusive"], pilot_cores=most)
        await world.submit(3, site=name, cores=4)
        await world.demand.look()
        assert sorted(one.cores for one in await started(world, name)) == cores, "in any order: begun together"


async def test_a_pilot_for_one_task_takes_no_other_while_it_runs_one(world: World) -> None:
    """The next one has a pilot of its own, which would have nothing to do; and this one's time is over by then."""
    job = await world.submit(2, whole_node=True)
    first, second = [await world.pilot(is_whole=True) for _ in range(2)]
    (lease,) = await first.take(8)
    busy = {"cores_free": 0, "memory_free_mib": 0}
    assert (await first.exchange(4, running=running(lease, 0), **busy)).leases == []
    assert [one.job for one in await second.take(8)] == [job.number]
    await cluster(world)
    await world.submit(2, nodes=2, cores=4, site="cluster")
    wide = await world.pilot(site="cluster", nodes=2)
    (lease,) = await wide.take(8)
    assert (await wide.exchange(4, running=running(lease, 0), **busy)).leases == []


async def test_a_lapsed_login_waits_for_its_user_and_says_how(world: World) -> None:
    await cluster(world, health="login")
    job = await world.submit(site="cluster")
    await world.demand.look()
    assert await started(world) == []
    status = (await world.get(job.number)).status
    assert (status.reason, status.waiting_on) == ("jobs.login", "user")
    assert "hansa site login cluster" in status.message
    listed = (await world.jobs.list_jobs(world.owner)).items[0]
    assert listed.status == status
    async with world.database.begin() as tx:
        await tx.execute(sa.update(site_store.endpoints).values(phase="up"))
    await world.demand.look()
    assert len(await started(world)) == 1
    assert (await world.get(job.number)).status.reason == "jobs.queued"
    async with world.database.read() as tx:
        assert (await tx.execute(sa.select(queues.c.standing))).scalars().all() == [None]


class Word(AuthorityService):
    """Grants of authority, as a test says: of the user, and of VOs at sites."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_good = True
        self.sites: set[str] = set()

    async def look(
        self, tx: Tx, user_id: str, until: datetime, *, vo: str | None = None, site: str | None = None
    ) -> Authority | Status:
        if self.is_good or site in self.sites:
            return Authority(Kind.OFFLINE, "a")
        message = "The lasting sign-in at Check-in has ended."
        return Status("waiting", "identity.grant_expired", message, Party.USER, self.clock.now())


async def test_nothing_starts_at_a_site_of_others_without_a_grant_of_authority(world: World) -> None:
    word = Word(world.clock)
    world.demand = Demand(world.database, world.events, world.clock, world.sites, 3600, word)
    await cluster(world)
    await cluster(world, "mine")
    async with world.database.begin() as tx:
        mine = site_store.sites.c.name == "mine"
        await tx.execute(sa.update(site_store.sites).where(~mine).values(visibility="all"))
    word.is_good = False
    job = await world.submit(site="cluster")
    await world.submit(site="mine")
    await world.submit(site="local")
    await world.demand.look()
    assert await started(world) == []
    assert len(await started(world, "mine")) == len(await started(world, "local")) == 1, "her own need nobody's word"
    status = (await world.get(job.number)).status
    assert (status.reason, status.waiting_on) == ("identity.grant_expired", "user")
    assert "The lasting sign-in at Check-in has ended." in status.message
    assert status.message.endswith(RENEW)
    assert "hansa login --renew" in RENEW

    word.is_good = True  # one click later
    await world.demand.look()
    assert len(await started(world)) == 1
    assert (await world.get(job.number)).status.reason == "jobs.queued"


async def test_at_zero_hours_work_waits_for_the_vos_managers_and_starts_once_there_are_more(world: World) -> None:
    await cluster(world, policy=SitePolicy(demands_grant=True))
    await world.vos.create(world.owner, NewVo("vo.a.org"))
    grants = CapacityService(world.database, world.events, world.clock)
    who = Who("vo.a.org", "cluster", world.owner.user_id, "ada", "job/0")
    async with world.database.begin() as tx:
        await tx.execute(sa.update(site_store.sites).values(visibility="all"))
    await grants.ask(world.owner, AskGrant("vo.a.org", "cluster", GrantTerms(core_hours=10)))
    await grants.agree(world.owner, "vo.a.org", "cluster", AgreeGrant())
    async with world.database.begin() as tx:
        await capacity.spend(tx, world.events, who, 10 * MS_PER_HOUR)

    job = await world.submit(site="cluster", vo="vo.a.org", wall_time_s=3600)
    await world.demand.look()
    assert await started(world) == []
    status = (await world.get(job.number)).status
    assert (status.reason, status.waiting_on) == ("jobs.no_grant", "vo_manager")
    assert "1.0 core hours asked, 0.0 left" in status.message

    await grants.agree(world.owner, "vo.a.org", "cluster", AgreeGrant(GrantTerms(core_hours=20)))
    await world.demand.look()
    assert len(await started(world)) == 1
    assert (await world.get(job.number)).status.reason == "jobs.queued"


async def test_a_credential_of_the_vo_at_a_site_is_a_grant_there(world: World) -> None:
    word = Word(world.clock)
    world.demand = Demand(world.database, world.events, world.clock, world.sites, 3600, word)
    word.is_good, word.sites = False, {"a"}
    await cluster(world, "a")
    await cluster(world, "b")
    async with world.database.begin() as tx:
        await tx.execute(sa.update(site_store.sites).values(visibility="all"))
    await world.vos.create(world.owner, NewVo("vo.a.org"))
    await world.submit(100, vo="vo.a.org", sites=["a", "b"], cores=32)
    await world.demand.look()
    assert len(await started(world, "a")) > 0
    assert await started(world, "b") == []


async def test_a_pilot_that_is_stuck_in_a_queue_is_not_waited_for_elsewhere(world: World) -> None:
    await cluster(world, "a")
    await cluster(world, "b")
    await world.submit(sites=["a", "b"])
    await world.demand.look()
    assert (len(await started(world, "a")), len(await started(world, "b"))) == (1, 0)
    world.manual.advance(60)
    await world.demand.look()
    assert await started(world, "b") == []
    world.manual.advance(100)
    await world.demand.look()
    assert (len(await started(world, "a")), len(await started(world, "b"))) == (1, 1)


async def test_a_pilot_that_waits_for_nobody_is_given_up(world: World) -> None:
    await cluster(world)
    job = await world.submit(site="cluster", batch={"partition": "main"})
    await world.submit(site="cluster")
    await world.demand.look()
    assert len(await started(world)) == 2
    await world.kill(job.number)
    world.manual.advance(31)
    await world.demand.look()
    assert sorted(one.reason for one in await started(world)) == ["pilots.not_needed", "pilots.starting"]


async def test_what_nodes_are_like_is_asked_of_those_that_were_seen_and_explained(world: World) -> None:
    pilot = await world.pilot()
    await pilot.exchange(node={"os": ["linux", "debian12"], "machine": "x86_64", "glibc": "2.36"})
    job = await world.submit(os="el9")
    await world.demand.look()
    said = (await world.jobs.explain(world.owner, job.number, None)).lines
    assert "Not possible at local: System el9 asked, debian12, linux there." in said, said
    assert "  What would change that: Ask for debian12, linux." in said


async def test_nobody_elses_own_site_is_used(world: World) -> None:
    await cluster(world)
    eve = await world.user("eve")
    await world.site(eve, "other")
    await world.submit(caller=eve)
    await world.demand.look()
    assert [one.owner_id for one in await started(world, "other")] == [eve.user_id]
    assert await started(world) == []


async def test_a_site_that_lets_no_pilots_in_gets_none(world: World) -> None:
    await cluster(world, policy=SitePolicy(pilots=False))
    await world.submit(sites=["cluster", "local"], cores=1)
    await world.demand.look()
    assert await started(world) == []
    assert len(await started(world, "local")) == 1


async def test_a_pilot_that_cannot_be_started_is_told_with_who_must_act(world: World) -> None:
    await cluster(world)
    job = await world.submit(site="cluster")
    await world.demand.look()
    trouble = {"reason": "pilots.start_failed", "message": "Sign in: hansa site login cluster", "waiting_on": "user"}
    async with world.database.begin() as tx:
        await tx.execute(sa.update(pilots).values(**trouble))
    await world.demand.look()
    status = (await world.get(job.number)).status
    assert (status.reason, status.waiting_on) == ("jobs.login", "user")
    assert "hansa site login cluster" in status.message
    assert len(await started(world)) == 1, "no further one is tried beside it"
