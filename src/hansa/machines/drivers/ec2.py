"""Machines of a cloud that speaks EC2, by Apache Libcloud.

Creation is idempotent by the client token, which is the machine's key; it is a tag as well, to be found by. The key
pair is called by it, and the address carries it as a tag from the moment that it exists.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, TypeVar

from hansa.engines.egress import EgressPolicy
from hansa.engines.libcloud import Account, call
from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers.base import (
    Can,
    Capabilities,
    Key,
    Life,
    MachineSpec,
    Observed,
    Progress,
    Refused,
    Ssh,
    Why,
    adopt,
    check,
)
from hansa.machines.drivers.userdata import with_keys

T = TypeVar("T")
TAG = "hansa_key"
_LIVES = {
    "pending": Life.BUILDING,
    "running": Life.RUNNING,
    "stopping": Life.CHANGING,
    "stopped": Life.STOPPED,
    "shutting-down": Life.DELETING,
}
_WHY = {
    "InstanceLimitExceeded": Why.QUOTA,
    "VcpuLimitExceeded": Why.QUOTA,
    "AddressLimitExceeded": Why.QUOTA,
    "InsufficientInstanceCapacity": Why.NO_HOST,
    "InvalidAMIID": Why.IMAGE,
    "refused the sign-in": Why.SIGN_IN,
}
USER_DATA_BYTES = 16_384 - 1024
"""EC2 takes 16 KiB before base64; more SSH keys need some room beside."""


class Ec2Machines:
    """A driver for one account in one region. ``subnet``: where machines go; None: the account's own choice."""

    def __init__(self, account: Account, egress: EgressPolicy | None = None, subnet: str | None = None) -> None:
        self._account = account
        self._egress = egress
        self._subnet = subnet

    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({Can.POWER, Can.ADDRESSES, Can.CONSOLE, Can.GPUS}), USER_DATA_BYTES)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        if (found := await self.observe(key)) is not None:
            return found
        subnet = spec.network or self._subnet
        return await self._ask(lambda api: _create(api, spec, key, subnet), 180.0)

    async def observe(self, key: Key) -> Observed | None:
        return await self._ask(lambda api: adopt([_observed(one) for one in _nodes(api, key)]))

    async def trim(self, key: Key) -> Progress:
        def work(api: Any) -> Progress:
            nodes = {one.id: one for one in _nodes(api, key)}
            found = adopt([_observed(one) for one in nodes.values()])
            for node_id in found.surplus if found else ():
                api.destroy_node(nodes[node_id])
            return Progress.DONE

        return await self._ask(work)

    async def delete(self, key: Key) -> Progress:
        return await self._ask(lambda api: _delete(api, key))

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        def work(api: Any) -> list[Key]:
            listed = api.list_nodes(ex_filters={"tag-key": TAG})
            found = {one.extra["tags"].get(TAG, "") for one in listed if one.extra.get("status") != "terminated"}
            return sorted(key for key in found if key and key.startswith(prefix))

        return await self._ask(work)

    async def close(self) -> None:
        """There is a connection for each call only."""

    async def stop(self, key: Key) -> Progress:
        return await self._power(key, Life.STOPPED, lambda api, node: api.stop_node(node))

    async def start(self, key: Key) -> Progress:
        return await self._power(key, Life.RUNNING, lambda api, node: api.start_node(node))

    async def reboot(self, key: Key, *, hard: bool = False) -> None:  # noqa: ARG002 - EC2 knows one way
        await self._ask(lambda api: api.reboot_node(_node(api, key)))

    async def console_log(self, key: Key, lines: int = 200) -> str:
        def work(api: Any) -> str:
            said = api.ex_get_console_output(_node(api, key)).get("output") or b""
            text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
            return "\n".join(text.splitlines()[-lines:])

        return await self._ask(work)

    async def ensure_address(self, key: Key) -> str:
        return await self._ask(lambda api: _ensure_address(api, key))

    async def release_address(self, key: Key) -> Progress:
        return await self._ask(lambda api: _release(api, key))

    async def _power(self, key: Key, life: Life, act: Callable[[Any, Any], Any]) -> Progress:
        def work(api: Any) -> Progress:
            node = _node(api, key)
            if _life(node) is life:
                return Progress.DONE
            if _life(node) in (Life.RUNNING, Life.STOPPED):
                act(api, node)
            return Progress.PENDING

        return await self._ask(work)

    async def _ask(self, work: Callable[[Any], T], deadline_s: float = 60.0) -> T:
        try:
            return await call(self._account, work, self._egress, deadline_s)
        except Permanent as error:
            why = next((why for word, why in _WHY.items() if word in str(error)), None)
            if why is None or isinstance(error, Refused):
                raise
            raise Refused(why, str(error)) from error


def _nodes(api: Any, key: Key) -> list[Any]:
    found = api.list_nodes(ex_filters={f"tag:{TAG}": key})
    return [one for one in found if one.extra.get("status") != "terminated"]


