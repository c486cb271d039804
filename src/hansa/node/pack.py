"""The zipapp that workers run, built from this package's own sources."""

from __future__ import annotations

import hashlib
import io
import zipfile
from importlib import resources
from typing import Any, Iterator, List, Tuple

_MAIN = b"import sys\n\nfrom hansa.node.__main__ import main\n\nsys.exit(main())\n"
_EMPTY_PACKAGE = b'"""Hansa on a worker node."""\n'
_DATE = (2020, 1, 1, 0, 0, 0)
_LEFT_OUT = ("bootstrap.py", "enrol.py", "pack.py")


def build_node_zipapp() -> bytes:
    """The bytes of ``node.pyz``: the same sources give the same bytes on any machine."""
    stream = io.BytesIO()
    stream.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in _members():
            info = zipfile.ZipInfo(name, date_time=_DATE)
            info.compress_type = zipfile.ZIP_STORED  # the result of deflate differs between versions of zlib
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return stream.getvalue()


def node_digest(zipapp: bytes) -> str:
    """What goes into the configuration's ``node_digest``, which the bootstrap checks."""
    return "sha256:" + hashlib.sha256(zipapp).hexdigest()


def bootstrap_source() -> str:
    """The text of ``bootstrap.py``."""
    return (resources.files(__package__ or "hansa.node") / "bootstrap.py").read_text("utf-8")


def _members() -> List[Tuple[str, bytes]]:
    package = __package__ or "hansa.node"
    members = [("__main__.py", _MAIN), ("hansa/__init__.py", _EMPTY_PACKAGE)]
    members.extend(_sources(resources.files(package), "hansa/node"))
    return sorted(members)


def _sources(directory: Any, path: str) -> Iterator[Tuple[str, bytes]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py") and entry.name not in _LEFT_OUT:
            yield f"{path}/{entry.name}", entry.read_bytes()
