"""Secrets: tokens are random and kept as hashes; private files are 0600 from the moment they exist."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path


def new_token(kind: str) -> str:
    """A bearer token with 256 random bits. ``kind`` makes a leaked one recognisable (``hansa_pilot_…``)."""
    return f"hansa_{kind}_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """What the database keeps of a token. The token is random, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_private(path: Path, text: str) -> None:
    """Write ``text`` atomically to a file that nobody else can ever read."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
