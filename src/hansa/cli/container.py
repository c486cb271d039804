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


def __getattr__(name: str) -> object:
    """``click_command``: for the help and the completion of ``hansa``, which run nothing."""
    if name != "click_command":
        raise AttributeError(name)
    import click

    from hansa.node.containers.commands import VERBS

    def command(verb: str, what: str) -> click.Command:
        settings = {"ignore_unknown_options": True}
        epilog = f"hansa container {verb} --help shows its options."

        @click.command(name=verb, help=what, epilog=epilog, context_settings=settings, add_help_option=False)
        @click.argument("words", nargs=-1, type=click.UNPROCESSED)
        def run(words: tuple[str, ...]) -> int:
            return main([verb, *words])

        return run

    commands = [command(verb, what) for verb, (_, _, what) in VERBS.items()]
    return click.Group("container", commands=commands, help="Run Docker and OCI images: no Docker, no root, no server.")