def _node(api: Any, key: Key) -> Any:
    nodes = {one.id: one for one in _nodes(api, key)}
    chosen = adopt([_observed(one) for one in nodes.values()])
    if chosen is None:
        raise Refused(Why.UNABLE, "There is no such machine.")
    return nodes[chosen.provider_id]


def _life(node: Any) -> Life:
    return _LIVES.get(str(node.extra.get("status")), Life.CHANGING)


def _observed(node: Any) -> Observed:
    public = tuple(str(one) for one in node.public_ips if one)
    private = tuple(str(one) for one in node.private_ips if one)
    host = next(iter((*public, *private)), None)
    launched = node.extra.get("launch_time")
    created = datetime.fromisoformat(launched.replace("Z", "+00:00")) if launched else None
    login = node.extra.get("tags", {}).get("hansa_login", "root")
    return Observed(
        node.id, _life(node), "", private, public, Ssh(host, login) if host else None,
        flavour=node.extra.get("instance_type") or "", created=created,
    )  # fmt: skip


def _image(api: Any, name: str) -> Any:
    """One that the cloud offers to everybody. Raises Refused IMAGE."""
    found = next((one for one in api.list_images(ex_image_ids=[name]) if one.id == name), None)
    if found is None or str(found.extra.get("is_public")).lower() != "true":
        raise Refused(Why.IMAGE, f"It has no VM image {name} that can be used.")
    return found


def _create(api: Any, spec: MachineSpec, key: Key, subnet: str | None) -> Observed:
    if spec.image.provider_id is None:
        raise Refused(Why.IMAGE, "Images of the catalogue are not brought to this cloud; name one of its own.")
    size = _size(api, spec)
    more: dict[str, Any] = {}
    if spec.ssh_keys:
        more["ex_keyname"] = _key_pair(api, key, spec.ssh_keys[0])
    if subnet is not None:
        more["ex_subnet"] = SimpleNamespace(id=subnet)
    user_data = with_keys(spec.user_data, spec.ssh_keys[1:])
    if user_data:
        more["ex_userdata"] = user_data
    tags = {name: value for name, value in spec.tags.items() if value} | {TAG: key, "hansa_login": spec.image.login}
    image = _image(api, spec.image.provider_id) if spec.image.is_public else SimpleNamespace(id=spec.image.provider_id)
    api.create_node(spec.name, size, image, ex_metadata=tags, ex_clienttoken=key, **more)
    found = adopt([_observed(one) for one in _nodes(api, key)])
    if found is None:
        raise Temporary("It does not list the machine yet.", 1.0)
    return found


def _size(api: Any, spec: MachineSpec) -> Any:
    wish = spec.size
    if wish.flavour is not None:
        return SimpleNamespace(id=wish.flavour)
    fit = [
        one
        for one in api.list_sizes()
        if int(one.extra.get("vcpu") or 0) >= wish.cores and (one.ram or 0) >= wish.memory_mib
    ]
    found = min(fit, key=lambda one: (int(one.extra["vcpu"]), one.ram, one.id), default=None)
    if found is None:
        raise Refused(Why.FLAVOUR, "It has no size that is large enough.")
    return found


def _key_pair(api: Any, key: Key, public: str) -> str:
    if key not in {one.name for one in api.list_key_pairs()}:
        material = base64.b64encode(public.encode()).decode()
        params = {"Action": "ImportKeyPair", "KeyName": key, "PublicKeyMaterial": material}
        api.connection.request(api.path, params=params)  # Libcloud's own wants a fingerprint back
    return key


def _delete(api: Any, key: Key) -> Progress:
    _release(api, key)
    nodes = _nodes(api, key)
    for node in nodes:
        if _life(node) is not Life.DELETING:
            api.destroy_node(node)
    if _nodes(api, key):
        return Progress.PENDING
    if key in {one.name for one in api.list_key_pairs()}:
        api.delete_key_pair(SimpleNamespace(name=key))
    return Progress.DONE


def _addresses(api: Any, key: Key) -> list[Any]:
    """The addresses of a machine: by their tag, which they have from the moment that they exist."""
    params = {"Action": "DescribeAddresses", "Filter.1.Name": f"tag:{TAG}", "Filter.1.Value.1": key}
    return list(api._to_addresses(api.connection.request(api.path, params=params).object, only_associated=False))


def _ensure_address(api: Any, key: Key) -> str:
    node = _node(api, key)
    if not _addresses(api, key):
        spec = "TagSpecification.1."
        params = {
            "Action": "AllocateAddress", "Domain": "vpc", f"{spec}ResourceType": "elastic-ip",
            f"{spec}Tag.1.Key": TAG, f"{spec}Tag.1.Value": key,
        }  # fmt: skip
        api.connection.request(api.path, params=params)
    address = _addresses(api, key)[0]
    if address.instance_id != node.id:
        api.ex_associate_address_with_node(node, address, domain="vpc")
    return str(address.ip)


def _release(api: Any, key: Key) -> Progress:
    for address in _addresses(api, key):
        if address.instance_id:
            api.ex_disassociate_address(address, domain="vpc")
        api.ex_release_address(address, domain="vpc")
    return Progress.DONE
