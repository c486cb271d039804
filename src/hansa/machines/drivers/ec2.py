"""Machines of a cloud that speaks EC2, by Apache Libcloud.

Creation is idempotent by the client token, which is the machine's key; it is a tag as well, to be found by. The key
pair is called by it, and the address carries it as a tag from the moment that it exists.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar

from hansa.engines.egress import EgressPolicy
from hansa.engines.libcloud import Account
from hansa.machines.drivers import ec2_ports, ec2_volumes
from hansa.machines.drivers.base import (
    Can,
    Capabilities,
    Key,
    Life,
    MachineSpec,
    Observed,
    Opening,
    Progress,
    Refused,
    Ssh,
    Volume,
    Why,
    check,
    through,
)
from hansa.machines.drivers.guest import NOTE, first_boot
from hansa.machines.drivers.libcloud_base import SLOW_S, LibcloudBase
from hansa.machines.drivers.userdata import fitting, with_keys

TAG = "hansa_key"
_LIVES = {
    "pending": Life.BUILDING,
    "running": Life.RUNNING,
    "stopping": Life.CHANGING,
    "stopped": Life.STOPPED,
    "shutting-down": Life.DELETING,
}
_IMAGE_ID = re.compile(r"[a-z]+-[0-9a-f]+")
_MOST_BYTES = 16_384
"""Of user data, before base64."""
USER_DATA_BYTES = _MOST_BYTES - 1024
"""More SSH keys need some room beside."""


class Ec2Machines(LibcloudBase):
    """A driver for one account in one region. ``subnet``, ``zone``: where machines and volumes go.

    Without a zone it is that of the subnet, else the first of the region: of volumes and machines the same.
    """

    WHY: ClassVar[dict[str, Why]] = {
        "instancelimitexceeded": Why.QUOTA,
        "vcpulimitexceeded": Why.QUOTA,
        "addresslimitexceeded": Why.QUOTA,
        "volumelimitexceeded": Why.QUOTA,
        "insufficientinstancecapacity": Why.NO_HOST,
        "invalidamiid": Why.IMAGE,
        "refused the sign-in": Why.SIGN_IN,
    }

    def __init__(
        self,
        account: Account,
        egress: EgressPolicy | None = None,
        subnet: str | None = None,
        zone: str | None = None,
        jump: str | None = None,
    ) -> None:
        super().__init__(account, egress)
        self._jump = jump
        self._subnet = subnet
        self._zone = zone

    def capabilities(self) -> Capabilities:
        can = {Can.POWER, Can.ADDRESSES, Can.PORTS, Can.CONSOLE, Can.GPUS, Can.VOLUMES}
        return Capabilities(frozenset(can), USER_DATA_BYTES)

    async def observe(self, key: Key) -> Observed | None:
        """Of a young machine also what its guest says of its first boot."""

        def work(api: Any) -> Observed | None:
            found, nodes = self._found(api, key)
            if found is None:
                return None
            node = nodes[found.provider_id]
            noted = node.extra["tags"].get(NOTE, "")
            return first_boot(
                through(found, self._jump), noted, datetime.now(UTC), lambda: _console(api, node),
                lambda note: _note(api, node, note),
            )  # fmt: skip

        return await self._ask(work)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        if (found := await self.observe(key)) is not None:
            return found
        subnet = spec.network or self._subnet
        return through(await self._ask(lambda api: self._create(api, spec, key, subnet), SLOW_S), self._jump)

    async def console_log(self, key: Key, lines: int = 200) -> str:
        def work(api: Any) -> str:
            return "\n".join(_console(api, self._node(api, key)).splitlines()[-lines:])

        return await self._ask(work)

    async def ensure_address(self, key: Key) -> str:
        return await self._ask(lambda api: _ensure_address(api, self._node(api, key), key))

    async def release_address(self, key: Key) -> Progress:
        return await self._ask(lambda api: _release(api, key))

    async def open_ports(self, key: Key, openings: Sequence[Opening]) -> None:
        await self._ask(lambda api: ec2_ports.open_ports(api, self._node(api, key), key, openings))

    def device(self, volume_key: Key) -> str:  # noqa: ARG002 - it depends on the kind of machine
        said = "EC2 says what a disk is called only in the machine that has it: no guest can be told to mount it."
        raise Refused(Why.UNABLE, said)

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:
        def work(api: Any) -> Volume:
            zone = ec2_volumes.zone_of(api, self._zone, self._subnet)
            return ec2_volumes.ensure(api, volume_key, size_gib, name, zone)

        return await self._ask(work, SLOW_S)

    async def observe_volume(self, volume_key: Key) -> Volume | None:
        return await self._ask(lambda api: ec2_volumes.observe(api, volume_key))

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:  # noqa: ARG002
        return await self._ask(lambda api: ec2_volumes.attach(api, volume_key, self._node(api, key)))

    async def detach(self, volume_key: Key) -> Progress:
        return await self._ask(lambda api: ec2_volumes.detach(api, volume_key))

    async def delete_volume(self, volume_key: Key) -> Progress:
        return await self._ask(lambda api: ec2_volumes.delete(api, volume_key))

    def _listed(self, api: Any, key: Key | None) -> Iterable[Any]:
        found = api.list_nodes(ex_filters={"tag-key": TAG} if key is None else {f"tag:{TAG}": key})
        return [one for one in found if one.extra.get("status") != "terminated"]

    def _key_of(self, node: Any) -> Key:
        return str(node.extra["tags"].get(TAG, ""))

    def _observed(self, node: Any) -> Observed:
        return _observed(node)

    def _create(self, api: Any, spec: MachineSpec, key: Key, subnet: str | None) -> Observed:
        zone = None if subnet is not None else ec2_volumes.zone_of(api, self._zone, None)
        _order(api, spec, key, subnet, zone)
        return self._made(api, key)

    def _destroy(self, api: Any, key: Key) -> Progress:
        _release(api, key)
        for node in self._listed(api, key):
            ec2_volumes.free(api, node)
        if super()._destroy(api, key) is Progress.PENDING:
            return Progress.PENDING
        if ec2_ports.forget(api, key) is Progress.PENDING:
            return Progress.PENDING
        if key in {one.name for one in api.list_key_pairs()}:
            api.delete_key_pair(SimpleNamespace(name=key))
        return Progress.DONE


def _console(api: Any, node: Any) -> str:
    said = api.ex_get_console_output(node).get("output") or b""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _note(api: Any, node: Any, note: str) -> None:
    """Numbered from one, as EC2 has it: Libcloud counts from zero, which not all that speak EC2 take."""
    params = {"Action": "CreateTags", "ResourceId.1": node.id, "Tag.1.Key": NOTE, "Tag.1.Value": note}
    api.connection.request(api.path, params=params)


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
    """One that the cloud offers to everybody, by its id: a name may be anybody's. Raises Refused IMAGE."""
    known = api.list_images(ex_image_ids=[name]) if _IMAGE_ID.fullmatch(name) else ()
    found = next((one for one in known if one.id == name), None)
    if found is None or str(found.extra.get("is_public")).lower() != "true":
        raise Refused(Why.IMAGE, f"It has no VM image {name} that it offers to everybody; name one by its id (ami-…).")
    return found


