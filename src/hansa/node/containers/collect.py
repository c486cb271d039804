"""How much a store holds, what of it nobody needs any more, and whether what it holds is still what it was."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator, List, Optional, Set, Tuple

from .blobs import Blobs, all_digests
from .check import differences
from .errors import BadImage, DigestMismatch, InUse, QuotaExceeded, StoreBusy
from .layers import Layers, chain_id
from .layout import Layout, disk_errors, read_json
from .locks import locked, try_lock
from .model import Image, Layer
from .stack import EMPTY_DIFF_ID, hex_of
from .store import THROWAWAY, Store
from .tree import remove_path

GC_WAIT_S = 10.0
PIN = "pin-"
PARTIAL_KEPT_S = 7 * 24 * 3600.0
YOUNG_S = 600.0
"""For so long a container is left alone that waits for its only run."""


@dataclass(frozen=True)
class Usage:
    """Bytes in our own store; containers' own files are not part of it."""

    blobs: int
    layers: int
    partial: int
    quota: Optional[int]

    @property
    def total(self) -> int:
        """What counts against the quota."""
        return self.blobs + self.layers + self.partial


@dataclass
class Collected:
    """What a collection removed."""

    images: int = 0
    layers: int = 0
    blobs: int = 0
    temporary: int = 0
    bytes: int = 0
    containers: int = 0
    """Those that a killed ``run --rm`` had left."""


@dataclass
class Report:
    """What :func:`verify` found: sentences about damaged blobs and layers; ``healed`` were made good on the spot."""

    damaged: List[str] = field(default_factory=list)
    healed: List[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """True if nothing is left to heal."""
        return len(self.damaged) == len(self.healed)


def usage(store: Store) -> Usage:
    """Read from records and file sizes; costs one call per blob and layer."""
    layout = store.layout
    quota = layout.settings.get("quota_bytes")
    if not layout.exists():
        return Usage(0, 0, 0, quota)
    return Usage(_sizes(layout.path("blobs")), sum(_layer_sizes(layout)), _sizes(layout.path("partial")), quota)


def _sizes(directory: str) -> int:
    with os.scandir(directory) as listing:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in listing)


def _layer_sizes(layout: Layout) -> Iterator[int]:
    for name in os.listdir(layout.path("layers")):
        try:
            yield int(read_json(layout.path("layers", name, "recorded.json")).get("bytes", 0))
        except FileNotFoundError:
            continue


def check_quota(store: Store, more: int) -> None:
    """Raise QuotaExceeded if ``more`` compressed bytes and what they unpack to cannot be had.

    Unpacked they are taken for twice as much, which is less than usual: this is for what is clearly too large.
    """
    found = usage(store)
    if more and found.quota is not None and found.total + 3 * more > found.quota:
        raise QuotaExceeded(
            f"the store {store.root} holds {found.total:,} of {found.quota:,} bytes; {more:,} more are to come",
            "remove images, collect garbage, or raise the store's quota",
        )


@contextmanager
def pinned(store: Store, image_id: str) -> Iterator[None]:
    """As long as this is held (shared, by flock) :func:`make_room` leaves the image where it is."""
    fd = pin(store, image_id)
    try:
        yield
    finally:
        os.close(fd)


def pin(store: Store, image_id: str) -> int:
    """The same as a descriptor: closing it gives the image free. Notes that the image was used now."""
    path = _pin_path(store, image_id)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.utime(path)
    return fd


def _pin_path(store: Store, image_id: str) -> str:
    return store.layout.path("locks", PIN + hex_of(image_id))


def make_room(store: Store, limit_bytes: Optional[int], wait_s: float = GC_WAIT_S) -> List[str]:
    """Where a store holds more than ``limit_bytes``: remove images, the longest unused first, until it does not.

    Only images that jobs have used: what a person has pulled stays, and so does what is pinned, protected or has
    containers. Returns the ids that went. A store in use is left for later.
    """
    if limit_bytes is None or not store.layout.exists() or usage(store).total <= limit_bytes:
        return []
    gone: List[str] = []
    try:
        collect(store, wait_s)
        for image in sorted(store.images(), key=lambda image: _used_at(store, image)):
            if usage(store).total <= limit_bytes:
                break
            if _is_free(store, image):
                store.remove_image(image.id)
                gone.append(image.id)
                collect(store, wait_s)
    except (StoreBusy, InUse):
        pass
    return gone


def _used_at(store: Store, image: Image) -> float:
    for path in (_pin_path(store, image.id), store.layout.path("images", hex_of(image.id) + ".json")):
        try:
            return os.stat(path).st_mtime
        except FileNotFoundError:
            continue
    return 0.0


