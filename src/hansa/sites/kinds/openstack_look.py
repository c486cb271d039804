"""What an OpenStack cloud offers, asked through its APIs and put into our words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hansa.engines.openstack import (
    AccessToken,
    ApplicationCredential,
    Credential,
    Password,
    Place,
    Project,
)
from hansa.kernel.errors import Permanent
from hansa.sites.kinds.base import Target
from hansa.sites.wire import Facts, Flavour, Network, Quota, VmImage

MOST_IMAGES = 2000
_GPU_COUNT = ("accelerator:number", "gpus", "gpu:number")
_GPU_MODEL = ("accelerator:model", "gpu_model", "gpu:model")


def is_keystone(body: bytes) -> bool:
    """Whether this is what an identity API of version 3 says of itself."""
    try:
        return str(json.loads(body)["version"]["id"]).startswith("v3")
    except (ValueError, KeyError, TypeError):
        return False


def place(target: Target, project_id: str | None) -> Place:
    """Where to sign in."""
    return Place(target.url or "", project_id, target.settings.region, target.settings.ca)


def credential(target: Target, vo: str | None) -> Credential | None:
    """With what to sign in for a VO: its own secret where the site gave one, the site's, or our token; None: nothing.

    Raises Permanent where a credential lacks what its way to sign in needs.
    """
    given, settings = target.credential, target.settings
    prefix = f"{vo}/" if vo and any(name.startswith(f"{vo}/") for name in given) else ""
    try:
        if given and (settings.auth == "v3applicationcredential" or (prefix and f"{prefix}secret" in given)):
            return ApplicationCredential(given[f"{prefix}id"], given[f"{prefix}secret"])
        if settings.auth == "v3password" and given:
            domain = given.get(f"{prefix}domain", "Default")
            return Password(given[f"{prefix}username"], given[f"{prefix}password"], domain)
    except KeyError as error:
        raise Permanent(f"The credential of {target.site} lacks {error}.") from None
    if settings.auth == "v3oidcaccesstoken" and target.token is not None:
        token = target.token
        return AccessToken(f"{target.id}:{target.holder}", lambda: token, settings.identity_provider, settings.protocol)
    return None


def project_of(projects: list[Project], target: Target, vo: str | None) -> Project | None:
    """The project of a VO: as the site file says (by id or name), else by its property; None: not found."""
    access = target.vos.get(vo) if vo else None
    if access is not None and access.project:
        return next((one for one in projects if access.project in (one.id, one.name)), None)
    if vo is None:
        return projects[0] if projects else None
    return next((one for one in projects if vo in (one.vo, one.name)), None)


def look(connection: Any) -> Facts:
    """Everything that discovery wants, in one project. Blocks."""
    notes: list[str] = []
    flavours = [flavour(one) for one in connection.compute.flavors(details=True, get_extra_specs=True)]
    images: list[VmImage] = []
    for one in connection.image.images(status="active"):
        if len(images) == MOST_IMAGES:
            notes.append(f"It has more than {MOST_IMAGES} VM images; the others are left out.")
            break
        images.append(image(one))
    networks = [network(one) for one in connection.network.networks()]
    models = sorted({one.gpu_model for one in flavours if one.gpu_model})
    return Facts(flavours, images, networks, quotas(connection, notes), gpus=models, notes=notes)


def flavour(one: Any) -> Flavour:
    """A flavour, with GPUs from its properties: passed-through devices, resources, or the federation's own words."""
    specs: Mapping[str, str] = {str(key).lower(): str(value) for key, value in (one.extra_specs or {}).items()}
    count, model = gpus_of(specs)
    return Flavour(one.id, one.name, one.vcpus, one.ram, one.disk or 0, count, model)


def gpus_of(specs: Mapping[str, str]) -> tuple[int, str]:
    """How many GPUs of which model the properties of a flavour give. Pure."""
    count, model = 0, next((specs[name] for name in _GPU_MODEL if name in specs), "")
    for alias in specs.get("pci_passthrough:alias", "").split(","):
        name, _, number = alias.strip().partition(":")
        if name:
            count += _whole(number or "1")
            model = model or name
    for name, value in specs.items():
        if name.startswith("resources") and name.split(":")[-1] in ("vgpu", "pgpu"):
            count += _whole(value)
    if not count:
        count = next((_whole(specs[name]) for name in _GPU_COUNT if name in specs), 0)
    return count, model if count else ""


def image(one: Any) -> VmImage:
    digest = f"{one.hash_algo}:{one.hash_value}" if one.hash_algo and one.hash_value else ""
    is_public = one.visibility == "public"
    return VmImage(one.id, one.name or one.id, digest, one.min_disk or 0, one.min_ram or 0, is_public, one.size or 0)


def network(one: Any) -> Network:
    return Network(one.id, one.name or one.id, bool(one.is_router_external), bool(one.is_shared))


def quotas(connection: Any, notes: list[str]) -> dict[str, Quota]:
    """Limits and use; none where there is no limit (-1)."""
    limits = connection.compute.get_limits().absolute
    found = {
        "cores": (limits.total_cores, limits.total_cores_used),
        "memory_mib": (limits.total_ram, limits.total_ram_used),
        "machines": (limits.instances, limits.instances_used),
    }
    floating = connection.network.get_quota(connection.current_project_id, details=True).floating_ips
    if isinstance(floating, Mapping):
        found["floating_ips"] = (floating.get("limit"), floating.get("used"))
    if connection.config.get_auth().get_access(connection.session).service_catalog.get_endpoints("block-storage"):
        block = connection.block_storage.get_limits().absolute
        found["volumes"] = (block.max_total_volumes, block.total_volumes_used)
        found["storage_gib"] = (block.max_total_volume_gigabytes, block.total_gigabytes_used)
    else:
        notes.append("It has no volume service.")
    return {name: Quota(limit, used or 0) for name, (limit, used) in found.items() if limit is not None and limit >= 0}


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0
