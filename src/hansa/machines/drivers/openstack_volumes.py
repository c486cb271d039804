"""Volumes of an OpenStack project. Cinder's creation is not idempotent: a volume is called by its key, and looked for.

What people call it is its description. Attaching and detaching is Nova's, which tells Cinder.
"""

from __future__ import annotations

from typing import Any

from hansa.machines.drivers.base import Key, Progress, Refused, Volume, Why

OURS = "hansa"
_READY = ("available", "in-use", "reserved", "attaching", "detaching")
_DELETABLE = ("available", "error", "error_restoring", "error_extending", "error_managing")
_MESSAGES = "3.5"
"""The first version of Cinder's API that says what went wrong with one thing."""


def ensure(api: Any, key: Key, size_gib: int, name: str) -> Volume:
    """Made where there is none; of several, which nobody has, all but one are removed."""
    found = _listed(api, key)
    if not found:
        found = [
            api.block_storage.create_volume(
                name=name_of(key), size=size_gib, description=name, metadata={"hansa_key": key}
            )
        ]
    for one in found[1:]:
        if one.status in _DELETABLE:
            api.block_storage.delete_volume(one, ignore_missing=True)
    return _seen(api, found)


def observe(api: Any, key: Key) -> Volume | None:
    found = _listed(api, key)
    return _seen(api, found) if found else None


def attach(api: Any, key: Key, server: Any) -> Volume:
    """Raises Refused UNABLE where another machine has it."""
    volume = _one(api, key)
    has = _holder(volume)
    if has not in (None, server.id):
        raise Refused(Why.UNABLE, f"The machine {has} has the volume.")
    if has is None and volume.status == "available":
        api.compute.create_volume_attachment(server, volume_id=volume.id)
    return _seen(api, _listed(api, key))


def detach(api: Any, key: Key) -> Progress:
    """Nova refuses a second order while the first is under way: it is given once."""
    for volume in _listed(api, key):
        has = _holder(volume)
        if has is not None and volume.status == "in-use":
            api.compute.delete_volume_attachment(has, volume.id, ignore_missing=True)
    is_held = any(_holder(one) is not None or one.status == "detaching" for one in _listed(api, key))
    return Progress.PENDING if is_held else Progress.DONE


def delete(api: Any, key: Key) -> Progress:
    if detach(api, key) is Progress.PENDING:
        return Progress.PENDING
    for volume in _listed(api, key):
        if volume.status in _DELETABLE:
            api.block_storage.delete_volume(volume, ignore_missing=True)
        elif volume.status == "error_deleting":
            raise Refused(Why.REFUSED, f"It could not be deleted: {_words(api, volume)}")
    return Progress.PENDING if _listed(api, key) else Progress.DONE


def name_of(key: Key) -> str:
    return f"{OURS}-{key}"


def _listed(api: Any, key: Key) -> list[Any]:
    """The one that counts first: one that a machine has, then the oldest. Raises Refused UNABLE without Cinder."""
    if api.block_storage.get_endpoint() is None:
        raise Refused(Why.UNABLE, "It has no block storage: no volumes can be made there.")
    found = [one for one in api.block_storage.volumes(details=True, name=name_of(key)) if one.name == name_of(key)]
    return sorted(found, key=lambda one: (_holder(one) is None, one.status == "error", str(one.created_at), one.id))


def _one(api: Any, key: Key) -> Any:
    found = _listed(api, key)
    if not found:
        raise Refused(Why.UNABLE, "There is no such volume.")
    return found[0]


def _holder(volume: Any) -> str | None:
    return next((one["server_id"] for one in volume.attachments or () if one.get("server_id")), None)


def _seen(api: Any, found: list[Any]) -> Volume:
    first, *others = found
    device = next((one.get("device") or "" for one in first.attachments or ()), "")
    said = f"It is {first.status}: {_words(api, first)}" if first.status == "error" else ""
    surplus = len([one for one in others if one.status in _DELETABLE])
    return Volume(first.id, int(first.size), first.status in _READY, _holder(first), device, surplus, said)


def _words(api: Any, volume: Any) -> str:
    """What Cinder tells a user of what went wrong; old ones say nothing."""
    answer = api.block_storage.get(f"/messages?resource_uuid={volume.id}", microversion=_MESSAGES)
    if answer.status_code != 200:
        return "it does not say why."
    return next((one["user_message"] for one in answer.json().get("messages", ())), "it does not say why.")
