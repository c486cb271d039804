"""Machines of an OpenStack project.

Nova's creation is not idempotent: a machine carries its key as a tag, and is looked for by it before it is made. What
is made for one machine alone (key pair, floating address) carries the key in its name or description; security groups
are shared by machines with the same openings, and go when no machine uses them.
Where a project has no network of its own, one is made, with a router to the outside.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from hansa.engines.openstack import Cloud
from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers import openstack_images, openstack_volumes
from hansa.machines.drivers.base import (
    Can,
    Capabilities,
    Image,
    Key,
    Life,
    MachineSpec,
    Observed,
    Opening,
    Progress,
    Refused,
    Size,
    Snapshot,
    Ssh,
    Volume,
    Why,
    adopt,
    check,
    through,
)
from hansa.machines.drivers.guest import NOTE, first_boot
from hansa.machines.drivers.userdata import fitting, with_keys

T = TypeVar("T")
OURS = "hansa"
"""The tag of every machine of ours, and the name of the network that is made where a project has none."""
_GROUPS = f"{OURS}-open-"
CREATE_S, UPLOAD_S = 180.0, 3600.0
_LIVES = {
    "ACTIVE": Life.RUNNING,
    "VERIFY_RESIZE": Life.RUNNING,
    "PASSWORD": Life.RUNNING,
    "SHUTOFF": Life.STOPPED,
    "SUSPENDED": Life.STOPPED,
    "PAUSED": Life.STOPPED,
    "SHELVED": Life.STOPPED,
    "SHELVED_OFFLOADED": Life.STOPPED,
    "BUILD": Life.BUILDING,
    "ERROR": Life.FAILED,
    "DELETED": Life.DELETING,
    "SOFT_DELETED": Life.DELETING,
}
_QUOTA = ("quota exceeded", "quota_exceeded", "overlimit", "exceeded for quota", "exceeds allowed")
"""In what words Nova, Neutron and Cinder say so."""
_CONSOLE_LINES = 500
_CIDR = "10.90.0.0/16"
_MOST_BYTES = 65_535 // 4 * 3
"""Of user data: Nova takes 65,535 bytes in base64."""
USER_DATA_BYTES = _MOST_BYTES - 4096
"""The SSH keys need some room beside."""


def tag_of(key: Key) -> str:
    return f"{OURS}-{key}"


class OpenstackMachines:
    """A driver for one project. ``network``, ``external``: of the site's settings; None: found, or made.

    ``jump``: the site's jump host, for machines without a public address.
    """

    def __init__(
        self, cloud: Cloud, network: str | None = None, external: str | None = None, jump: str | None = None
    ) -> None:
        self.cloud = cloud
        self._jump = jump
        self._network = network
        self._external = external
        self._making = asyncio.Lock()
        """One network is made, and one image sent, at a time."""

    def capabilities(self) -> Capabilities:
        can = {Can.POWER, Can.RESIZE, Can.SNAPSHOT, Can.ADDRESSES, Can.PORTS, Can.NETWORKS, Can.CONSOLE, Can.IMAGES}
        return Capabilities(frozenset({*can, Can.GPUS, Can.VOLUMES}), USER_DATA_BYTES)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        if (found := await self.observe(key)) is not None:
            return found
        network_id = await self._network_for(spec.network)
        return await self._ask(lambda api: _create(api, spec, key, network_id), CREATE_S)

    async def observe(self, key: Key) -> Observed | None:
        found = await self._ask(lambda api: _look(api, key))
        return through(found, self._jump) if found is not None else None

    async def trim(self, key: Key) -> Progress:
        def work(api: Any) -> Progress:
            found = adopt([_observed(one) for one in _servers(api, key)])
            for server_id in found.surplus if found else ():
                api.compute.delete_server(server_id, ignore_missing=True)
            return Progress.DONE

        return await self._ask(work)

    async def delete(self, key: Key) -> Progress:
        return await self._ask(lambda api: _delete(api, key), CREATE_S)

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        def work(api: Any) -> list[Key]:
            found = {(one.metadata or {}).get("hansa_key", "") for one in api.compute.servers(tags=OURS)}
            return sorted(key for key in found if key and key.startswith(prefix))

        return await self._ask(work)

    async def close(self) -> None:
        """Its connection belongs to the pool of all clouds."""

    async def stop(self, key: Key) -> Progress:
        return await self._power(key, Life.STOPPED, lambda api, server: api.compute.stop_server(server))

    async def start(self, key: Key) -> Progress:
        return await self._power(key, Life.RUNNING, lambda api, server: api.compute.start_server(server))

    async def reboot(self, key: Key, *, hard: bool = False) -> None:
        kind = "HARD" if hard else "SOFT"
        await self._ask(lambda api: api.compute.reboot_server(_server(api, key), kind))

    async def resize(self, key: Key, size: Size) -> Progress:
        def work(api: Any) -> Progress:
            server = _server(api, key)
            if server.status == "VERIFY_RESIZE":
                _confirm(api, server)
                return Progress.PENDING
            if server.flavor.get("original_name") == size.flavour and not server.task_state:
                return Progress.DONE
            if not server.task_state and server.status in ("ACTIVE", "SHUTOFF"):
                api.compute.resize_server(server, _flavour(api, size).id)
            return Progress.PENDING

        return await self._ask(work)

    async def snapshot(self, key: Key, snapshot_key: Key, name: str) -> Snapshot:
        def work(api: Any) -> Snapshot:
            shown = f"{name}-{snapshot_key}"
            image = next(api.image.images(name=shown), None)
            if image is None:
                made = {"hansa_key": snapshot_key}
                image = api.compute.create_server_image(_server(api, key), shown, made, wait=False)
                image = api.image.get_image(image.id)
            if image.status in ("killed", "deleted", "deactivated"):
                raise Refused(Why.REFUSED, f"The snapshot {shown} is {image.status}.")
            done = Progress.DONE if image.status == "active" else Progress.PENDING
            form, least = image.disk_format or "qcow2", image.min_disk or 0
            return Snapshot(done, image.id, format=form, size_bytes=image.size or 0, min_disk_gib=least)

        return await self._ask(work)

    async def delete_snapshot(self, snapshot_key: Key) -> Progress:
        def work(api: Any) -> Progress:
            for image in api.image.images(hansa_key=snapshot_key):
                if (image.properties or {}).get("hansa_key") == snapshot_key:  # a cloud may not filter by properties
                    api.image.delete_image(image, ignore_missing=True)
            return Progress.DONE

        return await self._ask(work)

    def device(self, volume_key: Key) -> str:  # noqa: ARG002 - it depends on the cloud's hypervisor
        said = "OpenStack says what a disk is called only in the machine that has it: no guest can be told to mount it."
        raise Refused(Why.UNABLE, said)

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:
        return await self._ask(lambda api: openstack_volumes.ensure(api, volume_key, size_gib, name), CREATE_S)

    async def observe_volume(self, volume_key: Key) -> Volume | None:
        return await self._ask(lambda api: openstack_volumes.observe(api, volume_key))

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:  # noqa: ARG002
        return await self._ask(lambda api: openstack_volumes.attach(api, volume_key, _server(api, key)), CREATE_S)

    async def detach(self, volume_key: Key) -> Progress:
        return await self._ask(lambda api: openstack_volumes.detach(api, volume_key), CREATE_S)

    async def delete_volume(self, volume_key: Key) -> Progress:
        return await self._ask(lambda api: openstack_volumes.delete(api, volume_key), CREATE_S)

    async def ensure_address(self, key: Key) -> str:
        external = self._external
        return await self._ask(lambda api: _ensure_address(api, key, external))

    async def release_address(self, key: Key) -> Progress:
        return await self._ask(lambda api: _release(api, key))

    async def open_ports(self, key: Key, openings: Sequence[Opening]) -> None:
        await self._ask(lambda api: _open(api, key, openings))

    async def ensure_network(self, name: Key) -> None:
        external = self._external
        async with self._making:
            await self._ask(lambda api: _make_network(api, f"{OURS}-{name}", external))

    async def delete_network(self, name: Key) -> Progress:
        return await self._ask(lambda api: _delete_network(api, f"{OURS}-{name}"))

    async def console_log(self, key: Key, lines: int = 200) -> str:
        def work(api: Any) -> str:
            said = api.compute.get_server_console_output(_server(api, key), length=lines)
            return "\n".join(str(said.get("output") or "").splitlines()[-lines:])

        return await self._ask(work)

    async def ensure_image(self, image: Image, name: str) -> str | None:
        async with self._making:
            return await self._ask(lambda api: openstack_images.ensure(api, image, name), UPLOAD_S)

    async def delete_image(self, checksum: str) -> Progress:
        return await self._ask(lambda api: openstack_images.remove(api, checksum))

    async def _power(self, key: Key, life: Life, act: Callable[[Any, Any], None]) -> Progress:
        def work(api: Any) -> Progress:
            server = _server(api, key)
            if _LIVES.get(server.status) is life:
                return Progress.DONE
            if not server.task_state:
                act(api, server)
            return Progress.PENDING

        return await self._ask(work)

    async def _network_for(self, name: str | None) -> str:
        """The id of the network for a machine: the one asked for, the site's, or the project's own."""
        wanted, external = name or self._network, self._external
        found: str | None = await self._ask(lambda api: _find_network(api, wanted))
        if found is not None:
            return found
        if wanted is not None:
            raise Refused(Why.NETWORK, f"{self.cloud.host} has no network {wanted} for this project.")
        async with self._making:
            return await self._ask(lambda api: _make_network(api, OURS, external))

    async def _ask(self, work: Callable[[Any], T], deadline_s: float = 60.0) -> T:
        """One call, its refusals put into words that everybody shares."""
        try:
            return await self.cloud.call(work, deadline_s)
        except (Permanent, Temporary) as error:
            if isinstance(error, Refused):
                raise
            if (why := _why(str(error))) is not None:
                raise Refused(why, str(error)) from error
            raise


def _why(said: str) -> Why | None:
    """What a cloud's no means, by its words: codes alone do not tell (quotas are 403, 409 and 413)."""
    words = said.lower()
    if any(word in words for word in _QUOTA):
        return Why.QUOTA
    if "no more ip addresses" in words or "no more floating" in words:
        return Why.NETWORK
    if "refused the sign-in" in words:
        return Why.SIGN_IN
    if "no valid host" in words:
        return Why.NO_HOST
    return None


