"""HTTP routes of machines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.machines.meter_service import MeterService
from hansa.machines.service import MachineService
from hansa.machines.wire import (
    ConsoleText,
    Machine,
    MachineChange,
    MachineExplanation,
    MachinePage,
    MachinePlan,
    MachineUsage,
    NewMachine,
    Reboot,
    Resize,
)

router = APIRouter(prefix=API, tags=["machines"])
Machines = Annotated[MachineService, Depends(provided(MachineService))]
Reader = Annotated[Caller, allowed(Permission.MACHINES_READ)]
Writer = Annotated[Caller, allowed(Permission.MACHINES_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str, Path(min_length=1, max_length=80)]


@router.post("/machines", status_code=202)
async def create_machine(
    body: NewMachine,
    who: Writer,
    machines: Machines,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Machine:
    """Have a machine made, at the site that suits it. Durable when answered; GET tells how far it has come."""
    return await machines.create(who, body, idempotency_key)


@router.post("/machines/plan")
async def plan_machine(body: NewMachine, who: Writer, machines: Machines) -> MachinePlan:
    """What creating it would do: where it would run, and why not elsewhere. Nothing is changed."""
    return await machines.plan(who, body)


@router.get("/machines")
async def list_machines(
    who: Reader,
    machines: Machines,
    site: Annotated[str | None, Query(max_length=100)] = None,
    deleted: bool = False,
    after: str | None = None,
    limit: Limit = 100,
) -> MachinePage:
    """The caller's machines at all sites, by name."""
    return await machines.list_machines(who, after, limit, site, with_deleted=deleted)


@router.get("/machines/{machine}")
async def get_machine(machine: Name, who: Reader, machines: Machines, response: Response) -> Machine:
    """One machine, by name or id; its version is the ETag."""
    found = await machines.get(who, machine)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.patch("/machines/{machine}")
async def change_machine(machine: Name, body: MachineChange, who: Writer, machines: Machines) -> Machine:
    """Rename it, extend its time, or have it restarted on failure."""
    return await machines.change(who, machine, body)


@router.delete("/machines/{machine}", status_code=202)
async def delete_machine(machine: Name, who: Writer, machines: Machines) -> Machine:
    """Remove it with its addresses. Volumes stay."""
    return await machines.delete(who, machine)


@router.post("/machines/{machine}/stop", status_code=202)
async def stop_machine(machine: Name, who: Writer, machines: Machines) -> Machine:
    """Shut it down; disk and addresses stay."""
    return await machines.stop(who, machine)


@router.post("/machines/{machine}/start", status_code=202)
async def start_machine(machine: Name, who: Writer, machines: Machines) -> Machine:
    """Start a stopped machine."""
    return await machines.start(who, machine)


@router.post("/machines/{machine}/reboot", status_code=202)
async def reboot_machine(machine: Name, body: Reboot, who: Writer, machines: Machines) -> Machine:
    """Boot it anew."""
    return await machines.reboot(who, machine, body)


@router.post("/machines/{machine}/resize", status_code=202)
async def resize_machine(machine: Name, body: Resize, who: Writer, machines: Machines) -> Machine:
    """Give it another size; it restarts meanwhile."""
    return await machines.resize(who, machine, body)


@router.get("/machines/{machine}/console")
async def read_console(
    machine: Name, who: Reader, machines: Machines, lines: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> ConsoleText:
    """What its console said last, asked of its site now."""
    return await machines.console(who, machine, lines)


@router.get("/machines/{machine}/usage")
async def machine_usage(
    machine: Name, who: Reader, meters: Annotated[MeterService, Depends(provided(MeterService))]
) -> MachineUsage:
    """What it used over its time, where its provider tells that."""
    return await meters.usage(who, machine)


@router.get("/machines/{machine}/explain")
async def explain_machine(machine: Name, who: Reader, machines: Machines) -> MachineExplanation:
    """Why it is where and as it is."""
    return await machines.explain(who, machine)
