"""Pages of machines: the table, the wizard, one machine and what can be done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.images.service import ImageService
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.machines.meter_service import MeterService
from hansa.machines.model import Phase
from hansa.machines.service import MachineService
from hansa.machines.snapshot_service import SnapshotService
from hansa.machines.store import Column, Search
from hansa.machines.volume_model import Phase as VolumePhase
from hansa.machines.volume_service import VolumeService
from hansa.machines.volume_wire import NewSnapshot
from hansa.machines.wire import DAY_S, Machine, MachineChange, MachinePlan, Reboot, Resize
from hansa.portal import machine_form
from hansa.portal.curves import curves_of_machine
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.portal.snippets import of_call
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Meters = Annotated[MeterService, Depends(provided(MeterService))]
Machines = Annotated[MachineService, Depends(provided(MachineService))]
Volumes = Annotated[VolumeService, Depends(provided(VolumeService))]
Snapshots = Annotated[SnapshotService, Depends(provided(SnapshotService))]
Images = Annotated[ImageService, Depends(provided(ImageService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.MACHINES_READ)]
Writer = Annotated[Visit, visitor(Permission.MACHINES_WRITE)]
Name = Annotated[str, Path(min_length=1, max_length=80)]
Text = Annotated[str, Query(max_length=200)]
PAGE = 50
_MOST = 1000
_CONSOLE_LINES = 300


@router.get("/machines")
async def list_machines(
    visit: Reader,
    machines: Machines,
    portal: Pages,
    q: Text = "",
    state: Text = "",
    sort: Column = "name",
    down: bool = False,
    page: Annotated[int, Query(ge=1, le=1000)] = 1,
) -> Response:
    """The table: searched, filtered, sorted and paged in the address."""
    word = q.strip()
    found, total = await machines.search(visit.caller, Search(word, state, sort, down, (page - 1) * PAGE, PAGE))
    return portal.page(
        visit,
        "machines/_table.html" if visit.is_live else "machines/list.html",
        machines=found,
        total=total,
        pages=-(-total // PAGE),
        page=page,
        states=[one.value for one in Phase],
        q=q,
        state=state,
        sort=sort,
        down=down,
    )


@router.get("/machines/new")
async def wizard(
    visit: Writer,
    machines: Machines,
    images: Images,
    sites: Sites,
    vos: Vos,
    volumes: Volumes,
    portal: Pages,
    step: Text = "",
) -> Response:
    """Three steps: a VM image, size and place, the plan. What was chosen is in the address."""
    chosen = {name: visit.request.query_params.get(name, "")[:200] for name in machine_form.CHOICES}
    values = machine_form.blank() | {name: value for name, value in chosen.items() if value}
    if not values["image"]:
        return await _step(visit, machines, images, sites, vos, volumes, portal, values, "image")
    return await _step(
        visit, machines, images, sites, vos, volumes, portal, values, "plan" if step == "plan" else "size"
    )


@router.post("/machines/new")
async def launch(
    visit: Writer,
    machines: Machines,
    images: Images,
    sites: Sites,
    vos: Vos,
    volumes: Volumes,
    portal: Pages,
    browser: Cookies,
) -> Response:
    """Have it made, or say what is wrong."""
    form = await own_form(visit, browser)
    values = dict.fromkeys(machine_form.blank(), "") | form
    try:
        made = await machines.create(visit.caller, machine_form.read(values), form.get("key", "")[:100] or None)
    except Fault as fault:
        return await _step(visit, machines, images, sites, vos, volumes, portal, values, "plan", fault)
    return portal.redirect(f"/machines/{made.name}")


async def _step(
    visit: Visit,
    machines: MachineService,
    images: ImageService,
    sites: SiteService,
    vos: VoService,
    volumes: VolumeService,
    portal: Portal,
    values: Mapping[str, str],
    step: str,
    fault: Fault | None = None,
) -> Response:
    plan: MachinePlan | None = None
    snippets = []
    if step != "image":
        try:
            new = machine_form.read({**values, "name": "" if fault else values["name"]})
            if step == "plan":
                plan = await machines.plan(visit.caller, replace(new, name=None, ssh_keys=[], user_data=""))
            snippets = of_call(
                machine_form.command(new), "POST", "/machines", machine_form.body(new), url=portal.browser.url
            )
        except Fault as found:
            fault, step = fault or found, "size" if plan is None and fault is None else step
    mine = [one.vo for one in await vos.list_mine(visit.caller.user_id) if one.is_active]
    free = []
    if step == "size":
        disks = (await volumes.list_volumes(visit.caller, None, _MOST)).items
        free = [one.name for one in disks if one.machine is None and one.status.phase == VolumePhase.AVAILABLE]
    catalogue = (await images.list_images(visit.caller, None, _MOST)).items if step == "image" else []
    return portal.page(
        visit,
        "machines/new.html",
        status=422 if fault is not None else 200,
        values=values,
        step=step,
        fault=fault,
        plan=plan,
        snippets=snippets,
        images=catalogue,
        twice={name for name, number in Counter(one.name for one in catalogue).items() if number > 1},
        free=free,
        sizes=machine_form.sizes(),
        sites=[one.name for one in (await sites.list_sites(visit.caller)).items] if step == "size" else [],
        vos=mine,
        choices=machine_form.CHOICES,
    )


@router.get("/machines/{machine}")
async def show_machine(
    machine: Name, visit: Reader, machines: Machines, volumes: Volumes, meters: Meters, portal: Pages
) -> Response:
    """One machine: how it is, how to reach it, and what has happened."""
    found = await machines.get(visit.caller, machine)
    explained = await machines.explain(visit.caller, machine)
    usage = await meters.usage(visit.caller, found.id)
    mine = (await volumes.list_volumes(visit.caller, None, _MOST)).items
    return portal.page(
        visit,
        "machines/_state.html" if visit.is_live else "machines/show.html",
        machine=found,
        explained=explained,
        ssh=ssh_command(found),
        sizes=machine_form.sizes(),
        volumes=[one for one in mine if one.machine == found.name],
        usage=usage,
        curves=curves_of_machine(usage),
    )


def ssh_command(machine: Machine) -> Sequence[str]:
    """The words that sign in with a plain OpenSSH; none where nobody can."""
    access = machine.ssh
    if access is None:
        return ()
    jump = ["-J", access.jump] if access.jump else []
    port = ["-p", str(access.port)] if access.port != 22 else []
    return ["ssh", *jump, *port, f"{access.user}@{access.host}"]


@router.get("/machines/{machine}/console")
async def show_console(machine: Name, visit: Reader, machines: Machines, portal: Pages) -> Response:
    """What its console said last, asked of its site now."""
    found = await machines.get(visit.caller, machine)
    fault, text = None, ""
    try:
        text = (await machines.console(visit.caller, machine, _CONSOLE_LINES)).text
    except Fault as why:
        fault = why
    return portal.page(visit, "machines/console.html", machine=found, text=text, fault=fault)


@router.post("/machines/{machine}/act")
async def act_on_machine(
    machine: Name, visit: Writer, machines: Machines, snapshots: Snapshots, portal: Pages, browser: Cookies
) -> Response:
    """Start, stop, reboot, resize, extend, keep its disk, delete."""
    form = await own_form(visit, browser)
    if form.get("act") == "snapshot":
        wish = NewSnapshot(form.get("image", "").strip()[:63] or None, form.get("version", "").strip()[:60] or None)
        made = await snapshots.create(visit.caller, machine, wish)
        return portal.redirect("/snapshots", f"{made.image} {made.version}: {made.status.message}")
    found, said = await _act(visit.caller, machine, form, machines)
    return portal.redirect("/machines" if form.get("act") == "delete" else f"/machines/{found.name}", said)


async def _act(caller: Caller, machine: str, form: Mapping[str, str], machines: MachineService) -> tuple[Machine, str]:
    """What a form asks of a machine, done, and what to say of it."""
    match form.get("act"):
        case "start":
            found = await machines.start(caller, machine)
        case "stop":
            found = await machines.stop(caller, machine)
        case "reboot":
            found = await machines.reboot(caller, machine, Reboot(hard=bool(form.get("hard"))))
        case "resize":
            found = await machines.resize(caller, machine, Resize(flavour=form.get("flavour", "")[:200] or None))
        case "extend":
            seconds = machine_form.lifetime_s(form)
            found = await machines.change(caller, machine, MachineChange(lifetime_s=seconds))
            if not seconds:
                return found, _("It is kept without an end.")
            return found, _("It is kept until {days} days from now.", days=seconds // DAY_S)
        case "restart":
            found = await machines.change(caller, machine, MachineChange(restart=bool(form.get("restart"))))
            return found, _("It is started again when it fails.") if found.restart else _("When it fails it stays so.")
        case "delete":
            found = await machines.delete(caller, machine)
            return found, _("{name} is being deleted with its addresses.", name=found.name)
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with a machine."))
    return found, found.status.message