def _look(api: Any, key: Key) -> Observed | None:
    """The one that counts, and what its guest says of its first boot."""
    servers = {one.id: one for one in _servers(api, key)}
    found = adopt([_observed(one) for one in servers.values()])
    if found is None:
        return None
    server = servers[found.provider_id]

    def console() -> str:
        said = api.compute.get_server_console_output(server, length=_CONSOLE_LINES)
        return str(said.get("output") or "")

    def write(note: str) -> None:
        api.compute.set_server_metadata(server, **{NOTE: note})

    return first_boot(found, (server.metadata or {}).get(NOTE, ""), datetime.now(UTC), console, write)


def _servers(api: Any, key: Key) -> list[Any]:
    return list(api.compute.servers(details=True, tags=tag_of(key)))


def _server(api: Any, key: Key) -> Any:
    """The one that counts. Raises Refused UNABLE."""
    found = {one.id: one for one in _servers(api, key)}
    chosen = adopt([_observed(one) for one in found.values()])
    if chosen is None:
        raise Refused(Why.UNABLE, "There is no such machine.")
    return found[chosen.provider_id]


def _observed(server: Any) -> Observed:
    life = _LIVES.get(server.status, Life.CHANGING)
    if server.task_state == "deleting":
        life = Life.DELETING
    elif life is Life.RUNNING and server.task_state:
        life = Life.CHANGING
    addresses = [one for network in (server.addresses or {}).values() for one in network]
    addresses.sort(key=lambda one: one["version"])
    about = server.metadata or {}
    public = tuple(one["addr"] for one in addresses if one.get("OS-EXT-IPS:type") == "floating")
    if not public and about.get("hansa_address"):  # Nova learns of an address some time after Neutron
        public = (about["hansa_address"],)
    private = tuple(one["addr"] for one in addresses if one.get("OS-EXT-IPS:type") != "floating")
    login = about.get("hansa_login", "root")
    host = next(iter((*public, *private)), None)
    flavour = server.flavor or {}
    size = Size(
        flavour.get("vcpus") or 0, flavour.get("ram") or 0, flavour.get("disk") or 0,
        flavour=flavour.get("original_name"),
    )  # fmt: skip
    fault = server.fault if isinstance(server.fault, dict) else {}
    said = fault.get("message", "") if life is Life.FAILED else (server.task_state or "")
    created = datetime.fromisoformat(server.created_at.replace("Z", "+00:00")) if server.created_at else None
    return Observed(
        server.id, life, said, private, public, Ssh(host, login) if host else None,
        flavour=size.flavour or "", size=size, created=created,
    )  # fmt: skip


