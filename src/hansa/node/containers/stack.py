"""Where the unpacked layers of stacked stores are. Kept small: every start of a container imports it."""

from __future__ import annotations

import os
from typing import List, Optional, Sequence

from .errors import BadImage
from .layout import Layout
from .model import Layer

EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The tar of nothing, which several builders write as a layer."""
TREE, APART = "tree", "apart"


def hex_of(digest: str) -> str:
    """The file name of a digest."""
    return digest.partition(":")[2]


class Stack:
    """Layers of one store and those below it."""

    def __init__(self, own: Layout, below: Sequence[Layout]) -> None:
        self._own = own
        self._all = (own, *below)

    def tree(self, diff_id: str) -> Optional[str]:
        """The directory of a layer's files, or None. It ends in ``apart`` where the layer needs merging."""
        name = hex_of(diff_id)
        for kind in (TREE, APART):
            for layout in self._all:
                path = layout.path("layers", name, kind)
                if os.path.isdir(path):
                    return path
        return None

    def is_there(self, diff_id: str) -> bool:
        """True if the layer needs no download."""
        return diff_id == EMPTY_DIFF_ID or self.tree(diff_id) is not None

    def paths(self, layers: Sequence[Layer]) -> List[str]:
        """Lower directories, lowest first. Raises BadImage where one is missing."""
        found: List[str] = []
        for number in range(len(layers) - 1, -1, -1):
            diff_id = layers[number].diff_id
            if diff_id == EMPTY_DIFF_ID:
                continue
            tree = self.tree(diff_id)
            if tree is None:
                raise BadImage(f"the layer {diff_id} is not in the store", "pull the image again")
            if tree.endswith(APART):
                found.append(self._merged([layer.diff_id for layer in layers[: number + 1]]))
                break
            found.append(tree)
        return found[::-1]

    def _merged(self, diff_ids: Sequence[str]) -> str:
        from .layers import Layers

        return Layers(self._own, self._all[1:]).merged(diff_ids)
