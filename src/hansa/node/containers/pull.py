"""From a registry into the store: each blob is fetched, checked and unpacked once, whoever asks, in whichever process.

A blob's download and its unpacking happen under one lock of its digest. Who comes second waits and watches the first
one's progress; if that one is killed, the next continues with what is there of the download.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Union

from .archive import Limits
from .blobs import Blobs
from .collect import check_quota
from .credentials import Credentials
from .errors import BadImage, ContainerError, DigestMismatch, ImageNotFound, NoPlatform, UnsafeArchive
from .layers import Layers
from .locks import locked
from .manifest import (
    Manifest,
    host_platform,
    is_foreign,
    is_index,
    layers_of,
    parse_document,
    parse_manifest,
    pick,
)
from .model import Image, ImageConfig, Layer, Platform, Progress, Reference
from .registry import Fetched, Registry
from .stack import Stack, hex_of
from .store import Store
from .web import Web, WebSettings

PARALLEL = 4

OnProgress = Callable[[Progress], None]


class Cancelled(ContainerError):
    """Another part of the same work failed."""

    code = "containers.cancelled"


def ensure(
    store: Store,
    name: Union[str, Reference],
    settings: Optional[WebSettings] = None,
    credentials: Optional[Credentials] = None,
    on_progress: Optional[OnProgress] = None,
) -> Image:
    """The image of the store, or else of the registry. Asks nobody if the store has it."""
    try:
        image = store.find_image(str(name))
        if all(Stack(store.layout, store.below).is_there(layer.diff_id) for layer in image.layers):
            return image
    except ImageNotFound:
        pass
    return pull(store, name, settings, credentials, on_progress=on_progress)


def pull(
    store: Store,
    name: Union[str, Reference],
    settings: Optional[WebSettings] = None,
    credentials: Optional[Credentials] = None,
    platform: Optional[Platform] = None,
    on_progress: Optional[OnProgress] = None,
    limits: Optional[Limits] = None,
) -> Image:
    """Bring the store up to what the registry has under that name now. Damaged blobs of the store are replaced.

    ``on_progress`` is called from several threads. Raises ContainerErrors; the store then lists what it did before,
    and what was downloaded is not lost.
    """
    reference = name if isinstance(name, Reference) else Reference.parse(name)
    web = Web(settings)
    try:
        registry = Registry(reference.registry, web, credentials)
        with store.using():
            store.layout.sweep()
            return _Pull(store, registry, reference, limits or Limits(), on_progress).run(platform)
    finally:
        web.close()


class _Pull:
    def __init__(
        self,
        store: Store,
        registry: Registry,
        reference: Reference,
        limits: Limits,
        on_progress: Optional[OnProgress],
    ) -> None:
        self._store = store
        self._registry = registry
        self._reference = reference
        self._limits = limits
        self._on_progress = on_progress or (lambda _progress: None)
        self._blobs = Blobs(store.layout, store.below)
        self._layers = Layers(store.layout, store.below)
        self._stop = threading.Event()

    def run(self, platform: Optional[Platform]) -> Image:
        wanted = platform or host_platform()
        top = self._registry.manifest(self._reference)
        document = parse_document(top.data, f"the manifest of {self._reference}")
        index_digest = ""
        chosen = top
        if is_index(document):
            index_digest = top.digest
            found = pick(document, wanted, str(self._reference))
            chosen = self._registry.manifest(self._reference.with_digest(found.digest))
            document = parse_document(chosen.data, f"the manifest {chosen.digest}")
        manifest = parse_manifest(document)
        config_data = self._config(manifest)
        config_document = parse_document(config_data, f"the configuration {manifest.config.digest}")
        config = ImageConfig.from_json(config_document)
        if platform is None:
            _check_architecture(config, wanted, self._reference)
        layers = layers_of(manifest, config_document)
        check_quota(self._store, self._missing_bytes(layers))
        self._bring_all(layers)
        return self._finish(top, chosen, manifest, config, layers, index_digest)

    def _finish(
        self,
        top: Fetched,
        chosen: Fetched,
        manifest: Manifest,
        config: ImageConfig,
        layers: Sequence[Layer],
        index_digest: str,
    ) -> Image:
        self._blobs.add(chosen.data)
        names = (str(self._reference),)
        image = self._store.put_image(chosen.digest, manifest.config.digest, layers, config, names, index_digest)
        self._on_progress(Progress(top.digest, "done"))
        return image

    def _config(self, manifest: Manifest) -> bytes:
        digest = manifest.config.digest
        with locked(self._lock_of(digest)):
            if self._blobs.place(digest) is not None and self._blobs.is_good(digest):
                return self._blobs.document(digest)
            data = self._registry.blob_bytes(self._reference.repository, digest, manifest.config.size)
            self._blobs.add(data)
            return data

    def _missing_bytes(self, layers: Sequence[Layer]) -> int:
        return sum(layer.size for layer in layers if not self._layers.is_there(layer.diff_id))

    def _lock_of(self, digest: str) -> str:
        return self._store.layout.path("locks", hex_of(digest))

    def _bring_all(self, layers: Sequence[Layer]) -> None:
        """In parallel; the first failure stops the rest."""
        unique: Dict[str, Layer] = {layer.digest: layer for layer in layers}
        with ThreadPoolExecutor(PARALLEL) as pool:
            try:
                futures: List[Future[None]] = [pool.submit(self._bring, layer) for layer in unique.values()]
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                if any(one.done() and one.exception() for one in futures) or not all(one.done() for one in futures):
                    self._stop.set()
        failures = [error for error in (one.exception() for one in futures) if error is not None]
        for error in sorted(failures, key=lambda one: isinstance(one, Cancelled)):
            raise error

    def _bring(self, layer: Layer) -> None:
        self._check_stop()

        def watch() -> None:
            self._report(layer, "waiting", self._blobs.partial_size(layer.digest))

        with locked(self._lock_of(layer.digest), while_waiting=watch):
            had_partial = self._blobs.partial_size(layer.digest) > 0
            try:
                self._bring_locked(layer)
            except DigestMismatch:
                if not had_partial:
                    raise
                self._bring_locked(layer)  # the part that was there may have been the damaged one
        self._report(layer, "done", layer.size)

    def _bring_locked(self, layer: Layer) -> None:
        is_unpacked = self._layers.is_there(layer.diff_id)
        has_blob = self._blobs.place(layer.digest) is not None and self._blobs.is_good(layer.digest)
        tree = self._layers.tree(layer.diff_id)
        is_elsewhere = tree is not None and not tree.startswith(self._store.layout.root + "/")
        if is_unpacked and (has_blob or is_elsewhere):
            self._report(layer, "present", layer.size)
            return
        pieces = self._blobs.pieces(layer.digest) if has_blob else self._download(layer)
        if is_unpacked:
            for _ in pieces:
                pass
            return
        try:
            self._layers.add(layer.diff_id, pieces, self._limits, lambda done: self._unpacked(layer, done))
        except (BadImage, UnsafeArchive):
            # What cannot be unpacked may only be damaged, which the rest of it tells: DigestMismatch says so.
            for _ in self._blobs.pieces(layer.digest) if self._blobs.place(layer.digest) else self._download(layer):
                pass
            raise

    def _download(self, layer: Layer) -> Iterator[bytes]:
        if is_foreign(layer):
            raise ImageNotFound(f"the layer {layer.digest} is not kept in registries ({layer.media_type})")

        def report(done: int) -> None:
            self._check_stop()
            self._report(layer, "downloading", done)

        origin = f"{self._registry.name}/{self._reference.repository}"
        opener = self._registry.opener(self._reference.repository, layer.digest)
        return self._blobs.incoming(layer.digest, layer.size, opener, origin, report)

    def _unpacked(self, layer: Layer, done: int) -> None:
        self._check_stop()
        if self._blobs.partial_size(layer.digest) == 0:
            self._on_progress(Progress(layer.digest, "unpacking", done))

    def _report(self, layer: Layer, phase: str, done: int) -> None:
        self._on_progress(Progress(layer.digest, phase, done, layer.size))

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Cancelled("given up, because another layer failed")


def _check_architecture(config: ImageConfig, wanted: Platform, reference: Reference) -> None:
    if config.architecture and (config.architecture, config.os) != (wanted.architecture, wanted.os):
        raise NoPlatform(
            f"{reference} is for {config.os}/{config.architecture}, and this node is {wanted}",
            "name the platform if you want it all the same",
        )