def _create(api: Any, spec: MachineSpec, key: Key, network_id: str) -> Observed:
    if spec.image.provider_id is None:
        raise Refused(Why.IMAGE, "The image is not at this provider.")
    image_id = _image_id(api, spec.image.provider_id, is_public=spec.image.is_public)
    flavour = _flavour(api, spec.size)
    more: dict[str, Any] = {}
    if spec.ssh_keys:
        more["key_name"] = _key_pair(api, key, spec.ssh_keys[0])
    user_data = fitting(with_keys(spec.user_data, spec.ssh_keys[1:]), _MOST_BYTES)
    if user_data:
        more["user_data"] = base64.b64encode(user_data).decode()
    about = {name: value for name, value in spec.tags.items() if value} | {
        "hansa_key": key,
        "hansa_login": spec.image.login,
    }
    if spec.expires is not None:
        about["hansa_expires"] = spec.expires.isoformat()
    made = api.compute.create_server(
        name=spec.name,
        image_id=image_id,
        flavor_id=flavour.id,
        networks=[{"uuid": network_id}],
        metadata={name[:255]: str(value)[:255] for name, value in about.items()},
        tags=[OURS, tag_of(key)],
        **more,
    )
    return Observed(made.id, Life.BUILDING, "ordered")


def _confirm(api: Any, server: Any) -> None:
    """Say that the new size is good, once: while Nova is at it, it says that there is nothing to confirm."""
    try:
        api.compute.confirm_server_resize(server)
    except Exception as error:
        if "has not been resized" not in str(error) and "confirmResize" not in str(error):
            raise