def _is_free(store: Store, image: Image) -> bool:
    if not os.path.exists(_pin_path(store, image.id)):
        return False  # no job has ever used it
    if image.is_protected or image.is_read_only or any(one.image_id == image.id for one in store.containers()):
        return False
    fd = os.open(_pin_path(store, image.id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return try_lock(fd)
    finally:
        os.close(fd)


def collect(store: Store, wait_s: float = GC_WAIT_S) -> Collected:
    """Remove images without a name, what killed runs left, and layers and blobs that no image and no container uses.

    Waits for those who add to the store; raises StoreBusy after ``wait_s``.
    """
    layout = store.layout
    layout.prepare()
    with disk_errors(layout.root), locked(layout.path("lock"), timeout_s=wait_s):
        result = Collected(temporary=layout.sweep())
        _drop_left(store, result)
        images = [image for image in store.images() if not image.is_read_only]
        kept = [image for image in images if image.names or image.is_protected]
        for image in images:
            if image not in kept:
                os.unlink(layout.path("images", hex_of(image.id) + ".json"))
                result.images += 1
        containers = store.containers()
        chains = [*(image.layers for image in kept), *(container.layers for container in containers)]
        _drop_layers(layout, {layer.diff_id for layers in chains for layer in layers}, result)
        _drop_merged(layout, chains)
        needed = {layer.digest for image in kept for layer in image.layers}
        needed |= {digest for image in kept for digest in (image.id, image.manifest_digest)}
        _drop_blobs(layout, needed, result)
        _drop_old(layout)
    return result


def _drop_left(store: Store, result: Collected) -> None:
    """Containers of ``run --rm`` whose launcher was killed. Young ones may be about to start."""
    for record in store.containers():
        is_left = record.options.get(THROWAWAY) and time.time() - record.created > YOUNG_S
        if is_left and store.forget_container(record):
            result.containers += 1


def _drop_layers(layout: Layout, needed: Set[str], result: Collected) -> None:
    names = {hex_of(diff_id) for diff_id in needed}
    for name in os.listdir(layout.path("layers")):
        if name not in names:
            result.layers += 1
            try:
                result.bytes += int(read_json(layout.path("layers", name, "recorded.json")).get("bytes", 0))
            except FileNotFoundError:
                pass
            layout.discard(layout.path("layers", name))


def _drop_merged(layout: Layout, chains: Iterable[Tuple[Layer, ...]]) -> None:
    needed = set()
    for layers in chains:
        diff_ids = [layer.diff_id for layer in layers]
        needed |= {hex_of(chain_id(diff_ids[:end])) for end in range(1, len(diff_ids) + 1)}
    for name in os.listdir(layout.path("merged")):
        if name not in needed:
            layout.discard(layout.path("merged", name))


def _drop_blobs(layout: Layout, needed: Set[str], result: Collected) -> None:
    for digest in all_digests(layout):
        if digest not in needed:
            path = layout.path("blobs", hex_of(digest))
            result.blobs += 1
            result.bytes += os.path.getsize(path)
            os.unlink(path)


def _drop_old(layout: Layout) -> None:
    """Downloads that nobody continued for a week, and locks: nobody holds one, for everybody holds the store's."""
    for name in os.listdir(layout.path("partial")):
        path = layout.path("partial", name)
        if time.time() - os.path.getmtime(path) > PARTIAL_KEPT_S:
            os.unlink(path)
    images = {name.partition(".")[0] for name in os.listdir(layout.path("images"))}
    for name in os.listdir(layout.path("locks")):
        if not (name.startswith(PIN) and name[len(PIN) :] in images):
            remove_path(layout.path("locks", name))


def verify(store: Store, image: Image, on_layer: Optional[Callable[[Layer], None]] = None) -> Report:
    """Hash all blobs of an image and compare every unpacked file with its layer.

    Damaged blobs of our own store are removed, so that a pull brings them again. A damaged layer is unpacked anew at
    once if its blob is good, else removed.
    """
    report = Report()
    blobs, layers = Blobs(store.layout, store.below), Layers(store.layout, store.below)
    with store.using():
        for digest in (image.manifest_digest, image.id):
            _verify_blob(blobs, digest, report)
        for layer in image.layers:
            if on_layer is not None:
                on_layer(layer)
            with locked(store.layout.path("locks", hex_of(layer.digest))):
                _verify_layer(store, blobs, layers, layer, report)
    return report


def _verify_blob(blobs: Blobs, digest: str, report: Report) -> bool:
    if blobs.place(digest) is None:
        report.damaged.append(f"the blob {digest} is missing")
        return False
    try:
        for _ in blobs.pieces(digest):
            pass
    except DigestMismatch as error:
        report.damaged.append(error.message)
        return False
    return True


def _verify_layer(store: Store, blobs: Blobs, layers: Layers, layer: Layer, report: Report) -> None:
    tree = layers.tree(layer.diff_id)
    is_own = tree is None or tree.startswith(store.layout.root + "/")
    if blobs.place(layer.digest) is None and not is_own:
        return  # a store below may keep only what is unpacked
    if not _verify_blob(blobs, layer.digest, report) or layer.diff_id == EMPTY_DIFF_ID:
        return
    try:
        found = ["it is missing"] if tree is None else differences(blobs.pieces(layer.digest), tree)
    except BadImage as error:
        found = [error.message]
    if not found:
        return
    sentence = f"the unpacked layer {layer.diff_id} is damaged: {'; '.join(found[:5])}"
    report.damaged.append(sentence)
    if is_own:
        layers.add(layer.diff_id, blobs.pieces(layer.digest), is_replacing=True)
        report.healed.append(sentence)
