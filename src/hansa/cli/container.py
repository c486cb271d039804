"""``hansa container …``: the node's own commands, offline, without anything that is slow to import."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.node.containers.commands import main as node_main


def main(words: Sequence[str]) -> int:
    """Run a container command; returns its exit code."""
    return node_main(words, "hansa container")
