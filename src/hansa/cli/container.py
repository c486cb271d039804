"""``hansa container …``: the node's own commands, offline, without anything that is slow to import."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(words: Sequence[str]) -> int:
    """Run a container command; returns its exit code."""
    from hansa.node.containers.commands import main as node_main

    return node_main(words, "hansa container")


def start(words: Sequence[str]) -> NoReturn:
    """Run a container command as the whole program."""
    from hansa.node.containers.commands import start as node_start

    node_start(words, "hansa container")