def _flavour(api: Any, size: Size) -> Any:
    found = api.compute.find_flavor(size.flavour, ignore_missing=True) if size.flavour else _smallest(api, size)
    if found is None:
        raise Refused(Why.FLAVOUR, f"It has no flavour {size.flavour or 'that is large enough'} for this project.")
    return found


def _smallest(api: Any, size: Size) -> Any | None:
    fit = [one for one in api.compute.flavors() if one.vcpus >= size.cores and one.ram >= size.memory_mib]
    return min(fit, key=lambda one: (one.vcpus, one.ram, one.disk, one.name), default=None)


def _image_id(api: Any, name: str, *, is_public: bool) -> str:
    found = api.image.find_image(name, ignore_missing=True)
    is_offered = found is not None and found.visibility == "public" and not found.is_hidden
    if found is None or found.status != "active" or (is_public and not is_offered):
        raise Refused(Why.IMAGE, f"It has no VM image {name} that can be used.")
    return str(found.id)


def _key_pair(api: Any, key: Key, public: str) -> str:
    """The name of a key pair for this machine. Nova knows one key a machine; others come by user data."""
    name = tag_of(key)
    if api.compute.find_keypair(name, ignore_missing=True) is None:
        api.compute.create_keypair(name=name, public_key=public)
    return name


def _delete(api: Any, key: Key) -> Progress:
    for one in _addresses(api, key):
        api.network.delete_ip(one, ignore_missing=True)
    found = _servers(api, key)
    for server in found:
        if server.task_state != "deleting":
            api.compute.delete_server(server, ignore_missing=True)
    if found:
        return Progress.PENDING
    _forget_groups(api)
    api.compute.delete_keypair(tag_of(key), ignore_missing=True)
    return Progress.DONE


def _addresses(api: Any, key: Key) -> list[Any]:
    return [one for one in api.network.ips(description=tag_of(key)) if one.description == tag_of(key)]


def _release(api: Any, key: Key) -> Progress:
    for one in _addresses(api, key):
        api.network.delete_ip(one, ignore_missing=True)
    for server in _servers(api, key):
        if "hansa_address" in (server.metadata or {}) and server.task_state != "deleting":
            api.compute.delete_server_metadata(server, ["hansa_address"])
    return Progress.DONE


def _ensure_address(api: Any, key: Key, external: str | None) -> str:
    server = _server(api, key)
    port = next(api.network.ports(device_id=server.id), None)
    if port is None:
        raise Temporary("The machine has no network yet.", 2.0)
    found = _addresses(api, key)
    if found:
        address = found[0]
        if address.port_id != port.id:
            address = api.network.update_ip(address, port_id=port.id)
        return _has_address(api, server, address)
    outside = _outside(api, external)
    if outside is None:
        raise Refused(Why.NETWORK, "It has no network from which public addresses come.")
    made = api.network.create_ip(floating_network_id=outside.id, port_id=port.id, description=tag_of(key))
    return _has_address(api, server, made)


def _has_address(api: Any, server: Any, address: Any) -> str:
    """Write the address on its machine, for :func:`_observed`."""
    found = str(address.floating_ip_address)
    if (server.metadata or {}).get("hansa_address") != found:
        api.compute.set_server_metadata(server, hansa_address=found)
    return found


def _outside(api: Any, name: str | None) -> Any | None:
    if name is not None:
        return api.network.find_network(name, ignore_missing=True)
    return min(api.network.networks(is_router_external=True), key=lambda one: (one.name, one.id), default=None)


