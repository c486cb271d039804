"""Unpacked layers: each one once, found through all stacked stores."""

from __future__ import annotations

import hashlib
import os
from typing import Callable, Iterable, List, Optional, Sequence

from .archive import Limits, Unpacked, can_whiteout, unpack
from .compression import decompressed
from .errors import BadImage, DigestMismatch
from .layout import Layout, read_json
from .locks import locked
from .merge import Part, merge
from .model import Layer
from .pipeline import ahead, hashed
from .stack import APART, EMPTY_DIFF_ID, TREE, Stack, hex_of


def chain_id(diff_ids: Sequence[str]) -> str:
    """The name of a sequence of layers, as the OCI image specification defines it."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode("ascii")).hexdigest()
    return chain


def parts_at(trees: Sequence[str]) -> List[Part]:
    """Layers by their directories, as :meth:`Store.layer_paths` gives them, with their records."""
    out = []
    for tree in trees:
        try:
            recorded = Unpacked.from_json(read_json(os.path.join(os.path.dirname(tree), "recorded.json")))
        except FileNotFoundError:
            recorded = Unpacked()  # merged of several: nothing is hidden any more
        out.append((tree, recorded))
    return out


class Layers(Stack):
    """Of one store and those below it, with what it takes to add some."""

    def __init__(self, own: Layout, below: Sequence[Layout]) -> None:
        super().__init__(own, below)
        self._can_whiteout: Optional[bool] = None

    def recorded(self, diff_id: str) -> Unpacked:
        """What was recorded at the layer's unpacking."""
        tree = self.tree(diff_id)
        if tree is None:
            return Unpacked()
        return Unpacked.from_json(read_json(os.path.join(os.path.dirname(tree), "recorded.json")))

    def parts(self, layers: Sequence[Layer]) -> List[Part]:
        """Trees with their records, for :func:`merge`."""
        return self._parts([layer.diff_id for layer in layers])

    def _parts(self, diff_ids: Sequence[str]) -> List[Part]:
        out = []
        for diff_id in diff_ids:
            if diff_id != EMPTY_DIFF_ID:
                tree = self.tree(diff_id)
                if tree is None:
                    raise BadImage(f"the layer {diff_id} is not in the store", "pull the image again")
                out.append((tree, self.recorded(diff_id)))
        return out

    def merged(self, diff_ids: Sequence[str]) -> str:
        """The tree of several layers in one, made now if it is not there."""
        name = hex_of(chain_id(diff_ids))
        for layout in self._all:
            path = layout.path("merged", name, TREE)
            if os.path.isdir(path):
                return path
        self._own.prepare()
        final = self._own.path("merged", name)
        with locked(self._own.path("lock"), is_shared=True), locked(self._own.path("locks", f"merged-{name}")):
            if not os.path.isdir(final):
                with self._own.work_directory() as work:
                    os.mkdir(os.path.join(work, TREE))
                    merge(self._parts(diff_ids), os.path.join(work, TREE), is_linked=True)
                    os.chmod(work, 0o700 | self._own.extra_mode)
                    os.rename(work, final)
        return os.path.join(final, TREE)

    def add(
        self,
        diff_id: Optional[str],
        pieces: Iterable[bytes],
        limits: Optional[Limits] = None,
        on_bytes: Optional[Callable[[int], None]] = None,
        is_replacing: bool = False,
    ) -> str:
        """Unpack a layer that may be compressed, reading ``pieces`` to their end; returns its diff id.

        Where a diff id is given the content must have it. Raises DigestMismatch, UnsafeArchive, BadImage; the store
        is then as before. One that is there already stays, unless it is damaged and to be replaced.
        """
        limits = limits or Limits()
        found = hashlib.sha256()
        with self._own.work_directory() as work:
            tree = os.path.join(work, TREE)
            os.mkdir(tree, 0o755)
            os.chmod(tree, 0o755)
            content = ahead(hashed(decompressed(ahead(pieces), limits.ratio), found))
            try:
                result = unpack(content, tree, limits, self._whiteouts_work(), self._own.extra_mode, on_bytes)
            finally:
                content.close()  # type: ignore[attr-defined]
            got = "sha256:" + found.hexdigest()
            if diff_id not in (None, got):
                raise DigestMismatch(f"a layer's content has {got}, the image's configuration says {diff_id}")
            self._publish(work, tree, got, result, is_replacing)
        return got

    def _publish(self, work: str, tree: str, diff_id: str, result: Unpacked, is_replacing: bool) -> None:
        if result.needs_merge:
            os.rename(tree, os.path.join(work, APART))
        self._own.write_json(os.path.relpath(os.path.join(work, "recorded.json"), self._own.root), result.to_json())
        os.chmod(work, 0o700 | self._own.extra_mode)
        final = self._own.path("layers", hex_of(diff_id))
        try:
            os.rename(work, final)
        except OSError:
            if not os.path.isdir(final):
                raise
            if is_replacing:
                self._own.discard(final)
                os.rename(work, final)

    def drop(self, diff_id: str) -> None:
        """Remove a layer from our own store."""
        self._own.discard(self._own.path("layers", hex_of(diff_id)))

    def _whiteouts_work(self) -> bool:
        if self._can_whiteout is None:
            self._can_whiteout = can_whiteout(self._own.path("tmp"))
        return self._can_whiteout
