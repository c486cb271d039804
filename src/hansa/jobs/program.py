"""The program that runs on nodes, as the server hands it out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from hansa.node.pack import build_node_zipapp


@dataclass(frozen=True)
class NodeProgram:
    """``node.pyz`` and the text that fetches and checks it."""

    zipapp: bytes
    bootstrap: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.zipapp).hexdigest()}"


def build_node_program() -> NodeProgram:
    """Made from the sources of this very distribution; the same bytes every time."""
    bootstrap = resources.files("hansa.node").joinpath("bootstrap.py").read_bytes()
    return NodeProgram(build_node_zipapp(), bootstrap)
