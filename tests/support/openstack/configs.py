"""The configuration files of the services. They hold the address, so each start writes them anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.openstack.layout import PASSWORD, Layout

HERE = Path(__file__).resolve().parent
Sections = Mapping[str, Mapping[str, object]]


def write(place: Layout) -> None:
    """All of them."""
    for name in ("etc", "log", "images", "fernet", "credentials", "locks", "state", "ext"):
        (place.root / name).mkdir(parents=True, exist_ok=True)
    for name, sections in {
        "keystone.conf": keystone(place),
        "placement.conf": placement(place),
        "glance-api.conf": glance(place),
        "nova.conf": nova(place),
        "neutron.conf": neutron(place),
        "cinder.conf": cinder(place),
    }.items():
        (place.etc / name).write_text(_ini(sections | _common(place)))
    shutil.copy(place.venv / "etc/glance/glance-api-paste.ini", place.etc)
    shutil.copy(place.venv / "etc/nova/api-paste.ini", place.etc / "nova-api-paste.ini")
    shutil.copy(place.venv / "etc/neutron/api-paste.ini", place.etc / "neutron-api-paste.ini")
    shutil.copy(place.venv / "etc/cinder/api-paste.ini", place.etc / "cinder-api-paste.ini")
    shutil.copy(place.venv / "etc/cinder/resource_filters.json", place.etc)
    _write_drivers(place.root / "ext")


def keystone(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {"log_file": place.logs / "keystone.log"},
        "database": {"connection": place.database("keystone")},
        "token": {"provider": "fernet"},
        "fernet_tokens": {"key_repository": place.root / "fernet"},
        "credential": {"key_repository": place.root / "credentials"},
        "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
        "auth": {"methods": "password,token,application_credential,mapped,openid"},
        "openid": {"remote_id_attribute": "HTTP_OIDC_ISS"},
    }


def placement(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {"log_file": place.logs / "placement.log"},
        "placement_database": {"connection": place.database("placement")},
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _authtoken(place, "placement"),
    }


def glance(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {
            "log_file": place.logs / "glance.log",
            "enabled_backends": "fs:file",
            "bind_host": place.address,
        },
        "database": {"connection": place.database("glance")},
        "glance_store": {"default_backend": "fs"},
        "fs": {"filesystem_store_datadir": place.root / "images"},
        "os_glance_staging_store": {"filesystem_store_datadir": place.root / "state/staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": place.root / "state/tasks"},
        "paste_deploy": {"flavor": "keystone", "config_file": place.etc / "glance-api-paste.ini"},
        "keystone_authtoken": _authtoken(place, "glance"),
    }


def nova(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {
            "log_file": place.logs / "nova.log",
            "use_stderr": False,
            "my_ip": place.address,
            "host": "hypervisor",
            "state_path": place.root / "state",
            "transport_url": "fake://",
            "compute_driver": "fake.FakeDriver",
            "vif_plugging_is_fatal": False,
            "vif_plugging_timeout": 0,
            "allow_resize_to_same_host": True,
            "rpc_response_timeout": 30,
        },
        "wsgi": {"api_paste_config": place.etc / "nova-api-paste.ini"},
        "api": {"auth_strategy": "keystone"},
        "api_database": {"connection": place.database("nova_api")},
        "database": {"connection": place.database("nova")},
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1},
        "vnc": {"enabled": False},
        "spice": {"enabled": False},
        "filter_scheduler": {
            "enabled_filters": "ComputeFilter,ImagePropertiesFilter",
            "track_instance_changes": False,
        },
        "glance": {"api_servers": place.url("glance")},
        "keystone_authtoken": _authtoken(place, "nova"),
        "placement": _client(place, "placement"),
        "neutron": _client(place, "neutron"),
        "cinder": _client(place, "cinder") | {"catalog_info": "block-storage::publicURL"},
        "service_user": _client(place, "nova") | {"send_service_user_token": True},
    }


def neutron(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {
            "log_file": place.logs / "neutron.log",
            "core_plugin": "ml2",
            "service_plugins": "router",
            "api_paste_config": place.etc / "neutron-api-paste.ini",
            "auth_strategy": "keystone",
            "transport_url": "fake://",
            "state_path": place.root / "state",
            "notify_nova_on_port_status_changes": True,
            "notify_nova_on_port_data_changes": True,
            "send_events_interval": 1,
            "dhcp_agent_notification": False,
            "rpc_workers": 0,
        },
        "database": {"connection": place.database("neutron")},
        "ml2": {
            "type_drivers": "local,flat,vxlan",
            "tenant_network_types": "vxlan",
            "mechanism_drivers": "hansa_bind",
            "extension_drivers": "port_security",
        },
        "ml2_type_flat": {"flat_networks": "*"},
        "ml2_type_vxlan": {"vni_ranges": "1:1000"},
        "keystone_authtoken": _authtoken(place, "neutron"),
        "nova": _client(place, "nova"),
        "placement": _client(place, "placement"),
    }


def cinder(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "DEFAULT": {
            "log_file": place.logs / "cinder.log",
            "use_stderr": False,
            "my_ip": place.address,
            "host": "store",
            "state_path": place.root / "state",
            "transport_url": "fake://",
            "auth_strategy": "keystone",
            "api_paste_config": place.etc / "cinder-api-paste.ini",
            "resource_query_filters_file": place.etc / "resource_filters.json",
            "glance_api_servers": place.url("glance"),
            "enabled_backends": "thin",
            "scheduler_default_filters": "CapacityFilter",
        },
        "thin": {"volume_driver": "hansa_thin.Driver", "volume_backend_name": "thin"},
        "coordination": {"backend_url": f"file://{place.root / 'state/coordination'}"},
        "database": {"connection": place.database("cinder")},
        "keystone_authtoken": _authtoken(place, "cinder")
        | {"service_token_roles": "service", "service_token_roles_required": True},
        "nova": _client(place, "nova"),
        "service_user": _client(place, "cinder") | {"send_service_user_token": True},
    }


def _authtoken(place: Layout, user: str) -> dict[str, object]:
    return {
        "www_authenticate_uri": place.url("keystone") + "/v3",
        **{key: value for key, value in _client(place, user).items() if key != "region_name"},
        "service_token_roles_required": False,
    }


def _client(place: Layout, user: str) -> dict[str, object]:
    return {
        "auth_url": place.url("keystone") + "/v3",
        "auth_type": "password",
        "username": user,
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": "RegionOne",
    }


def _common(place: Layout) -> dict[str, Mapping[str, object]]:
    return {
        "oslo_concurrency": {"lock_path": place.root / "locks"},
        "oslo_messaging_notifications": {"driver": "noop"},
    }


def _ini(sections: Sections) -> str:
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in options.items()]
    return "\n".join(lines) + "\n"


def _write_drivers(path: Path) -> None:
    """Neutron finds drivers by entry point."""
    shutil.copy(HERE / "inside" / "hansa_bind.py", path)
    shutil.copy(HERE / "inside" / "hansa_thin.py", path)
    info = path / "hansa_bind-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hansa-bind\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[neutron.ml2.mechanism_drivers]\nhansa_bind = hansa_bind:Driver\n")
