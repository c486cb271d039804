"""The EGI federation's public descriptions of OpenStack sites, as sites of ours. Pure.

The format is that of the repository ``fedcloud-catchall-operations``: a YAML file for each site (its JSON schema lies
beside them), and ``vo-mappings.yaml`` with the entitlement (AARC-G002) that each VO asks of its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hansa.kernel.errors import INVALID, Fault
from hansa.sites.wire import NewAccess, NewEndpoint, NewSite


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Auth(_Part):
    project_id: str | None = Field(default=None, max_length=200)
    region: str | None = Field(default=None, max_length=200)


class _Vo(_Part):
    name: str = Field(min_length=1, max_length=200)
    auth: _Auth = _Auth()


class _Images(_Part):
    sync: bool | None = None
    formats: list[str] = []


class _Accounting(_Part):
    enabled: bool = False
    site_name: str | None = None


class _Site(_Part):
    gocdb: str = Field(min_length=1, max_length=100)
    endpoint: str = Field(min_length=1, max_length=2000)
    auth: str | None = None
    region: str | None = None
    protocol: str | None = None
    vos: list[_Vo] = []
    images: _Images = _Images()
    accounting: _Accounting = _Accounting()


@dataclass
class Read:
    """A site as it was read, from one file or several, and what was noticed."""

    site: NewSite
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_sites(documents: Mapping[str, Any], vo_mappings: Mapping[str, str]) -> list[Read]:
    """Sites by name. Files of one GOCDB name are endpoints of one site.

    Raises Fault ``kernel.invalid`` naming the file and the field that is wrong.
    """
    entitlements = {vo: "".join(text.split()) for vo, text in vo_mappings.items()}
    found: dict[str, Read] = {}
    for file, document in sorted(documents.items()):
        one = _parse(file, document)
        notes = [f"{file}: {name} is not known and was left out." for name in _extras(one)]
        notes += [f"{file}: {vo.name} is in no VO mapping." for vo in one.vos if vo.name not in entitlements]
        endpoint = _endpoint(one, entitlements)
        if one.gocdb in found:
            before = found[one.gocdb]
            before.site.endpoints.append(endpoint)
        else:
            before = found[one.gocdb] = Read(NewSite(one.gocdb, [endpoint], visibility="vos"))
        before.files.append(file)
        before.notes += notes
    return [found[name] for name in sorted(found)]


def _parse(file: str, document: Any) -> _Site:
    try:
        return _Site.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Fault(
            INVALID,
            f"{file}: {place}: {first['msg']}.",
            hint="The format is that of EGI-Federation/fedcloud-catchall-operations, folder sites.",
        ) from error


def _extras(site: _Site) -> list[str]:
    parts = {"": site, "images.": site.images, "accounting.": site.accounting}
    return [f"{place}{name}" for place, part in parts.items() for name in sorted(part.model_extra or {})]


def _endpoint(site: _Site, entitlements: Mapping[str, str]) -> NewEndpoint:
    settings: dict[str, Any] = {"protocol": site.protocol or "openid"}
    if site.images.sync is not None:
        settings["image_sync"] = site.images.sync
    if site.auth:
        settings["auth"] = site.auth
    if site.region:
        settings["region"] = site.region
    if site.images.formats:
        settings["image_formats"] = site.images.formats
    if site.accounting.site_name:
        settings["accounting_name"] = site.accounting.site_name
    vos: dict[str, NewAccess | str | None] = {}
    for vo in site.vos:
        own: dict[str, Any] = {"region": vo.auth.region} if vo.auth.region else {}
        if vo.name in entitlements:
            own["entitlement"] = entitlements[vo.name]
        vos[vo.name] = NewAccess(vo.auth.project_id, own)
    name = urlsplit(site.endpoint).hostname or "openstack"
    return NewEndpoint("openstack", name, site.endpoint, settings, vos)
