"""Home, search, the page of components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response

from hansa.identity.accounts import AccountService
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller, Membership
from hansa.identity.policy import Permission, VoAct, may_in_vo, permits
from hansa.identity.provider.service import REALM
from hansa.identity.vos import VoService
from hansa.identity.wire import Authority
from hansa.images.service import ImageService
from hansa.jobs.service import JobService
from hansa.jobs.wire import Phase
from hansa.kernel.clock import SystemClock
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.http import MOST, provided
from hansa.kernel.status import Party
from hansa.kernel.texts import _
from hansa.machines.service import MachineService
from hansa.machines.store import Search
from hansa.machines.volume_service import VolumeService
from hansa.machines.wire import Machine
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, visitor
from hansa.portal.sites import may_steer
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import Grant
from hansa.sites.service import SiteService
from hansa.sites.wire import Site

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Images = Annotated[ImageService, Depends(provided(ImageService))]
Machines = Annotated[MachineService, Depends(provided(MachineService))]
Volumes = Annotated[VolumeService, Depends(provided(VolumeService))]
Capacities = Annotated[CapacityService, Depends(provided(CapacityService))]
Authorities = Annotated[AuthorityService, Depends(provided(AuthorityService))]
Accounts = Annotated[AccountService, Depends(provided(AccountService))]
Log = Annotated[EventLog, Depends(provided(EventLog))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Reader = Annotated[Visit, visitor(Permission.SELF_READ)]
_SOON = timedelta(days=14)
_MACHINE_SOON = timedelta(days=3)
_HITS = 10
_MOST = 1000


@dataclass(frozen=True)
class Hit:
    """Something that was found."""

    kind: str
    name: str
    path: str
    about: str


@dataclass(frozen=True)
class Need:
    """Something that waits for the reader."""

    title: str
    path: str
    about: str
    ends: datetime | None = None
    extend: str = ""
    """The machine that is kept for longer by a button here."""


@router.get("/")
async def home(
    visit: Reader,
    jobs: Jobs,
    sites: Sites,
    vos: Vos,
    grants: Capacities,
    authority: Authorities,
    machines: Machines,
    log: Log,
    portal: Pages,
) -> Response:
    """What is mine, how it is going, and what needs me."""
    caller, now = visit.caller, SystemClock().now()
    mine = await vos.list_mine(caller.user_id)
    places = (await sites.list_sites(caller)).items
    granted = (await grants.list_grants(caller, None, _MOST)).items
    lapsed = [one for one in (await authority.list_mine(caller)).items if one.waiting_on == Party.USER]
    counts = await jobs.summary(caller)
    failed = await jobs.list_jobs(caller, phase=Phase.FAILED, limit=5)
    recent = await jobs.list_jobs(caller, limit=8)
    return portal.page(
        visit,
        "_home.html" if visit.is_live else "home.html",
        counts=counts,
        failed=failed.items,
        recent=recent.items,
        running=(await machines.search(caller, Search(phase="running", limit=1)))[1],
        needs=[
            *needs_of_machines(await _worrying(machines, caller), now),
            *await _ending_credentials(authority, caller, mine, now),
            *needs_of(caller, mine, places, granted, lapsed, now),
        ],
        grants=[one for one in granted if one.status.phase not in ("asked", "refused")],
        activity=await log.recent(caller.user_id, 12),
    )


async def _worrying(machines: MachineService, caller: Caller) -> list[Machine]:
    """Machines that may need the caller: failed ones, those that wait, and those that end first; each once."""
    asked = (Search(phase="failed", limit=_HITS), Search(phase="waiting", limit=_HITS), Search(sort="expires"))
    pages = [await machines.search(caller, one) for one in asked]
    return list({one.id: one for found, _ in pages for one in found}.values())


def needs_of_machines(machines: Sequence[Machine], now: datetime) -> list[Need]:
    """Machines that failed, that wait for the reader, or that are stopped soon. Pure."""
    found = []
    for one in machines:
        path = f"/machines/{one.name}"
        if one.wanted == "deleted":
            continue
        if one.status.phase == "failed" or one.status.waiting_on == Party.USER:
            found.append(Need(one.name, path, one.status.message))
        elif one.expires is not None and now < one.expires < now + _MACHINE_SOON and one.status.phase != "stopped":
            found.append(Need(one.name, path, _("The machine is stopped then."), one.expires, one.name))
    return found


async def _ending_credentials(
    authority: AuthorityService, caller: Caller, mine: Sequence[Membership], now: datetime
) -> list[Need]:
    """Credentials of organisations that the reader manages, and that their sites end soon."""
    managed = [one.vo for one in mine if may_in_vo(caller, VoAct.MANAGE, one)]
    return [
        Need(f"{vo}, {one.site}", f"/vos/{vo}/access", _("The credential ends."), one.expires)
        for vo in managed
        for one in (await authority.site_credentials(caller, vo)).items
        if one.expires is not None and now < one.expires < now + _SOON
    ]


def needs_of(
    caller: Caller,
    mine: Sequence[Membership],
    sites: Sequence[Site],
    grants: Sequence[Grant],
    lapsed: Sequence[Authority],
    now: datetime,
) -> list[Need]:
    """What waits for the reader, most urgent first. Pure."""
    found = [Need(one.issuer or one.kind, f"{REALM}/account", one.message) for one in lapsed]
    found += [
        Need(one.vo, f"/vos/{one.vo}", _("Suspended: nothing new starts for it. What runs goes on."))
        for one in mine
        if not one.is_active
    ]
    steered = {site.name for site in sites if may_steer(caller, site)}
    managed = {one.vo for one in mine if may_in_vo(caller, VoAct.MANAGE, one)}
    for grant in grants:
        if grant.asked is not None and grant.site in steered:
            said = f"{_('{vo} asks for capacity.', vo=grant.vo)} {grant.note}".strip()
            found.append(Need(grant.site, f"/sites/{grant.site}", said))
        ends = grant.terms.ends
        if grant.vo in managed and grant.status.waiting_on == Party.VO_MANAGER:
            found.append(Need(f"{grant.vo}, {grant.site}", f"/vos/{grant.vo}", grant.status.message))
        elif grant.vo in managed and ends is not None and now < ends < now + _SOON:
            found.append(Need(f"{grant.vo}, {grant.site}", f"/vos/{grant.vo}", _("The capacity grant ends."), ends))
    return found


@router.get("/search")
async def search(
    visit: Reader,
    jobs: Jobs,
    sites: Sites,
    vos: Vos,
    images: Images,
    machines: Machines,
    volumes: Volumes,
    accounts: Accounts,
    portal: Pages,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Everything of the reader's with this number or name."""
    word = q.strip()
    hits: list[Hit] = []
    if word:
        hits += await _find(visit, jobs, sites, vos, word)
        hits += await _find_machines(visit, machines, volumes, images, word)
        if permits(Permission.USERS_WRITE, visit.caller):
            people = (await accounts.list_users(None, _HITS, word)).items
            hits += [Hit("user", one.name, f"/admin?{urlencode({'q': one.name})}", one.issuer) for one in people]
    return portal.page(visit, "_hits.html" if visit.is_live else "search.html", hits=hits, q=word)