def _open(api: Any, key: Key, openings: Sequence[Opening]) -> None:
    """Machines with the same openings share a security group: a project's quota of groups is small (ten by default)."""
    from openstack.exceptions import NotFoundException

    server = _server(api, key)
    try:
        group_id = _ensure_group(api, openings)
        ours = {one.id for one in _groups(api)} - {group_id}
        for port in api.network.ports(device_id=server.id):
            kept = [one for one in port.security_group_ids if one not in ours and one != group_id]
            if {*kept, group_id} != set(port.security_group_ids):
                api.network.update_port(port, security_groups=[*kept, group_id])
    except NotFoundException as error:
        raise Temporary("A security group went while it was given to the machine.", 1.0) from error


def _ensure_group(api: Any, openings: Sequence[Opening]) -> str:
    """The group with these openings; of several that were made at once, the one with the smallest id."""
    from openstack.exceptions import ConflictException

    wanted = sorted({(one.protocol, one.first, one.last, one.cidr) for one in openings})
    name = _GROUPS + hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    found = min((one.id for one in _groups(api) if one.name == name), default=None)
    if found is None:
        found = api.network.create_security_group(name=name, description="made by Hansa for its machines").id
    there = {
        (one.protocol, one.port_range_min, one.port_range_max, one.remote_ip_prefix or "0.0.0.0/0")
        for one in api.network.security_group_rules(security_group_id=found)
    }
    for protocol, first, last, cidr in wanted:
        if (protocol, first, last, cidr) not in there:
            with suppress(ConflictException):  # made by another just now
                api.network.create_security_group_rule(
                    security_group_id=found, direction="ingress", ethertype="IPv4", protocol=protocol,
                    port_range_min=first, port_range_max=last, remote_ip_prefix=cidr,
                )  # fmt: skip
    return str(found)


def _groups(api: Any) -> list[Any]:
    return [one for one in api.network.security_groups() if one.name.startswith(_GROUPS)]


def _forget_groups(api: Any) -> None:
    """Neutron itself refuses to delete a group that a port uses."""
    from openstack.exceptions import ConflictException

    for group in _groups(api):
        with suppress(ConflictException):
            api.network.delete_security_group(group, ignore_missing=True)


def _find_network(api: Any, name: str | None) -> str | None:
    if name is None:
        own = [one for one in api.network.networks(is_router_external=False) if not one.name.startswith(f"{OURS}-")]
        own.sort(key=lambda one: (one.is_shared, str(one.created_at), one.id))
        return str(own[0].id) if own else None
    for shown in (f"{OURS}-{name}", name):
        found = _oldest(api, shown)
        if found is not None:
            return str(found.id)
    try:
        return str(api.network.get_network(name).id)
    except Exception as error:
        if getattr(error, "status_code", None) == 404 or getattr(error, "http_status", None) == 404:
            return None
        raise


def _oldest(api: Any, name: str) -> Any | None:
    """Of several networks of one name, which two servers may have made at once, everybody takes the same."""
    return min(api.network.networks(name=name), key=lambda one: (str(one.created_at), one.id), default=None)


def _make_network(api: Any, name: str, external: str | None) -> str:
    """A network with a subnet, and a router to the outside where there is one. What is there already is left."""
    network = _oldest(api, name) or api.network.create_network(name=name)
    subnet = next(api.network.subnets(network_id=network.id), None)
    if subnet is None:
        subnet = api.network.create_subnet(network_id=network.id, name=name, ip_version=4, cidr=_CIDR)
    outside = _outside(api, external)
    if outside is None:
        return str(network.id)
    router = next(api.network.routers(name=name), None)
    if router is None:
        router = api.network.create_router(name=name, external_gateway_info={"network_id": outside.id})
    inside = [port for port in api.network.ports(device_id=router.id) if port.network_id == network.id]
    if not inside:
        api.network.add_interface_to_router(router, subnet.id)
    return str(network.id)


def _delete_network(api: Any, name: str) -> Progress:
    network = _oldest(api, name)
    if network is None:
        return Progress.DONE
    if any(str(port.device_owner).startswith("compute:") for port in api.network.ports(network_id=network.id)):
        return Progress.PENDING
    for router in api.network.routers(name=name):
        for subnet in api.network.subnets(network_id=network.id):
            if any(port.network_id == network.id for port in api.network.ports(device_id=router.id)):
                api.network.remove_interface_from_router(router, subnet.id)
        api.network.delete_router(router, ignore_missing=True)
    api.network.delete_network(network, ignore_missing=True)
    return Progress.PENDING if _oldest(api, name) is not None else Progress.DONE
