"""Images as files: ``save`` and ``load`` of archives, ``import`` and ``export`` of plain tarballs.

What ``save`` writes is an OCI image layout with Docker's ``manifest.json`` beside it: one file that ``docker load``,
``podman load`` and ``skopeo`` (as ``oci-archive:`` and ``docker-archive:``) all read.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import tar
from .archive import Limits
from .blobs import MAX_DOCUMENT_BYTES, Blobs, digest_of
from .compression import PIECE_BYTES, decompressed, kind_of
from .errors import BadImage, DigestMismatch
from .layers import Layers
from .locks import locked
from .manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    Descriptor,
    Manifest,
    build_config,
    build_manifest,
    host_platform,
    is_index,
    layers_of,
    parse_document,
    parse_manifest,
    pick,
)
from .model import ContainerRecord, Image, ImageConfig, Layer, Reference
from .stack import hex_of
from .store import Store
from .tree import parts_of
from .view import view_of, write_tree

_NAME_NOTE = "org.opencontainers.image.ref.name"
_FULL_NAME_NOTE = "io.containerd.image.name"


def stream_pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """A file object in pieces."""
    while True:
        piece = stream.read(PIECE_BYTES)
        if not piece:
            return
        yield piece


# Writing.


def save(store: Store, images: Sequence[Tuple[Image, Sequence[str]]], stream: IO[bytes]) -> None:
    """Write images, each with the names it is to have, to a stream. Raises BadImage where a blob is not kept here."""
    blobs = Blobs(store.layout, store.below)
    index: List[Dict[str, Any]] = []
    listed: List[Dict[str, Any]] = []
    digests: Dict[str, None] = {}
    for image, names in images:
        manifest = blobs.document(image.manifest_digest)
        media_type = parse_manifest(parse_document(manifest, "the manifest")).media_type
        entry = Descriptor(image.manifest_digest, len(manifest), media_type).to_json()
        index += [{**entry, "annotations": _notes(name)} for name in names] or [entry]
        listed.append(_docker_entry(image, names))
        digests.update(dict.fromkeys((image.manifest_digest, image.id, *(layer.digest for layer in image.layers))))
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
        _put(archive, "index.json", json.dumps(document).encode())
        _put(archive, "manifest.json", json.dumps(listed).encode())
        for digest in digests:
            info = tarfile.TarInfo(f"blobs/sha256/{hex_of(digest)}")
            info.size = blobs.size(digest)
            info.mode = 0o644
            archive.addfile(info, _Reader(blobs.pieces(digest)))  # type: ignore[arg-type]


def _notes(name: str) -> Dict[str, str]:
    return {_FULL_NAME_NOTE: name, _NAME_NOTE: Reference.parse(name).tag or "latest"}


def _docker_entry(image: Image, names: Sequence[str]) -> Dict[str, Any]:
    return {
        "Config": f"blobs/sha256/{hex_of(image.id)}",
        "RepoTags": [Reference.parse(name).familiar for name in names if "@" not in name] or None,
        "Layers": [f"blobs/sha256/{hex_of(layer.digest)}" for layer in image.layers],
    }


def _put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    archive.addfile(info, io.BytesIO(data))


class _Reader:
    """``read(n)`` over pieces; reads to the end, so that the digest is checked."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._source = tar.Source(pieces)

    def read(self, count: int) -> bytes:
        return self._source.exactly(count)


def export(store: Store, record: ContainerRecord, stream: IO[bytes]) -> None:
    """Write all files of a container as one plain tarball."""
    upper, _, _ = store.container_dirs(record)
    view = view_of(Layers(store.layout, store.below).parts(record.layers), str(upper))
    write_tree(view, view, stream)


# Reading.


def load(store: Store, stream: IO[bytes], limits: Optional[Limits] = None) -> List[Image]:
    """Take in a Docker or OCI archive, compressed or not. Returns its images.

    Of an index the image for this node is taken. Raises BadImage, DigestMismatch, UnsafeArchive.
    """
    with store.using(), store.layout.work_directory() as work:
        archive = _Archive(store, work, limits or Limits())
        archive.read(stream_pieces(stream))
        return archive.images()


