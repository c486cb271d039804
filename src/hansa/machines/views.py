"""Rows as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa.kernel.status import Party, Status
from hansa.kernel.wire import decode
from hansa.machines import model
from hansa.machines.drivers.base import Observed, Opening, Size
from hansa.machines.model import Phase, Wanted
from hansa.machines.store import load_course
from hansa.machines.wire import Machine, MachinePlan, MachineSize, PlannedPlace, RefusedPlace, SshAccess
from hansa.placement.choose import explain_all
from hansa.placement.model import Choice


def status_of(row: Any) -> Status:
    return Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since)


def machine_view(row: Any) -> Machine:
    seen = row.seen
    site, _, endpoint = (row.place or "").partition("/")
    ssh = seen.get("ssh")
    return Machine(
        name=row.name,
        id=row.id,
        owner=row.owner_name,
        status=status_of(row),
        wanted=row.wanted,
        image=row.image["name"],
        image_version=row.image["version"],
        size=size_view(row),
        created=row.created,
        vo=row.vo,
        vo_group=row.vo_group,
        site=site or None,
        endpoint=endpoint or None,
        private=list(seen.get("private", ())),
        public=list(seen.get("public", ())),
        ssh=decode(SshAccess, ssh) if ssh else None,
        guest=seen.get("guest", "unknown"),
        restart=row.spec.get("restart", False),
        ports=list(row.spec.get("ports", ())),
        running_since=row.running_since,
        expires=min((one for one in (row.expires, row.site_ends) if one is not None), default=None),
        ended=row.ended,
        provider_id=seen.get("provider_id"),
        version=row.version,
    )


def size_view(row: Any) -> MachineSize:
    """What it has, or would get at the first of its places."""
    places = [row.place, *row.course["order"]]
    found = next((row.sizes[place] for place in places if place in row.sizes), None)
    return MachineSize(**found) if found else MachineSize(1, 0)


def decided_of(row: Any) -> model.Machine:
    """What decides about a machine."""
    resize = row.resize_to
    return model.Machine(
        id=row.id,
        phase=Phase(row.phase),
        wanted=Wanted(row.wanted),
        course=load_course(row.course),
        created=row.created,
        since=row.since,
        expires=row.expires,
        site_ends=row.site_ends,
        warned=row.warned,
        restart=row.spec.get("restart", False),
        public=row.spec.get("public", False),
        wants_ports=not row.ports_open,
        resize_to=(resize["flavour"] or f"{resize['cores']} cores, {resize['memory_mib']:,} MiB") if resize else None,
        reboots=row.reboots,
        missing_since=row.missing_since,
        running_since=row.running_since,
    )


def size_of(given: dict[str, Any]) -> Size:
    """A size as drivers take it."""
    return Size(given["cores"], given["memory_mib"], given["disk_gib"], given["gpus"], given["flavour"])


def seen_of(found: Observed) -> dict[str, Any]:
    """What is kept of an observation."""
    kept: dict[str, Any] = {
        "provider_id": found.provider_id,
        "life": found.life.value,
        "private": list(found.private),
        "public": list(found.public),
        "guest": found.guest.value,
        "guest_message": found.guest_message,
    }
    if found.ssh is not None:
        kept["ssh"] = vars(found.ssh) | {"host_keys": list(found.ssh.host_keys)}
    return kept


def plan_view(
    image: Mapping[str, Any], vo: str | None, choice: Choice, order: Sequence[str], sizes: Mapping[str, dict[str, Any]]
) -> MachinePlan:
    """A choice of places as its asker sees it."""
    prices = {candidate.site: candidate.price for candidate in choice.order}
    places = []
    for place in order:
        site, _, endpoint = place.partition("/")
        places.append(PlannedPlace(site, MachineSize(**sizes[place]), endpoint or None, prices.get(site)))
    refused = [
        RefusedPlace(
            one.site,
            list(dict.fromkeys(found.message for found in one.findings)),
            list(dict.fromkeys(found.remedy for found in one.findings if found.remedy)),
            one.endpoint or None,
        )
        for one in explain_all(choice)
        if not one.is_possible
    ]
    return MachinePlan(image["name"], image["version"], image["login"], vo, places, refused)


def opening_of(word: str) -> Opening:
    """``443``, ``8000-8010``, ``53/udp``. Raises ValueError on anything else."""
    ports, _, protocol = word.partition("/")
    first, _, last = ports.partition("-")
    opening = Opening(int(first), int(last or first), protocol or "tcp")
    if opening.protocol not in ("tcp", "udp") or not 1 <= opening.first <= opening.last <= 65_535:
        raise ValueError(word)
    return opening
