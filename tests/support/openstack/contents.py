"""What is in the cloud before a test comes: the catalogue, two VOs' projects, flavours, a public network, an image."""

from __future__ import annotations

import io
from typing import Any

import openstack

from tests.support.openstack.layout import PASSWORD, PORTS, Layout

DOMAIN = "egi.eu"
VOS = ("vo.example.org", "vo.other.org")
ENDPOINTS = {
    "glance": ("image", ""),
    "nova": ("compute", "/v2.1"),
    "placement": ("placement", ""),
    "neutron": ("network", ""),
    "cinder": ("block-storage", "/v3"),
}
FLAVORS: tuple[tuple[str, int, int, int, dict[str, str]], ...] = (
    ("m1.tiny", 1, 512, 1, {}),
    ("m1.small", 1, 2048, 10, {}),
    ("m1.large", 4, 8192, 40, {}),
    (
        "g1.large",
        4,
        16384,
        40,
        {"pci_passthrough:alias": "a100:1", "Accelerator:Type": "GPU", "Accelerator:Number": "1"},
    ),
)
IMAGE = "debian-12"


def connect(place: Layout, **auth: Any) -> Any:
    """Signed in as the administrator, unless told otherwise."""
    return openstack.connection.Connection(
        auth={
            "auth_url": place.url("keystone") + "/v3",
            "username": "admin",
            "password": PASSWORD,
            "project_name": "admin",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        | auth,
        region_name="RegionOne",
        identity_interface="public",
    )


def fill_catalogue(place: Layout) -> None:
    """The services' own users and addresses. Only keystone needs to run."""
    with connect(place) as cloud:
        keystone = cloud.identity
        project = keystone.create_project(name="service", domain_id="default")
        service = keystone.find_role("service") or keystone.create_role(name="service")
        roles = [keystone.find_role("admin"), service]
        for name, (kind, path) in ENDPOINTS.items():
            user = keystone.create_user(name=name, password=PASSWORD, domain_id="default")
            for role in roles:
                keystone.assign_project_role_to_user(project, user, role)
            made = keystone.create_service(name=name, type=kind)
            for interface in ("public", "internal"):
                url = f"http://{place.address}:{PORTS[name]}{path}"
                keystone.create_endpoint(service_id=made.id, interface=interface, url=url, region_id="RegionOne")


def fill(place: Layout) -> None:
    """All services must run."""
    with connect(place) as cloud:
        _make_projects(cloud.identity)
        for name, cpus, memory_mib, disk_gib, extra in FLAVORS:
            made = cloud.compute.create_flavor(name=name, vcpus=cpus, ram=memory_mib, disk=disk_gib)
            if extra:
                cloud.compute.create_flavor_extra_specs(made, extra)
        _make_public_network(cloud.network)
        cloud.image.create_image(
            IMAGE,
            data=io.BytesIO(b"\0" * 65536),
            disk_format="raw",
            container_format="bare",
            visibility="public",
            min_disk=1,
            os_distro="debian",
        )


def _make_projects(keystone: Any) -> None:
    """A project for each VO, in the conventions of the EGI federation: who is in the group may use it."""
    domain = keystone.create_domain(name=DOMAIN)
    member = keystone.find_role("member")
    for vo in VOS:
        project = keystone.create_project(name=f"project-of-{vo}", domain_id=domain.id, **{"egi.VO": vo})
        group = keystone.create_group(name=vo, domain_id=domain.id)
        keystone.assign_project_role_to_group(project, group, member)


def _make_public_network(neutron: Any) -> None:
    network = neutron.create_network(
        name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="outside"
    )
    neutron.create_subnet(network_id=network.id, ip_version=4, cidr="203.0.113.0/24", enable_dhcp=False)