def _order(api: Any, spec: MachineSpec, key: Key, subnet: str | None, zone: str | None) -> None:
    if spec.image.provider_id is None:
        raise Refused(Why.IMAGE, "Images of the catalogue are not brought to this cloud; name one of its own.")
    size = _size(api, spec)
    more: dict[str, Any] = {}
    if spec.ssh_keys:
        more["ex_keyname"] = _key_pair(api, key, spec.ssh_keys[0])
    if zone is not None:
        more["location"] = SimpleNamespace(availability_zone=SimpleNamespace(name=zone, region_name=api.region_name))
    if subnet is not None:
        more["ex_subnet"] = SimpleNamespace(id=subnet)
    user_data = fitting(with_keys(spec.user_data, spec.ssh_keys[1:]), _MOST_BYTES)
    if user_data:
        more["ex_userdata"] = user_data
    tags = {name: value for name, value in spec.tags.items() if value} | {TAG: key, "hansa_login": spec.image.login}
    image = _image(api, spec.image.provider_id) if spec.image.is_public else SimpleNamespace(id=spec.image.provider_id)
    api.create_node(spec.name, size, image, ex_metadata=tags, ex_clienttoken=key, **more)


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


def _addresses(api: Any, key: Key) -> list[Any]:
    """The addresses of a machine: by their tag, which they have from the moment that they exist."""
    params = {"Action": "DescribeAddresses", "Filter.1.Name": f"tag:{TAG}", "Filter.1.Value.1": key}
    return list(api._to_addresses(api.connection.request(api.path, params=params).object, only_associated=False))


def _ensure_address(api: Any, node: Any, key: Key) -> str:
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
