"""All services of a server, wired once, by hand: who needs what can be read here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from hansa.accounting.service import AccountingService
from hansa.engines.egress import EgressPolicy
from hansa.engines.objects import Objects, open_objects
from hansa.identity.accounts import AccountService
from hansa.identity.authority import AuthorityService
from hansa.identity.authority_room import AuthorityRoom
from hansa.identity.keys import Keys
from hansa.identity.provider.browser import Browser
from hansa.identity.provider.service import REALM, ProviderService
from hansa.identity.service import IdentityService
from hansa.identity.services import ServiceAccounts
from hansa.identity.upstream.bearer import BearerService
from hansa.identity.upstream.issuers import read_issuers
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Remote
from hansa.identity.upstream.service import UpstreamService
from hansa.identity.vos import VoService
from hansa.images.controller import TUNING as IMAGE_TUNING
from hansa.images.controller import VersionRoom, expire_endorsements
from hansa.images.depot import Depot
from hansa.images.endorsing import EndorsementService
from hansa.images.publishing import PublishedLists
from hansa.images.service import ImageService
from hansa.images.sources import Sources
from hansa.images.subscriptions import SubscriptionRoom
from hansa.jobs.channels import ChannelService
from hansa.jobs.controller import PilotRoom
from hansa.jobs.demand import Demand
from hansa.jobs.drivers.local import LocalBatch
from hansa.jobs.drivers.machines import MachineBatch, Whose
from hansa.jobs.drivers.places import EndpointPlaces
from hansa.jobs.enrolment import EnrolService, Tickets
from hansa.jobs.exchange import ExchangeService
from hansa.jobs.files import FileService
from hansa.jobs.logs import LogStore
from hansa.jobs.measured import measured
from hansa.jobs.measured import started_since as pilots_since
from hansa.jobs.notices import NoticePolicy, NoticeRoom
from hansa.jobs.notices import forget as forget_notices
from hansa.jobs.placing import platforms_of
from hansa.jobs.program import NodeProgram, build_node_program
from hansa.jobs.registry_logins import RegistryKeys, RegistryLoginService
from hansa.jobs.retention import Retention
from hansa.jobs.service import JobService
from hansa.jobs.steered import Steered
from hansa.jobs.timers import Timers
from hansa.jobs.usage import UsageService
from hansa.kernel import idempotency
from hansa.kernel.clock import Clock, SystemClock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import Settings
from hansa.machines import local as local_machines
from hansa.machines.canaries import CanaryStarters, MachineCanaries
from hansa.machines.canaries import started_since as machines_since
from hansa.machines.controller import TUNING as MACHINE_TUNING
from hansa.machines.controller import MachineRoom
from hansa.machines.libcloud_site import build as build_libcloud
from hansa.machines.meter_service import MeterService
from hansa.machines.meter_store import forget as forget_meters
from hansa.machines.openstack_site import OpenstackSites
from hansa.machines.places import Equip, Holder, SiteDrivers
from hansa.machines.service import Limits, MachineService
from hansa.machines.snapshot_controller import TUNING as SNAPSHOT_TUNING
from hansa.machines.snapshot_controller import SnapshotRoom
from hansa.machines.snapshot_service import SnapshotService
from hansa.machines.starts import Starts
from hansa.machines.store import forget_deleted
from hansa.machines.sync import TUNING as SYNC_TUNING
from hansa.machines.sync import SyncRoom
from hansa.machines.sync_service import SyncService
from hansa.machines.volume_controller import VolumeRoom
from hansa.machines.volume_service import VolumeService
from hansa.machines.volume_store import forget_deleted as forget_volumes
from hansa.machines.watch import MachineWatch
from hansa.placement.service import Measure, PlanService
from hansa.server.home import Home
from hansa.sites.capacity_service import CapacityService
from hansa.sites.checking import CheckService
from hansa.sites.controller import EndpointRoom
from hansa.sites.kinds.base import Target, kind_of
from hansa.sites.local import discover
from hansa.sites.own import OwnSiteService
from hansa.sites.registry import SiteRegistry
from hansa.sites.reports import ReportService
from hansa.sites.service import SiteService
from hansa.sites.steering import SteeringService
from hansa.sites.tokens import SiteTokens

log = structlog.get_logger(__name__)
_HOUSE_KEEPING_S = 3600.0


@dataclass
class Rooms:
    """The services of one server process, and the loops that make the world follow."""

    settings: Settings
    home: Home
    database: Database
    clock: Clock
    objects: Objects
    events: EventLog
    identity: IdentityService
    accounts: AccountService
    vos: VoService
    provider: ProviderService
    services: ServiceAccounts
    upstreams: UpstreamService
    authority: AuthorityService
    remote: Remote
    browser: Browser
    sites: SiteService
    registry: SiteRegistry
    grants: CapacityService
    plans: PlanService
    steering: SteeringService
    reports: ReportService
    checks: CheckService
    own_sites: OwnSiteService
    egress: EgressPolicy
    accounting: AccountingService
    files: FileService
    logs: LogStore
    jobs: JobService
    registry_logins: RegistryLoginService
    exchange: ExchangeService
    channels: ChannelService
    task_usage: UsageService
    enrolments: EnrolService
    program: NodeProgram
    places: EndpointPlaces
    demand: Demand
    steered: Steered
    timers: Timers
    retention: Retention
    images: ImageService
    endorsing: EndorsementService
    image_lists: PublishedLists
    machines: MachineService
    volumes: VolumeService
    snapshots: SnapshotService
    sync: SyncRoom
    image_places: SyncService
    machine_watch: MachineWatch
    meters: MeterService
    machine_drivers: SiteDrivers
    engines: dict[str, Engine[Any, Any, Any, Any]]
    """What makes the world follow, by the name of the room's queue."""
    ends: asyncio.Queue[str]
    """Pilots of this computer that have just ended."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Sign the computer in as its own site, then run the loops."""
        await self._ensure_local()
        await self.images.ensure_presets()
        await self.files.adopt(self.home.blobs / "files")
        if self.home.is_embedded:  # it is alone: what an earlier server held when it was killed is free
            async with self.database.begin() as tx:
                for engine in self.engines.values():
                    await engine.queue.take_over(tx, self.clock.now())
        loops: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("demand", self.demand.run),
            ("steered", self.steered.run),
            ("timers", self.timers.run),
            ("retention", self.retention.run),
            *((name, engine.run) for name, engine in self.engines.items()),
            ("ends", self._look_at_ends),
            ("image-sync", self.sync.run),
            ("sequencer", self.events.run_sequencer),
            ("house-keeping", self._keep_house),
            ("machine-watch", self.machine_watch.run),
        ]
        self._tasks = [asyncio.create_task(_loop(name, run), name=name) for name, run in loops]

    async def stop(self) -> None:
        """End the loops; what a step was doing is done again by whoever starts next."""
        for engine in self.engines.values():
            engine.stop()
        for task in self._tasks:
            if task.get_name() not in self.engines:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.places.close()
        await self.remote.close()
        await self.machine_drivers.close()

    async def _ensure_local(self) -> None:
        user_id = await self.identity.ensure_local_user(self.home.owner_name, self.home.local_token())
        if self.settings.local.enabled:
            capacity = await asyncio.to_thread(discover, self.settings.local)
            await self.sites.ensure_local(user_id, self.home.owner_name, capacity)
        else:
            await self.sites.remove_local()

    async def _look_at_ends(self) -> None:
        while True:
            pilot_id = await self.ends.get()
            async with self.database.begin() as tx:
                await PilotRoom.queue.poke(tx, self.clock.now(), pilot_id)

    async def _keep_house(self) -> None:
        retention = self.settings.retention
        while True:
            await self.events.forget(timedelta(days=retention.events_days))
            await idempotency.forget(self.database, self.clock, timedelta(hours=retention.idempotency_hours))
            await self.accounts.forget_failures()
            await self.provider.forget_expired()
            await self.grants.forget_expired()
            async with self.database.begin() as tx:
                await expire_endorsements(tx, self.clock.now())
                await forget_notices(tx, self.clock.now() - timedelta(days=retention.events_days))
                old = self.clock.now() - timedelta(days=self.settings.machines.history_days)
                await forget_deleted(tx, old)
                await forget_volumes(tx, old)
                await forget_meters(tx, old)
            await self.reports.forget()
            await self.channels.forget()
            await asyncio.sleep(_HOUSE_KEEPING_S)


