"""No secret lies about in clear: what every test's server leaves behind is searched when the test is over.

All secrets that Hansa makes have a form that is known: its own tokens, signed tokens, private keys. So are those found
that no test has thought of; what people type (passwords, credentials of sites) is looked for by its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_FORMS = re.compile(
    rb"hansa_[a-z]+_[A-Za-z0-9_-]{43}"
    rb"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_CHUNK, _OVERLAP = 32 << 20, 20_000


def in_clear(content: bytes, known: Iterable[str] = ()) -> list[str]:
    """What of ``content`` is a secret, by its form or because it is one of the ``known``: its beginnings. Pure."""
    found = [match.group()[:30].decode() for match in _FORMS.finditer(content)]
    return found + [secret[:20] for secret in known if len(secret) > 10 and secret.encode() in content]


def assert_none_in_clear(home: Path, known: Iterable[str] = ()) -> None:
    """Database and logs of a server's home, and what it said: no secret is in them."""
    master = home / "keys" / "master.key"
    secrets = {*known, *(master.read_text().split() if master.exists() else ())}
    for file in _files(home):
        for piece in _pieces(file):
            found = in_clear(piece, secrets)
            assert not found, f"in clear in {file}: {found[:5]}"


def _files(home: Path) -> Iterator[Path]:
    for place in (home / "db", home / "logs"):
        yield from (file for file in place.rglob("*") if file.is_file())
    said = home.parent / f"{home.name}.log"
    if said.exists():
        yield said


def _pieces(file: Path) -> Iterator[bytes]:
    """A file in pieces that overlap, so that none cuts a secret in two."""
    before = b""
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            yield before + piece
            before = piece[-_OVERLAP:]
