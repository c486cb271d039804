"""Pages of volumes and snapshots: what outlives a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.machines.model import Phase as MachinePhase
from hansa.machines.service import MachineService
from hansa.machines.snapshot_service import SnapshotService
from hansa.machines.store import Search
from hansa.machines.volume_model import Phase
from hansa.machines.volume_service import VolumeService
from hansa.machines.volume_wire import AttachVolume, NewVolume, Volume
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.portal.snippets import Snippet, of_call
from hansa.portal.volume_form import body, command, read
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Volumes = Annotated[VolumeService, Depends(provided(VolumeService))]
Snapshots = Annotated[SnapshotService, Depends(provided(SnapshotService))]
Machines = Annotated[MachineService, Depends(provided(MachineService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.MACHINES_READ)]
Writer = Annotated[Visit, visitor(Permission.MACHINES_WRITE)]
Name = Annotated[str, Path(min_length=1, max_length=80)]
Cursor = Annotated[str | None, Query(max_length=500)]
PAGE = 50
_MOST = 1000
_EXAMPLE = NewVolume("data", 100)


@router.get("/volumes")
async def list_volumes(visit: Reader, volumes: Volumes, portal: Pages, after: Cursor = None) -> Response:
    """The reader's volumes at all sites, by name."""
    found = await volumes.list_volumes(visit.caller, after, PAGE)
    template = "volumes/_table.html" if visit.is_live else "volumes/list.html"
    return portal.page(visit, template, found=found, tab="volumes")


@router.get("/snapshots")
async def list_snapshots(visit: Reader, snapshots: Snapshots, portal: Pages, after: Cursor = None) -> Response:
    """Disks of machines that were kept as VM images, the newest first."""
    found = await snapshots.list_snapshots(visit.caller, after, PAGE)
    template = "volumes/_snapshots.html" if visit.is_live else "volumes/snapshots.html"
    return portal.page(visit, template, found=found, tab="snapshots")


@router.get("/volumes/new")
async def new_volume(visit: Writer, sites: Sites, vos: Vos, portal: Pages) -> Response:
    """The form, empty."""
    return await _form(visit, sites, vos, portal, {})


@router.post("/volumes/new")
async def create_volume(
    visit: Writer, volumes: Volumes, sites: Sites, vos: Vos, portal: Pages, browser: Cookies
) -> Response:
    """Have it made, or say what is wrong."""
    form = await own_form(visit, browser)
    try:
        made = await volumes.create(visit.caller, read(form), form.get("key", "")[:100] or None)
    except Fault as fault:
        return await _form(visit, sites, vos, portal, form, fault)
    return portal.redirect(f"/volumes/{made.name}")


async def _form(
    visit: Visit,
    sites: SiteService,
    vos: VoService,
    portal: Portal,
    values: Mapping[str, str],
    fault: Fault | None = None,
) -> Response:
    return portal.page(
        visit,
        "volumes/new.html",
        status=422 if fault is not None else 200,
        values={name: values.get(name, "") for name in ("name", "size_gib", "vo", "site")},
        fault=fault,
        sites=[one.name for one in (await sites.list_sites(visit.caller)).items],
        vos=[one.vo for one in await vos.list_mine(visit.caller.user_id) if one.is_active],
        snippets=_snippets(values, portal),
    )


def _snippets(values: Mapping[str, str], portal: Portal) -> list[Snippet]:
    """The form as it is, or an example where it says nothing yet."""
    try:
        new = read(values)
    except Fault:
        new = _EXAMPLE
    return of_call(command(new), "POST", "/volumes", body(new), url=portal.browser.url)


@router.get("/volumes/{volume}")
async def show_volume(volume: Name, visit: Reader, volumes: Volumes, machines: Machines, portal: Pages) -> Response:
    """One volume: where it is, who has it, and what has happened."""
    found = await volumes.get(visit.caller, volume)
    explained = await volumes.explain(visit.caller, volume)
    return portal.page(
        visit,
        "volumes/_state.html" if visit.is_live else "volumes/show.html",
        volume=found,
        explained=explained,
        **await _takers(visit, machines, found),
    )


async def _takers(visit: Visit, machines: MachineService, volume: Volume) -> dict[str, Any]:
    """What can be done with a volume now, and the machines at its site that could have it."""
    is_free = volume.status.phase == Phase.AVAILABLE and volume.machine is None
    found, _ = await machines.search(visit.caller, Search(limit=_MOST)) if is_free else ([], 0)
    running = {MachinePhase.RUNNING.value, MachinePhase.STOPPED.value}
    return {
        "machines": [one.name for one in found if one.site == volume.site and one.status.phase in running],
        "may_attach": is_free,
        "may_detach": volume.machine is not None and volume.status.phase != Phase.DELETING,
    }


@router.post("/volumes/{volume}/act")
async def act_on_volume(volume: Name, visit: Writer, volumes: Volumes, portal: Pages, browser: Cookies) -> Response:
    """Attach, detach, delete."""
    form = await own_form(visit, browser)
    match form.get("act"):
        case "attach":
            machine = form.get("machine", "")[:80]
            if not machine:
                raise Fault(INVALID, _("Say which machine shall have it."), hint=_("One at the same site."))
            wish = AttachVolume(machine, form.get("path", "").strip()[:200] or None)
            found = await volumes.attach(visit.caller, volume, wish)
            said = _("It is given to {machine}.", machine=machine)
        case "detach":
            found = await volumes.detach(visit.caller, volume)
            said = _("It is taken from its machine.")
        case "delete":
            if form.get("sure", "").strip() != volume:
                raise Fault(
                    INVALID,
                    _("The volume stays: its name was not typed."),
                    hint=_("Type {volume} to delete it.", volume=volume),
                )
            found = await volumes.delete(visit.caller, volume)
            return portal.redirect("/volumes", _("{name} is being deleted, with all that is on it.", name=found.name))
        case _:
            raise Fault(INVALID, _("A volume is attached, detached or deleted: nothing else."))
    return portal.redirect(f"/volumes/{found.name}", said)