class _Archive:
    """The files of an archive by name, laid down one by one as they come: a stream has no second pass."""

    def __init__(self, store: Store, work: str, limits: Limits) -> None:
        self._store = store
        self._work = work
        self._limits = limits
        self._blobs = Blobs(store.layout, store.below)
        self._layers = Layers(store.layout, store.below)
        self._files: Dict[str, Tuple[str, int]] = {}
        self._links: Dict[str, str] = {}

    def read(self, pieces: Iterator[bytes]) -> None:
        """Every regular file becomes a blob of the store; those that no image names go with the next collection."""
        source = tar.Source(decompressed(pieces, self._limits.ratio))
        reader = tar.Reader(source)
        for entry in reader:
            name = os.fsdecode(b"/".join(parts_of(entry.name)))
            if entry.kind == tar.REGULAR:
                self._files[name] = self._blobs.add_stream(bytes(piece) for piece in reader.data())
            elif entry.kind in (tar.SYMLINK, tar.HARD_LINK):
                base = os.path.dirname(name) if entry.kind == tar.SYMLINK else ""
                self._links[name] = os.path.normpath(os.path.join(base, os.fsdecode(entry.link)))
        source.drain()

    def _file(self, name: str) -> Tuple[str, int]:
        at = os.path.normpath(name)
        for _ in range(8):
            if at in self._files:
                return self._files[at]
            at = self._links.get(at, "")
        raise BadImage(f"the archive does not have the file {name!r}")

    def _document(self, name: str) -> bytes:
        digest, size = self._file(name)
        if size > MAX_DOCUMENT_BYTES:
            raise BadImage(f"the file {name!r} of the archive is too large")
        return self._blobs.document(digest)

    def images(self) -> List[Image]:
        """All of them; the OCI layout counts where there are both."""
        if "index.json" in self._files:
            return self._oci_images()
        if "manifest.json" in self._files:
            return [self._docker_image(one) for one in _list_of(self._document("manifest.json"))]
        raise BadImage("this is neither a Docker nor an OCI archive", "a plain tarball is taken by 'import'")

    # OCI.

    def _oci_images(self) -> List[Image]:
        index = parse_document(self._document("index.json"), "index.json")
        manifests = index.get("manifests")
        if not isinstance(manifests, list):
            raise BadImage("the archive's index.json lists no manifests")
        tags = self._docker_names()
        by_digest: Dict[str, Tuple[Mapping[str, Any], List[str]]] = {}
        for one in manifests:
            if isinstance(one, dict) and isinstance(one.get("digest"), str):
                by_digest.setdefault(one["digest"], (one, []))[1].extend(_name_of(one))
        if len(by_digest) == 1 and tags:
            only = next(iter(by_digest.values()))
            only[1].extend(name for name in tags if name not in only[1])
        return [self._oci_image(digest, names) for digest, (_, names) in by_digest.items()]

    def _docker_names(self) -> List[str]:
        if "manifest.json" not in self._files:
            return []
        listed = _list_of(self._document("manifest.json"))
        return [str(Reference.parse(str(name))) for one in listed for name in one.get("RepoTags") or ()]

    def _blob(self, digest: str) -> bytes:
        if self._file(f"blobs/sha256/{hex_of(digest)}")[0] != digest:
            raise DigestMismatch(f"the blob {digest} in the archive is damaged")
        return self._blobs.document(digest)

    def _oci_image(self, digest: str, names: List[str]) -> Image:
        data = self._blob(digest)
        document = parse_document(data, f"the manifest {digest}")
        index_digest = ""
        if is_index(document):
            index_digest = digest
            data = self._blob(pick(document, host_platform(), "the image").digest)
            document = parse_document(data, "the manifest")
        manifest = parse_manifest(document)
        config = parse_document(self._blob(manifest.config.digest), "the configuration")
        layers = layers_of(manifest, config)
        for layer in layers:
            if self._file(f"blobs/sha256/{hex_of(layer.digest)}")[0] != layer.digest:
                raise DigestMismatch(f"the blob {layer.digest} in the archive is damaged")
        return self._finish(digest_of(data), manifest.config.digest, layers, config, names, index_digest)

    # Docker.

    def _docker_image(self, entry: Mapping[str, Any]) -> Image:
        names = [str(Reference.parse(str(name))) for name in entry.get("RepoTags") or ()]
        config_name, layer_names = str(entry.get("Config", "")), entry.get("Layers")
        if not isinstance(layer_names, list):
            raise BadImage("the archive's manifest.json lists no layers")
        config_digest, config_size = self._file(config_name)
        config = parse_document(self._document(config_name), "the configuration")
        blobs = []
        for name in layer_names:
            digest, size = self._file(str(name))
            blobs.append(Descriptor(digest, size, self._media_type(digest)))
        described = Descriptor(config_digest, config_size, OCI_CONFIG)
        layers = layers_of(Manifest(described, tuple(blobs), ""), config)
        manifest_digest = self._blobs.add(build_manifest(described, layers))
        return self._finish(manifest_digest, config_digest, layers, config, names, "")

    def _media_type(self, digest: str) -> str:
        return media_type_of(self._blobs, digest)

    def _finish(
        self,
        manifest_digest: str,
        config_digest: str,
        layers: Sequence[Layer],
        config: Mapping[str, Any],
        names: Sequence[str],
        index_digest: str,
    ) -> Image:
        for layer in layers:
            unpack_blob(self._store, layer, self._limits)
        parsed = ImageConfig.from_json(config)
        return self._store.put_image(manifest_digest, config_digest, layers, parsed, names, index_digest)


