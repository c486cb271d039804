"""Open ports at a cloud that speaks EC2: one security group a machine, called by its key, beside those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.machines.drivers.base import Key, Opening, Progress

Rule = tuple[str, int, int, str]
_ABOUT = "made by Hansa for one of its machines"


def open_ports(api: Any, node: Any, key: Key, openings: Sequence[Opening]) -> None:
    """These ports, and no other of those that were opened before; the machine's own groups stay."""
    group_id, there = _ensure(api, key, node.extra.get("vpc_id"))
    wanted = {(one.protocol, one.first, one.last, one.cidr) for one in openings}
    for protocol, first, last, cidr in sorted(wanted - there):
        api.ex_authorize_security_group_ingress(group_id, first, last, cidr_ips=[cidr], protocol=protocol)
    for protocol, first, last, cidr in sorted(there - wanted):
        api.ex_revoke_security_group_ingress(group_id, first, last, cidr_ips=[cidr], protocol=protocol)
    has = [one["group_id"] for one in node.extra.get("groups") or ()]
    if group_id not in has:
        named = {f"GroupId.{number}": one for number, one in enumerate([*has, group_id], 1)}
        api.ex_modify_instance_attribute(node, named)


def forget(api: Any, key: Key) -> Progress:
    """When its machine is gone: EC2 refuses it for a while after that."""
    for group in _groups(api, key):
        try:
            api.ex_delete_security_group_by_id(group.id)
        except Exception as error:
            if "DependencyViolation" not in str(error):
                raise
            return Progress.PENDING
    return Progress.DONE


def name_of(key: Key) -> str:
    return f"hansa-{key}"


def _groups(api: Any, key: Key) -> list[Any]:
    """EC2 lets no second group of a name into a network: there is one of a machine, whoever made it."""
    return [one for one in api.ex_get_security_groups(filters={"group-name": name_of(key)}) if one.name == name_of(key)]


def _ensure(api: Any, key: Key, vpc_id: str | None) -> tuple[str, set[Rule]]:
    """The group's id, and what it opens."""
    found = _groups(api, key)
    if not found:
        return str(api.ex_create_security_group(name_of(key), _ABOUT, vpc_id=vpc_id)["group_id"]), set()
    return str(found[0].id), {
        (rule["protocol"], int(rule["from_port"]), int(rule["to_port"]), cidr)
        for rule in found[0].ingress_rules
        for cidr in rule["cidr_ips"]
        if rule["from_port"]
    }
