"""What the commands share: the repository, udocker's way of speaking, and its container ids."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from hansa.node.containers.context import Context
from hansa.node.containers.errors import ContainerNotFound
from hansa.node.containers.model import ContainerRecord
from hansa.node.containers.settings import store_root
from hansa.node.containers.store import Store

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Usage(Exception):
    """A command line that udocker would refuse."""


class Face:
    """One command line's surroundings."""

    def __init__(self, environ: Mapping[str, str], *, repo: str, is_insecure: bool, is_quiet: bool) -> None:
        root = repository(environ, repo)
        self.context = Context(environ, root=root, is_insecure=is_insecure, is_quiet=is_quiet)
        self.is_quiet = is_quiet

    @property
    def store(self) -> Store:
        return self.context.store

    def out(self, text: str) -> None:
        """A line that is there also when quiet."""
        sys.stdout.write(text + "\n")

    def info(self, text: str) -> None:
        """A line that quiet leaves out."""
        if not self.is_quiet:
            sys.stdout.write(text + "\n")

    def error(self, text: str) -> None:
        """A line that quiet does not leave out either."""
        sys.stderr.write(f"Error: {text}\n")

    def container(self, asked: str) -> ContainerRecord:
        """By name, or by id as we print it."""
        return self.store.find_container(asked.replace("-", "") if _UUID.fullmatch(asked) else asked)

    def has_container(self, asked: str) -> bool:
        """True for a known container."""
        try:
            self.container(asked)
        except ContainerNotFound:
            return False
        return True


def repository(environ: Mapping[str, str], repo: str) -> str:
    """``--repo=``, ``$UDOCKER_DIR``, or the store of ``hansa container``.

    In a directory that udocker itself uses, a part of our own: the two keep different things.
    """
    named = repo or environ.get("UDOCKER_DIR", "")
    if not named:
        return store_root(environ)
    root = os.path.abspath(named)  # noqa: PTH100 - as node/ does
    if repo and not os.path.isdir(root):  # noqa: PTH112
        raise Usage(f"invalid udocker repository: {repo}")
    return os.path.join(root, "hansa") if os.path.isdir(os.path.join(root, "repos")) else root  # noqa: PTH112, PTH118


def uuid_of(record: ContainerRecord) -> str:
    """The id in udocker's form."""
    digits = record.id
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def one(words: list[str], what: str) -> str:
    """The only word, or Usage."""
    if len(words) != 1:
        raise Usage(f"must specify {what}")
    return words[0]
