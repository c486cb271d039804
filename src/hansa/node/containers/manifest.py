"""Manifests and indexes: OCI image specification 1.1, Docker schema 2. Pure."""

from __future__ import annotations

import json
import platform as host
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .errors import BadImage, NoPlatform, Unsupported
from .model import ImageConfig, Layer, Platform, is_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_MOST_LAYERS = 500
_MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


@dataclass(frozen=True)
class Descriptor:
    """A pointer to content."""

    digest: str
    size: int
    media_type: str

    def to_json(self) -> Dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """One image for one platform."""

    config: Descriptor
    layers: Tuple[Descriptor, ...]
    media_type: str


def host_platform(machine: str = "") -> Platform:
    """What this node runs."""
    name = (machine or host.machine()).lower()
    architecture, variant = _MACHINES.get(name, (name, ""))
    return Platform(architecture, "linux", variant)


def parse_platform(text: str) -> Platform:
    """``linux/arm64/v8``, or an architecture alone."""
    parts = text.split("/")
    if len(parts) == 1:
        return host_platform(parts[0])
    return Platform(parts[1], parts[0], parts[2] if len(parts) > 2 else "")


def parse_document(data: bytes, what: str) -> Dict[str, Any]:
    """A JSON object. Raises BadImage."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadImage(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadImage(f"{what} is no JSON object")
    return document


def is_index(document: Mapping[str, Any]) -> bool:
    """True for a list of manifests."""
    kind = document.get("mediaType")
    return kind in (OCI_INDEX, DOCKER_INDEX) or (kind is None and "manifests" in document)


def parse_manifest(document: Mapping[str, Any]) -> Manifest:
    """Raises BadImage, and Unsupported for what is no image for containers."""
    if document.get("schemaVersion") == 1:
        raise Unsupported("the image has a manifest of schema 1", "let its keeper push it again with a newer Docker")
    if not isinstance(document.get("config"), dict) or not isinstance(document.get("layers"), list):
        raise BadImage("the manifest has no 'config' or no 'layers'")
    config = _descriptor(document["config"])
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise Unsupported(f"this is no container image, but an artefact of type {config.media_type or 'unknown'}")
    layers = tuple(_descriptor(layer) for layer in document["layers"])
    if len(layers) > _MOST_LAYERS:
        raise BadImage(f"the image has {len(layers)} layers; {_MOST_LAYERS} is the most")
    media_type = document.get("mediaType") or (DOCKER_MANIFEST if config.media_type == DOCKER_CONFIG else OCI_MANIFEST)
    return Manifest(config, layers, str(media_type))


def _descriptor(value: Any) -> Descriptor:
    if not isinstance(value, dict):
        raise BadImage("the manifest has a descriptor that is no object")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadImage(f"the manifest names content by {digest!r}, which is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadImage(f"the manifest gives {digest} the size {size!r}")
    return Descriptor(digest, size, str(value.get("mediaType") or ""))


def pick(index: Mapping[str, Any], wanted: Platform, what: str) -> Descriptor:
    """The manifest of an index for a platform: the same variant, else one without, else the nearest older one.

    Raises NoPlatform with the list of those that exist.
    """
    manifests = index.get("manifests")
    if not isinstance(manifests, list):
        raise BadImage("the index has no list of manifests")
    found: List[Tuple[int, Descriptor]] = []
    offered: List[str] = []
    for one in manifests:
        about = one.get("platform") if isinstance(one, dict) else None
        if not isinstance(about, dict):
            if len(manifests) == 1:
                return _descriptor(one)
            continue
        offer = Platform(
            str(about.get("architecture", "")), str(about.get("os", "linux")), str(about.get("variant") or "")
        )
        if offer.os == "unknown":
            continue  # attestations
        offered.append(str(offer))
        rank = _rank(offer, wanted)
        if rank is not None:
            found.append((rank, _descriptor(one)))
    if not found:
        raise NoPlatform(
            f"{what} is not there for {wanted}, only for {', '.join(sorted(set(offered))) or 'nothing'}",
            "take another image, or a node of that kind",
        )
    return min(found, key=lambda pair: pair[0])[1]


def _rank(offer: Platform, wanted: Platform) -> Optional[int]:
    """Smaller is better; None does not run."""
    if (offer.os, offer.architecture) != (wanted.os, wanted.architecture):
        return None
    if offer.variant == wanted.variant:
        return 0
    if not offer.variant:
        return 1
    if not wanted.variant:
        return 100 + _level(offer.variant) if offer.architecture in ("arm", "amd64") else 2
    return (
        2 + _level(wanted.variant) - _level(offer.variant) if _level(offer.variant) < _level(wanted.variant) else None
    )


def _level(variant: str) -> int:
    digits = variant.lstrip("v")
    return int(digits) if digits.isdigit() else 0


def layers_of(manifest: Manifest, config: Mapping[str, Any]) -> Tuple[Layer, ...]:
    """Join the blobs of a manifest with the diff ids of its configuration. Raises BadImage where they do not fit."""
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(one, str) and is_digest(one) for one in diff_ids):
        raise BadImage("the image's configuration has no list of diff ids")
    if len(diff_ids) != len(manifest.layers):
        raise BadImage(f"the manifest has {len(manifest.layers)} layers, the configuration {len(diff_ids)}")
    return tuple(
        Layer(blob.digest, diff_id, blob.size, blob.media_type) for blob, diff_id in zip(manifest.layers, diff_ids)
    )


def build_manifest(config: Descriptor, layers: Sequence[Layer]) -> bytes:
    """An OCI manifest, the same bytes for the same image."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [Descriptor(one.digest, one.size, one.media_type).to_json() for one in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def build_config(
    config: ImageConfig, layers: Sequence[Layer], history: Sequence[Mapping[str, Any]], others: Mapping[str, Any]
) -> bytes:
    """An OCI configuration; ``others`` are fields of an earlier one that stay."""
    document = {
        **others,
        **config.to_json(),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": list(history),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def is_foreign(layer: Layer) -> bool:
    """True for layers that registries do not hold."""
    return "foreign" in layer.media_type or "nondistributable" in layer.media_type
