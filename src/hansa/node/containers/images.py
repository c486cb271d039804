"""What is done with images besides getting them: commit, push, history, manifests."""

from __future__ import annotations

import gzip
import os
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from .blobs import Blobs, read_pieces
from .credentials import Credentials
from .errors import BadImage
from .layers import Layers
from .manifest import OCI_LAYER_GZIP, is_foreign, is_index, parse_document, parse_manifest
from .model import ContainerRecord, Image, ImageConfig, Layer, Progress, Reference
from .registry import Fetched, Registry
from .store import Store
from .transfer import put_built, timestamp, unpack_blob
from .view import Changes, changes_in_copy, changes_in_upper, write_tree
from .web import Web, WebSettings

_GZIP_LEVEL = 6


@dataclass(frozen=True)
class Step:
    """One line of an image's history. ``layer`` is None for steps that changed no files."""

    created: str
    created_by: str
    comment: str
    layer: Optional[Layer]


def raw_config(store: Store, image_id: str) -> Dict[str, Any]:
    """The configuration as it was made, checked."""
    return parse_document(Blobs(store.layout, store.below).document(image_id), f"the configuration {image_id}")


def raw_manifest(store: Store, image: Image) -> Dict[str, Any]:
    """The manifest as it was made, checked."""
    return parse_document(Blobs(store.layout, store.below).document(image.manifest_digest), "the manifest")


def history(store: Store, image: Image) -> List[Step]:
    """How the image was made, oldest step first."""
    layers = iter(image.layers)
    steps: List[Step] = []
    for one in raw_config(store, image.id).get("history") or ():
        layer = None if one.get("empty_layer") else next(layers, None)
        created, by, comment = (str(one.get(key) or "") for key in ("created", "created_by", "comment"))
        steps.append(Step(created, by, comment, layer))
    return steps + [Step("", "", "", layer) for layer in layers]


def commit(
    store: Store,
    record: ContainerRecord,
    name: Optional[str] = None,
    config: Optional[ImageConfig] = None,
    comment: str = "",
    author: str = "",
    unpacked_copy: Optional[str] = None,
    left_out: Iterable[str] = (),
    clock: Callable[[], float] = time.time,
) -> Image:
    """A new image of a container: the layers of its image and one with what changed. The container should not run.

    ``config`` is the container's own one unless given. Where the container ran in an unpacked copy of its image
    instead of an overlay, ``unpacked_copy`` is that directory. ``left_out`` are relative paths that are not part of it.
    """
    reference = None if name is None else Reference.parse(name)
    base = config or record.config
    created = timestamp(clock())
    base = base._replace(created=created, author=author or base.author)
    with store.using():
        parts = Layers(store.layout, store.below).parts(record.layers)
        if unpacked_copy is None:
            changes = changes_in_upper(parts, str(store.container_dirs(record)[0]), left_out)
        else:
            changes = changes_in_copy(parts, unpacked_copy, left_out)
        try:
            before = raw_config(store, record.image_id)
        except BadImage:
            before = {}  # the image is gone; the container has all that is needed
        step: Dict[str, Any] = {"created": created, "created_by": "hansa container commit", "comment": comment}
        layers = list(record.layers)
        if changes.is_empty:
            step["empty_layer"] = True
        else:
            layers.append(_new_layer(store, changes))
        others: Dict[str, Any] = {key: before[key] for key in ("os.version", "os.features", "onbuild") if key in before}
        return put_built(store, base, layers, [*(before.get("history") or ()), step], others, reference)


def _new_layer(store: Store, changes: Changes) -> Layer:
    """Write the changes as a compressed layer, and unpack it like any other."""
    with store.layout.work_directory() as work:
        path = os.path.join(work, "layer")
        with open(path, "xb") as raw, gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream:
            write_tree(changes.view, changes.names, stream, changes.whiteouts)  # type: ignore[arg-type]
        digest, size = Blobs(store.layout, store.below).add_stream(read_pieces(path))
        diff_id = Layers(store.layout, store.below).add(None, read_pieces(path))
    layer = Layer(digest, diff_id, size, OCI_LAYER_GZIP)
    unpack_blob(store, layer)
    return layer


def push(
    store: Store,
    image: Image,
    name: str,
    settings: Optional[WebSettings] = None,
    credentials: Optional[Credentials] = None,
    on_progress: Optional[Callable[[Progress], None]] = None,
) -> str:
    """Upload an image under a name; what the registry has stays. Returns the manifest's digest.

    Raises BadImage for a blob that only a store below had unpacked, DigestMismatch for a damaged one.
    """
    reference = Reference.parse(name)
    blobs = Blobs(store.layout, store.below)
    data = blobs.document(image.manifest_digest)
    manifest = parse_manifest(parse_document(data, "the manifest"))
    report = on_progress or (lambda _progress: None)
    web = Web(settings)
    try:
        registry = Registry(reference.registry, web, credentials)
        origins = _origins(image, reference)
        for blob in (*manifest.layers, manifest.config):
            if is_foreign(Layer(blob.digest, "", blob.size, blob.media_type)):
                continue
            if registry.has_blob(reference.repository, blob.digest):
                report(Progress(blob.digest, "present", blob.size, blob.size))
                continue
            sender = _Sender(blobs, blob.digest, blob.size, report)
            registry.push_blob(reference.repository, blob.digest, blob.size, sender, origins)
            report(Progress(blob.digest, "done", blob.size, blob.size))
        return registry.push_manifest(reference, data, manifest.media_type)
    finally:
        web.close()


def _origins(image: Image, target: Reference) -> str:
    """Another repository of the same registry that has the image's layers, for mounting; or nothing."""
    for name in image.names:
        known = Reference.parse(name)
        if known.registry == target.registry and known.repository != target.repository:
            return known.repository
    return ""


class _Sender:
    """Opens a blob anew for each try."""

    def __init__(self, blobs: Blobs, digest: str, size: int, report: Callable[[Progress], None]) -> None:
        self._blobs = blobs
        self._digest = digest
        self._size = size
        self._report = report

    def __call__(self) -> Iterable[bytes]:
        done = 0
        for piece in self._blobs.pieces(self._digest):
            done += len(piece)
            self._report(Progress(self._digest, "uploading", done, self._size))
            yield piece


def inspect_remote(
    name: str, settings: Optional[WebSettings] = None, credentials: Optional[Credentials] = None
) -> Tuple[Fetched, Dict[str, Any]]:
    """The manifest or index that a registry has under a name (``manifest inspect``)."""
    reference = Reference.parse(name)
    web = Web(settings)
    try:
        fetched = Registry(reference.registry, web, credentials).manifest(reference)
    finally:
        web.close()
    document = parse_document(fetched.data, f"the manifest of {reference}")
    if not is_index(document) and "layers" not in document:
        raise BadImage(f"what {reference} names is no manifest")
    return fetched, document
