"""Volumes of a cloud that speaks EC2. Each carries its key as a tag, from the moment that it exists.

A volume is in one zone, and only machines of that zone can have it.
"""

from __future__ import annotations

from typing import Any

from hansa.kernel.errors import Temporary
from hansa.machines.drivers.base import Key, Progress, Refused, Volume, Why

TAG = "hansa_volume"
_LETTERS = "fghijklmnop"
"""Of device names: those that EC2 recommends for volumes."""


def zone_of(api: Any, zone: str | None, subnet: str | None) -> str:
    """Where machines and volumes are: the zone of the settings, else that of the subnet, else the first that is up."""
    if zone is not None:
        return zone
    if subnet is not None:
        found = api.ex_list_subnets(subnet_ids=[subnet])
        return str(found[0].extra["zone"])
    up = sorted(one.name for one in api.ex_list_availability_zones() if one.zone_state == "available")
    if not up:
        raise Refused(Why.NO_HOST, "No zone of the region is available.")
    return str(up[0])


def ensure(api: Any, key: Key, size_gib: int, name: str, zone: str) -> Volume:
    """Made where there is none; of several, which nobody has, all but one are removed."""
    found = _listed(api, key)
    if not found:
        tags = {TAG: key, "Name": name}
        params = {
            "Action": "CreateVolume", "Size": str(size_gib), "AvailabilityZone": zone, "ClientToken": key,
            "TagSpecification.1.ResourceType": "volume",
        }  # fmt: skip
        for number, (word, value) in enumerate(tags.items(), 1):
            params |= {f"TagSpecification.1.Tag.{number}.Key": word, f"TagSpecification.1.Tag.{number}.Value": value}
        api.connection.request(api.path, params=params)
        found = _listed(api, key)
        if not found:
            raise Temporary("It does not list the volume yet.", 1.0)
    for one in found[1:]:
        if not one.extra.get("instance_id"):
            api.destroy_volume(one)
    return _seen(found)


def observe(api: Any, key: Key) -> Volume | None:
    found = _listed(api, key)
    return _seen(found) if found else None


def attach(api: Any, key: Key, node: Any) -> Volume:
    """Raises Refused UNABLE where another machine has it."""
    volume = _one(api, key)
    has = volume.extra.get("instance_id")
    if has not in (None, node.id):
        raise Refused(Why.UNABLE, f"The machine {has} has the volume.")
    if has is None and volume.extra.get("state") == "available":
        used = {one.extra.get("device") for one in api.list_volumes(node=node)}
        device = next((name for letter in _LETTERS if (name := f"/dev/sd{letter}") not in used), None)
        if device is None:
            raise Refused(Why.UNABLE, f"A machine there can have {len(_LETTERS)} volumes, and this one has them.")
        api.attach_volume(node, volume, device)
    return _seen(_listed(api, key))


def detach(api: Any, key: Key) -> Progress:
    """Asked once: a second order while the guest holds on to it is an error."""
    for one in _listed(api, key):
        _free(api, one)
    return Progress.PENDING if any(one.extra.get("instance_id") for one in _listed(api, key)) else Progress.DONE


def delete(api: Any, key: Key) -> Progress:
    if detach(api, key) is Progress.PENDING:
        return Progress.PENDING
    for one in _listed(api, key):
        if one.extra.get("state") != "deleting":
            api.destroy_volume(one)
    return Progress.PENDING if _listed(api, key) else Progress.DONE


def free(api: Any, node: Any) -> None:
    """Take a machine's volumes of ours from it: clouds like EC2 do not all let them go with it."""
    for one in api.list_volumes(node=node, ex_filters={"tag-key": TAG}):
        _free(api, one)


def _free(api: Any, volume: Any) -> None:
    has = volume.extra.get("instance_id")
    if has and volume.extra.get("attachment_status") != "detaching":
        params = {"Action": "DetachVolume", "VolumeId": volume.id, "InstanceId": has}
        api.connection.request(api.path, params=params)


def _listed(api: Any, key: Key) -> list[Any]:
    """The one that counts first: one that a machine has, then the oldest."""
    found = api.list_volumes(ex_filters={f"tag:{TAG}": key})
    there = [one for one in found if one.extra.get("state") != "deleted"]
    return sorted(there, key=lambda one: (not one.extra.get("instance_id"), str(one.extra.get("create_time")), one.id))


def _one(api: Any, key: Key) -> Any:
    found = _listed(api, key)
    if not found:
        raise Refused(Why.UNABLE, "There is no such volume.")
    return found[0]


def _seen(found: list[Any]) -> Volume:
    first, *others = found
    extra = first.extra
    is_ready = extra.get("state") in ("available", "in-use")
    said = "It could not be made." if extra.get("state") == "error" else ""
    return Volume(
        first.id, int(first.size), is_ready, extra.get("instance_id") or None, extra.get("device") or "",
        len([one for one in others if one.extra.get("state") != "deleting"]), said,
    )  # fmt: skip