def media_type_of(blobs: Blobs, digest: str) -> str:
    """Of a layer, by its first bytes."""
    path = blobs.place(digest)
    assert path is not None
    with open(path, "rb") as stream:
        kind = kind_of(stream.read(8))
    if kind not in ("", "gzip", "zstd"):
        raise BadImage(f"a layer is compressed with {kind}, which images cannot have")
    return OCI_LAYER + (f"+{kind}" if kind else "")


def unpack_blob(store: Store, layer: Layer, limits: Optional[Limits] = None) -> None:
    """Unpack a layer whose blob is there, if nobody did so before."""
    layers = Layers(store.layout, store.below)
    if layers.is_there(layer.diff_id):
        return
    with locked(store.layout.path("locks", hex_of(layer.digest))):
        if not layers.is_there(layer.diff_id):
            layers.add(layer.diff_id, Blobs(store.layout, store.below).pieces(layer.digest), limits)


def _list_of(data: bytes) -> List[Dict[str, Any]]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadImage(f"the archive's manifest.json is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadImage("the archive's manifest.json is no list of images")
    return found


def _name_of(entry: Mapping[str, Any]) -> List[str]:
    """The full name in an index's annotations; a bare tag is no name of an image."""
    notes = entry.get("annotations")
    if not isinstance(notes, dict):
        return []
    text = notes.get(_FULL_NAME_NOTE) or notes.get(_NAME_NOTE) or ""
    if not isinstance(text, str) or not ("/" in text or ":" in text):
        return []
    return [str(Reference.parse(text))]


def import_tarball(
    store: Store,
    stream: IO[bytes],
    name: str,
    config: Optional[ImageConfig] = None,
    clock: Callable[[], float] = time.time,
    limits: Optional[Limits] = None,
) -> Image:
    """Make an image of one layer from a tarball of a root file system, compressed or not."""
    reference = Reference.parse(name)
    with store.using():
        blobs = Blobs(store.layout, store.below)
        digest, size = blobs.add_stream(stream_pieces(stream))
        if size == 0:
            raise BadImage("there is nothing to import: the input is empty")
        layers = Layers(store.layout, store.below)
        with locked(store.layout.path("locks", hex_of(digest))):
            diff_id = layers.add(None, blobs.pieces(digest), limits)
        platform = host_platform()
        created = timestamp(clock())
        base = config or ImageConfig(architecture=platform.architecture, created=created)
        layer = Layer(digest, diff_id, size, media_type_of(blobs, digest))
        history = [{"created": created, "comment": "imported"}]
        return put_built(store, base, [layer], history, {}, reference)


def put_built(
    store: Store,
    config: ImageConfig,
    layers: Sequence[Layer],
    history: Sequence[Mapping[str, Any]],
    others: Mapping[str, Any],
    reference: Optional[Reference],
) -> Image:
    """Put an image together whose layers are there. Call inside ``Store.using``."""
    blobs = Blobs(store.layout, store.below)
    data = build_config(config, layers, history, others)
    config_digest = blobs.add(data)
    manifest_digest = blobs.add(build_manifest(Descriptor(config_digest, len(data), OCI_CONFIG), layers))
    names = [] if reference is None else [str(reference)]
    return store.put_image(manifest_digest, config_digest, layers, config, names)


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