async def _loop(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """A loop that may end only when the server does: whatever else happens to it is logged, and it starts anew."""
    while True:
        try:
            await run()
            return
        except Fault as fault:
            log.warning("server.loop_waits", loop=name, error=str(fault))
        except Exception:
            log.exception("server.loop_failed", loop=name)
        await asyncio.sleep(1)


def build_rooms(settings: Settings, home: Home, database: Database, clock: Clock | None = None) -> Rooms:
    """Wire the services; nothing runs yet."""
    clock = clock or SystemClock()
    events = EventLog(database, clock)
    objects = open_objects(settings.objects, home.blobs)
    vault = home.vault()
    pages = f"{home.url}{REALM}"
    keys = Keys(database, events, clock, vault, settings.identity.access_token_s)
    provider = ProviderService(database, events, clock, home.url, keys, settings.identity)
    issuers = read_issuers(settings.identity.issuers, provider.issuer)
    remote = Remote(clock, settings.identity.away_s)
    people = People(events, clock)
    authority = AuthorityService(database, events, clock, vault, issuers, remote)
    bearer = BearerService(
        database, clock, issuers, remote, people, settings.identity.introspect_s, settings.identity.away_s
    )
    upstreams = UpstreamService(
        database,
        clock,
        vault,
        issuers,
        remote,
        people,
        authority,
        pages,
        offers_passwords=settings.identity.passwords,
    )
    grants = AuthorityRoom(database, events, clock, issuers, remote, people, authority)
    identity = IdentityService(database, events, clock, home.issuer, provider, bearer)
    vos = VoService(database, events, clock, home.issuer, pages, settings.identity, issuers)
    sites = SiteService(database, events, clock, vault)
    sockets = home.run / "ssh"
    egress = EgressPolicy(settings.sites.networks, allow_private=home.is_embedded)
    tokens = SiteTokens(database, clock, authority, provider)
    registry = SiteRegistry(database, events, clock, vault, is_embedded=home.is_embedded, egress=egress)
    files = FileService(database, objects, clock, settings.files)
    logs = LogStore(database, objects, clock)
    program = build_node_program()
    hide = [home.path]
    ends: asyncio.Queue[str] = asyncio.Queue()
    local = LocalBatch(
        home.run / "pilots",
        home.pilot_urls,
        hide,
        program.bootstrap,
        program.digest,
        settings.server.ca_file,
        ends.put_nowait,
    )
    depot = Depot(settings.images.folder or home.path / "images", settings.images.free_bytes)
    sources = Sources(settings.images.limit_bytes, egress.allow)
    images = ImageService(database, events, clock, depot, settings.images)
    openstack_sites = OpenstackSites()
    builders = {"openstack": openstack_sites.build, "libcloud": build_libcloud}
    start_s = settings.machines.start_s
    canaries_of = CanaryStarters(
        {name: MachineCanaries(database, clock, kind_of(name), build, start_s) for name, build in builders.items()}
    )
    machine_drivers = SiteDrivers(
        database,
        vault,
        egress,
        builders,
        local_machines.drivers(settings.machines, home.path / "machines"),
        _equip(tokens),
        openstack_sites.close,
    )
    starts = Starts()
    seen_by_work: dict[str, Measure] = {"job": measured, "machine": starts.seen}
    machines = MachineService(
        database,
        events,
        clock,
        machine_drivers,
        images,
        sites,
        vos,
        authority,
        Limits(settings.machines.start_s, settings.machines.attempts),
        starts,
    )
    tickets, ca_file = Tickets(vault), settings.server.ca_file

    def machine_batch(whose: Whose) -> MachineBatch:
        return MachineBatch(database, clock, machines, tickets, home.pilot_urls(), whose, ca_file)

    places = EndpointPlaces(
        local, database, sites, program, home.pilot_urls, home.issuer, egress, sockets, ca_file, machine_batch
    )
    endorsing = EndorsementService(database, events, clock, images, home.url)
    sync = SyncRoom(database, events, clock, depot, images, machine_drivers)
    endpoints = EndpointRoom(
        kind_of,
        events,
        clock,
        vault,
        settings.sites,
        egress,
        sockets,
        tokens,
        started_since=_started_since,
        canaries_of=canaries_of,
    )
    engines: list[Engine[Any, Any, Any, Any]] = [
        Engine(database, clock, grants),
        Engine(database, clock, endpoints),
        Engine(database, clock, PilotRoom(places, identity, events, clock, settings.pilot, settings.job)),
        Engine(database, clock, VersionRoom(database, events, clock, depot, sources), IMAGE_TUNING),
        Engine(database, clock, SubscriptionRoom(events, clock, sources)),
        Engine(database, clock, NoticeRoom(events, clock, settings.mail, egress, home.url)),
        Engine(database, clock, MachineRoom(machine_drivers, events, clock, depot, authority), MACHINE_TUNING),
        Engine(database, clock, VolumeRoom(machine_drivers, events, clock, authority)),
        Engine(database, clock, SnapshotRoom(machine_drivers, events, clock, depot), SNAPSHOT_TUNING),
        Engine(database, clock, sync, SYNC_TUNING),
    ]
    return Rooms(
        settings=settings,
        home=home,
        database=database,
        clock=clock,
        objects=objects,
        events=events,
        identity=identity,
        accounts=AccountService(database, events, clock, home.issuer, pages, settings.identity),
        vos=vos,
        provider=provider,
        services=ServiceAccounts(database, events, clock, home.issuer),
        upstreams=upstreams,
        authority=authority,
        remote=remote,
        browser=Browser(home.url, vault.derive("csrf")),
        sites=sites,
        steering=SteeringService(database, events, clock),
        reports=ReportService(database, clock, settings.sites.history_days),
        grants=CapacityService(database, events, clock),
        plans=PlanService(database, clock, sites, vos, authority, settings.job, seen_by_work, platforms_of),
        accounting=AccountingService(database, home.url),
        registry=registry,
        checks=CheckService(registry, kind_of, settings.sites, egress, sockets, tokens, canaries_of),
        own_sites=OwnSiteService(registry, database, clock, sockets, is_embedded=home.is_embedded),
        egress=egress,
        files=files,
        logs=logs,
        jobs=JobService(
            database,
            events,
            clock,
            files,
            logs,
            sites,
            vos,
            settings.job,
            NoticePolicy(settings.mail, egress),
            places,
            authority,
        ),
        registry_logins=RegistryLoginService(database, clock, vault),
        exchange=ExchangeService(
            database, events, clock, files, logs, settings.job, settings.files, RegistryKeys(vault)
        ),
        channels=ChannelService(database, events, clock),
        task_usage=UsageService(database, settings.job),
        program=program,
        places=places,
        demand=Demand(database, events, clock, sites, settings.job.share_half_life_s, authority),
        steered=Steered(database, events, clock),
        timers=Timers(database, events, clock),
        retention=Retention(database, clock, files, logs, settings.retention),
        images=images,
        endorsing=endorsing,
        image_lists=PublishedLists(database, clock, vault, images, endorsing, home.url),
        machines=machines,
        enrolments=EnrolService(database, events, clock, identity, tickets, program, home.pilot_urls(), settings.job),
        volumes=VolumeService(database, events, clock, machine_drivers, sites, vos, authority),
        snapshots=SnapshotService(database, events, clock, machine_drivers, authority),
        machine_watch=MachineWatch(database, clock, machine_drivers),
        meters=MeterService(database, machine_drivers),
        machine_drivers=machine_drivers,
        sync=sync,
        image_places=SyncService(database),
        engines={engine.queue.name: engine for engine in engines},
        ends=ends,
    )


async def _started_since(tx: Tx, site: str, endpoint_id: str, since: datetime) -> bool:
    """Whether anything was started there: a pilot, or a machine."""
    return await pilots_since(tx, site, endpoint_id, since) or await machines_since(tx, site, endpoint_id, since)


def _equip(tokens: SiteTokens) -> Equip:
    """Machines sign in as their owner, or as the owner's VO."""

    async def equip(target: Target, holder: Holder) -> Target:
        return await tokens.equip(target, holder.vo, [holder.owner_id])

    return equip


@asynccontextmanager
async def running(rooms: Rooms) -> AsyncIterator[Rooms]:
    """The loops run inside; the database is closed at the end."""
    await rooms.start()
    try:
        yield rooms
    finally:
        await rooms.stop()
        await rooms.database.close()
