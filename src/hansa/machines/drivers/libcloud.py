"""Machines of any other cloud that Apache Libcloud makes and deletes machines at: Google, Azure, OpenNebula and others.

Libcloud's common calls know neither tags nor idempotency tokens, so a machine is found again by its name, which is made
of its key, or by the key where the cloud gives back what was written on a machine. Where a cloud refuses a second
machine of a name, creation is idempotent; elsewhere the surplus is trimmed. How user data, SSH keys and the key are
handed over differs: ``_HAND_OVER`` has it for the clouds that are known, and the site's setting ``create`` has whatever
else a cloud's ``create_node`` wants. What is tested: see the documentation.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from hansa.engines.egress import EgressPolicy
from hansa.engines.libcloud import Account, overrides
from hansa.machines.drivers.base import (
    Can,
    Capabilities,
    Key,
    Life,
    MachineSpec,
    Observed,
    Refused,
    Size,
    Ssh,
    Why,
    check,
)
from hansa.machines.drivers.libcloud_base import SLOW_S, LibcloudBase
from hansa.machines.drivers.userdata import with_keys
from hansa.sites.kinds.libcloud import CORES

KEY, LOGIN = "hansa_key", "hansa_login"
_LIVES = {
    "running": Life.RUNNING, "rebooting": Life.CHANGING, "terminated": Life.DELETING, "pending": Life.BUILDING,
    "stopped": Life.STOPPED, "suspended": Life.STOPPED, "paused": Life.STOPPED, "error": Life.FAILED,
    "starting": Life.CHANGING, "stopping": Life.CHANGING,
}  # fmt: skip
USER_DATA_BYTES = 16_384 - 1024


def _google(spec: MachineSpec, key: Key) -> dict[str, Any]:
    keys = "\n".join(f"{spec.image.login}:{one}" for one in spec.ssh_keys)
    told = {"user-data": spec.user_data.decode(), "ssh-keys": keys, KEY: key, LOGIN: spec.image.login}
    return {"ex_metadata": {name: value for name, value in told.items() if value}}


def _azure(spec: MachineSpec, key: Key) -> dict[str, Any]:
    from libcloud.compute.base import NodeAuthSSHKey

    if not spec.ssh_keys:
        raise Refused(Why.UNABLE, "Azure makes no machine without an SSH key.")
    data = with_keys(spec.user_data, spec.ssh_keys[1:])
    made = {
        "auth": NodeAuthSSHKey(spec.ssh_keys[0]),
        "ex_user_name": spec.image.login,
        "ex_tags": {KEY: key, LOGIN: spec.image.login},
    }
    return made | ({"ex_customdata": data.decode()} if data else {})


def _opennebula(spec: MachineSpec, key: Key) -> dict[str, Any]:
    told = {"SSH_PUBLIC_KEY": "\n".join(spec.ssh_keys), KEY.upper(): key, LOGIN.upper(): spec.image.login}
    if spec.user_data:
        told |= {"USER_DATA": base64.b64encode(spec.user_data).decode(), "USER_DATA_ENCODING": "base64"}
    return {"context": {name: value for name, value in told.items() if value}}


_HAND_OVER: Mapping[str, Callable[[MachineSpec, Key], dict[str, Any]]] = {
    "gce": _google,
    "azure_arm": _azure,
    "opennebula": _opennebula,
}


class LibcloudMachines(LibcloudBase):
    """A driver for one account. ``create``: more arguments of the cloud's ``create_node``, of the site's settings."""

    WHY: ClassVar[dict[str, Why]] = {"quota": Why.QUOTA, "limit exceeded": Why.QUOTA, "limitexceeded": Why.QUOTA}

    def __init__(
        self, account: Account, egress: EgressPolicy | None = None, create: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(account, egress)
        self._create = dict(create or {})

    def capabilities(self) -> Capabilities:
        can = {Can.POWER} if overrides(self._account.provider, "start_node", "stop_node") else set[Can]()
        return Capabilities(frozenset(can), USER_DATA_BYTES)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        hand_over = _HAND_OVER.get(self._account.provider)
        if hand_over is None and (spec.user_data or spec.ssh_keys):
            said = f"Nobody has written down how {self._account.provider} takes user data and SSH keys."
            raise Refused(Why.UNABLE, said)
        if (found := await self.observe(key)) is not None:
            return found
        more = self._create | (hand_over(spec, key) if hand_over else {})
        return await self._ask(lambda api: self._make(api, spec, key, more), SLOW_S)

    def _listed(self, api: Any, key: Key | None) -> Iterable[Any]:
        """By name, or by what was written on them: Libcloud gives OpenNebula no names.

        Clouds list machines that are gone for a while: those count no more.
        """
        there = [one for one in api.list_nodes() if str(one.state) != "terminated"]
        return [one for one in there if key is None or one.name == name_of(key) or _told(one, KEY) == key]

    def _key_of(self, node: Any) -> Key:
        return _told(node, KEY)

    def _observed(self, node: Any) -> Observed:
        return _observed(node)

    def _make(self, api: Any, spec: MachineSpec, key: Key, more: dict[str, Any]) -> Observed:
        _order(api, spec, key, more, self._account.region)
        return self._made(api, key)


def name_of(key: Key) -> str:
    """What a machine is called there: letters, digits and ``-``, as all clouds allow."""
    return f"hansa-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _life(node: Any) -> Life:
    return _LIVES.get(str(node.state), Life.CHANGING)


def _observed(node: Any) -> Observed:
    public, private = _addresses(node.public_ips), _addresses(node.private_ips)
    host = next(iter((*public, *private)), None)
    size = getattr(node.size, "name", "") or ""
    ssh = Ssh(host, _told(node, LOGIN) or "root") if host else None
    return Observed(str(node.id), _life(node), "", private, public, ssh, flavour=str(size), created=node.created_at)


def _addresses(given: Any) -> tuple[str, ...]:
    """Plain ones, or objects that have one."""
    found = (getattr(one, "address", one) for one in given or ())
    return tuple(str(one) for one in found if one)


def _told(node: Any, name: str) -> str:
    """What was written on a machine when it was made, where the cloud gives it back."""
    for where in ("metadata", "tags", "labels", "context"):
        told = (node.extra or {}).get(where)
        if isinstance(told, dict) and "items" in told:  # Google's: a list of pairs
            told = {one.get("key"): one.get("value") for one in told["items"] or ()}
        if isinstance(told, dict):
            found = next((value for key, value in told.items() if str(key).lower() == name and value), None)
            if found:
                return str(found)
    return ""


def _order(api: Any, spec: MachineSpec, key: Key, more: dict[str, Any], region: str | None) -> None:
    if spec.image.provider_id is None:
        raise Refused(Why.IMAGE, "Images of the catalogue are not brought to this cloud; name one of its own.")
    places = {str(value): one for one in api.list_locations() for value in (one.id, one.name)} if region else {}
    if region in places:
        more = {"location": places[region]} | more
    api.create_node(name_of(key), _size(api, spec.size), _image(api, spec.image.provider_id), **more)


def _image(api: Any, name: str) -> Any:
    try:
        return api.get_image(name)
    except NotImplementedError:
        found = next((one for one in api.list_images() if name in (str(one.id), one.name)), None)
    if found is None:
        raise Refused(Why.IMAGE, f"It has no VM image {name}.")
    return found


def _size(api: Any, wish: Size) -> Any:
    sizes = api.list_sizes()
    if wish.flavour is not None:
        fit = [one for one in sizes if wish.flavour in (str(one.id), one.name)]
    else:
        fit = [one for one in sizes if _cores(one) >= wish.cores and (one.ram or 0) >= wish.memory_mib]
    found = min(fit, key=lambda one: (_cores(one), one.ram or 0, str(one.id)), default=None)
    if found is None:
        raise Refused(Why.FLAVOUR, f"It has no size {wish.flavour or 'that is large enough'}.")
    return found


def _cores(size: Any) -> float:
    extra = size.extra or {}
    told = [extra.get(name) for name in CORES] + [getattr(size, "vcpu", None), getattr(size, "cpu", None)]
    return next((float(one) for one in told if one), 1.0)
