"""VM images as OCI artefacts in a real registry, as ``oras push`` leaves them: pinned by digest, fetched, kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.integration.node.containers.conftest import RealRegistry
from tests.unit.images.test_formats import qcow2

from hansa.images.depot import Depot
from hansa.images.sources import Sources
from hansa.kernel.errors import Permanent
from hansa.node.containers.model import Reference
from hansa.node.containers.registry import Registry
from hansa.node.containers.web import Web, WebSettings

DISK = qcow2() + b"contents" * 400_000
WEB = WebSettings(is_insecure=True)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(registry: RealRegistry, tag: str, disk: bytes) -> str:
    """An artefact with a disk and a readme; its address."""
    files = {"disk.qcow2": disk, "readme.md": b"# A disk"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.vm",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
        "layers": [
            {"mediaType": "application/octet-stream", "digest": digest_of(data), "size": len(data),
             "annotations": {"org.opencontainers.image.title": name}}
            for name, data in files.items()
        ],
    }  # fmt: skip
    there = Registry(registry.host, Web(WEB))
    try:
        for data in (b"{}", *files.values()):
            there.push_blob("vm/tools", digest_of(data), len(data), lambda data=data: iter([data]))  # type: ignore[misc]
        reference = Reference.parse(f"{registry.host}/vm/tools:{tag}")
        there.push_manifest(reference, json.dumps(manifest).encode(), str(manifest["mediaType"]))
    finally:
        there.close()
    return f"oci://{registry.host}/vm/tools:{tag}"


async def no_progress(_done: int, _total: int | None) -> None:
    return None


async def test_an_artefact_is_pinned_fetched_and_kept(registry: RealRegistry, tmp_path: Path) -> None:
    asked: list[str] = []

    async def allow(url: str) -> None:
        asked.append(url)

    source, depot = put(registry, "1", DISK), Depot(tmp_path, 0)
    sources = Sources(10**9, allow, WEB)
    pinned = await sources.pin(source, None)
    assert (pinned.checksum, pinned.size_bytes) == (digest_of(DISK), len(DISK))
    partial = depot.partial("one")
    partial.write_bytes(DISK[:1_000_000])  # of an earlier try
    await sources.fetch(source, pinned.checksum, partial, no_progress)
    content = await depot.publish(partial, pinned.checksum, None)
    assert depot.path(content.sha256).read_bytes() == DISK
    assert any(url.endswith(f"/blobs/{pinned.checksum}") for url in asked), "every address is allowed first"


async def test_an_address_that_is_not_allowed_is_not_asked(registry: RealRegistry) -> None:
    async def allow(url: str) -> None:
        if "/manifests/" in url:
            raise Permanent(f"This server does not connect to {url}.")

    with pytest.raises(Permanent, match="does not connect"):
        await Sources(10**9, allow, WEB).pin(put(registry, "2", DISK), None)


async def test_a_blob_that_was_changed_in_the_registry_is_refused(registry: RealRegistry, tmp_path: Path) -> None:
    other = DISK + b"other..." * 64
    source, depot = put(registry, "3", other), Depot(tmp_path, 0)
    registry.blob_file(digest_of(other)).write_bytes(other[:-8] + b"changed!")
    sources = Sources(10**9, _allow_all, WEB)
    await sources.fetch(source, digest_of(other), depot.partial("one"), no_progress)
    with pytest.raises(Permanent, match="is wanted"):
        await depot.publish(depot.partial("one"), digest_of(other), None)
    assert not depot.partial_bytes("one")


async def _allow_all(_url: str) -> None:
    return None
