"""HEPiX VM image lists: the JSON by which communities publish which images they endorse. Pure.

Source: the HEPiX Virtualisation Working Group's image list format, as EGI AppDB publishes it (``hv:imagelist``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_MOST_IMAGES = 2000
_SHA512 = re.compile(r"[0-9a-f]{128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadListError(Exception):
    """A list that cannot be read; the text names the place."""


@dataclass(frozen=True)
class ListedImage:
    """One image of a list. ``checksum`` is ``sha512:…`` or ``sha256:…``."""

    identifier: str
    title: str
    version: str
    uri: str
    checksum: str
    format: str
    size_bytes: int | None = None
    description: str = ""
    arch: str = "x86_64"
    os: str = "Linux"
    os_name: str = ""
    os_version: str = ""


@dataclass(frozen=True)
class ImageList:
    """A list of one endorser, good until ``expires``."""

    identifier: str
    title: str
    version: str
    created: datetime
    expires: datetime
    images: tuple[ListedImage, ...]
    description: str = ""
    source: str = ""
    vo: str | None = None
    endorser: str = ""
    """The name (DN) of whoever endorses it, as the list says: only a signature proves it."""


def render(found: ImageList) -> dict[str, Any]:
    """The list as JSON values."""
    body: dict[str, Any] = {
        "dc:date:created": _date(found.created),
        "dc:date:expires": _date(found.expires),
        "dc:description": found.description,
        "dc:identifier": found.identifier,
        "dc:source": found.source,
        "dc:title": found.title,
        "hv:endorser": {
            "hv:x509": {"hv:dn": found.endorser, "hv:ca": "", "hv:email": "", "dc:creator": found.endorser}
        },
        "hv:images": [{"hv:image": _render_image(one, found.vo)} for one in found.images],
        "hv:version": found.version,
    }
    if found.vo:
        body["ad:vo"] = found.vo
    return {"hv:imagelist": body}


def _render_image(one: ListedImage, vo: str | None) -> dict[str, Any]:
    algorithm, _, value = one.checksum.partition(":")
    body: dict[str, Any] = {
        "dc:description": one.description,
        "dc:identifier": one.identifier,
        "dc:title": one.title,
        "hv:format": one.format,
        "hv:hypervisor": "QEMU",
        "hv:uri": one.uri,
        "hv:version": one.version,
        "sl:arch": one.arch,
        f"sl:checksum:{algorithm}": value,
        "sl:os": one.os,
        "sl:osname": one.os_name,
        "sl:osversion": one.os_version,
    }
    if one.size_bytes is not None:
        body["hv:size"] = one.size_bytes
    if vo:
        body["ad:vo"] = vo
    return body


def parse(document: Any) -> ImageList:
    """Read a list. Raises BadListError; an image that cannot be pinned by a checksum spoils the whole list."""
    body = _table(_table(document, "the document").get("hv:imagelist"), "hv:imagelist")
    images = body.get("hv:images")
    if not isinstance(images, list) or len(images) > _MOST_IMAGES:
        raise BadListError(f"hv:images is a list of at most {_MOST_IMAGES:,} images.")
    read = [_parse_image(_unwrapped(one, at), at) for at, one in enumerate(images)]
    _refuse_twins(read)
    return ImageList(
        identifier=_text(body, "dc:identifier", "hv:imagelist"),
        title=str(body.get("dc:title") or ""),
        version=_text(body, "hv:version", "hv:imagelist"),
        created=_moment(body, "dc:date:created"),
        expires=_moment(body, "dc:date:expires"),
        images=tuple(read),
        description=str(body.get("dc:description") or ""),
        source=str(body.get("dc:source") or ""),
        vo=body.get("ad:vo") if isinstance(body.get("ad:vo"), str) else None,
        endorser=_endorser(body),
    )


def _unwrapped(one: Any, at: int) -> dict[str, Any]:
    return _table(_table(one, f"image {at + 1}").get("hv:image"), f"hv:image of image {at + 1}")


def _parse_image(body: dict[str, Any], at: int) -> ListedImage:
    where = f"image {at + 1} ({body.get('dc:title') or 'without a title'})"
    uri = _text(body, "hv:uri", where)
    if not uri.startswith(("https://", "http://")):
        raise BadListError(f"{where}: hv:uri is {uri[:100]!r}; it must be an address of the web.")
    size = body.get("hv:size")
    return ListedImage(
        identifier=_text(body, "dc:identifier", where),
        title=str(body.get("dc:title") or ""),
        version=str(body.get("hv:version") or "1"),
        uri=uri,
        checksum=_checksum(body, where),
        format=str(body.get("hv:format") or "").lower(),
        size_bytes=int(size) if isinstance(size, int | str) and str(size).isdigit() and int(size) > 0 else None,
        description=str(body.get("dc:description") or body.get("sl:comments") or ""),
        arch=str(body.get("sl:arch") or "x86_64"),
        os=str(body.get("sl:os") or "Linux"),
        os_name=str(body.get("sl:osname") or ""),
        os_version=str(body.get("sl:osversion") or ""),
    )


def _checksum(body: dict[str, Any], where: str) -> str:
    for algorithm, shape in (("sha512", _SHA512), ("sha256", _SHA256)):
        value = body.get(f"sl:checksum:{algorithm}")
        if value:
            if not isinstance(value, str) or not shape.fullmatch(value.lower()):
                raise BadListError(f"{where}: sl:checksum:{algorithm} is not {algorithm} in hex.")
            return f"{algorithm}:{value.lower()}"
    raise BadListError(f"{where}: it has neither sl:checksum:sha512 nor sl:checksum:sha256.")


def _refuse_twins(images: Sequence[ListedImage]) -> None:
    seen: set[str] = set()
    for one in images:
        if one.identifier in seen:
            raise BadListError(f"Two images have the dc:identifier {one.identifier}.")
        seen.add(one.identifier)


def _endorser(body: dict[str, Any]) -> str:
    x509 = body.get("hv:endorser")
    x509 = x509.get("hv:x509") if isinstance(x509, dict) else None
    return str(x509.get("hv:dn") or "") if isinstance(x509, dict) else ""


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadListError(f"{where} is missing, or not an object.")
    return value


def _text(body: dict[str, Any], key: str, where: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise BadListError(f"{where}: {key} is missing.")
    return value


def _moment(body: dict[str, Any], key: str) -> datetime:
    text = _text(body, key, "hv:imagelist")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadListError(f"hv:imagelist: {key} is {text!r}, which is no date.") from None
    if moment.tzinfo is None:
        raise BadListError(f"hv:imagelist: {key} is {text!r}, without a time zone.")
    return moment


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