async def _find_machines(
    visit: Visit, machines: MachineService, volumes: VolumeService, images: ImageService, word: str
) -> list[Hit]:
    caller, small = visit.caller, word.lower()
    found, _ = await machines.search(caller, Search(word, limit=_HITS))
    hits = [Hit("machine", one.name, f"/machines/{one.name}", one.status.message) for one in found]
    disks = (await volumes.list_volumes(caller, None, _MOST)).items
    hits += [
        Hit("volume", one.name, f"/volumes/{one.name}", f"{one.size_gib:,} GiB. {one.status.message}")
        for one in disks
        if small in f"{one.name} {one.vo or ''} {one.site or ''} {one.machine or ''}".lower()
    ]
    for image in (await images.list_images(caller, None, _MOST)).items:
        if small in image.name.lower() or small in image.title.lower():
            hits.append(Hit("VM image", image.name, f"/images/show/{image.scope}/{image.name}", image.title))
    return hits


async def _find(visit: Visit, jobs: JobService, sites: SiteService, vos: VoService, word: str) -> list[Hit]:
    caller, small = visit.caller, word.lower()
    hits: list[Hit] = []
    number = word.removeprefix("#").partition(".")[0]
    if number.isdigit() and int(number[:19]) <= MOST:
        try:
            job = await jobs.get(caller, int(number[:19]))
            hits.append(Hit("job", f"{job.number}", f"/jobs/{job.number}", job.name or " ".join(job.command)[:80]))
        except Fault:
            pass  # it is nobody's, or not the reader's: the same to them
    quoted = '"' + word.replace('"', " ") + '"'
    named = await jobs.list_jobs(caller, query=quoted, limit=_HITS)
    hits += [Hit("job", str(job.number), f"/jobs/{job.number}", job.name or "") for job in named.items]
    for site in (await sites.list_sites(caller)).items:
        if small in f"{site.name} {site.description} {site.country} {site.kind}".lower():
            hits.append(Hit("site", site.name, f"/sites/{site.name}", site.status.message))
    for vo in (await vos.list_vos(caller, None, _MOST)).items:
        if small in vo.name.lower() or small in vo.description.lower():
            hits.append(Hit("organisation", vo.name, f"/vos/{vo.name}", vo.description[:80]))
    return hits


@router.get("/components")
async def components(visit: Reader, portal: Pages) -> Response:
    """Every component that pages are made of, for developers."""
    counts = {"done": 820, "failed": 12, "killed": 3, "running": 64, "waiting": 101}
    return portal.page(visit, "components.html", bar=charts.stack(counts), counts=counts, phases=list(Phase))
