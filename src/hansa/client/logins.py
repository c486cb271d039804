"""Stored sign-ins: a 0600 file per server below the user's config; the refresh token in the keyring where one works.

The access token, good for an hour at most, is always in the file: reading a keyring takes longer than a small command.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hansa.client.connect import config_folder
from hansa.client.errors import NO_LOGIN, HansaError
from hansa.kernel.secrets import write_private

MARGIN_S = 60.0
_SERVICE = "hansa"


@dataclass(frozen=True)
class Stored:
    """What is kept of a sign-in. ``refresh_token`` None: it is in the keyring."""

    url: str
    token_endpoint: str
    revocation_endpoint: str
    access_token: str
    expires: float  # seconds since 1970
    refresh_token: str | None = None
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"Stored({self.url!r})"


class Login:
    """One sign-in, which keeps itself fresh. Several processes may use it at once: only one of them refreshes."""

    def __init__(self, file: Path, stored: Stored) -> None:
        self._file = file
        self._stored = stored

    def __repr__(self) -> str:
        return f"Login({self._stored.url!r})"

    @property
    def url(self) -> str:
        return self._stored.url

    @property
    def token_endpoint(self) -> str:
        return self._stored.token_endpoint

    @property
    def ca_file(self) -> str | None:
        return self._stored.ca_file

    def token(self) -> str:
        """An access token that is good for another minute. Raises HansaError ``client.no_login``."""
        if not self._is_stale(self._stored):
            return self._stored.access_token
        with _locked(self._file):
            current = _read(self._file)
            if current is None:
                raise _over(self.url)
            self._stored = current if not self._is_stale(current) else self._refresh(current)
        return self._stored.access_token

    def end(self) -> None:
        """Forget it here, and tell the server if it answers."""
        from hansa.client import oidc

        with _locked(self._file):
            current = _read(self._file) or self._stored
            token = current.refresh_token or _from_keyring(current.url)
            self._file.unlink(missing_ok=True)
            if current.refresh_token is None:
                _drop_from_keyring(current.url)
            if token:
                try:
                    oidc.revoke(current.revocation_endpoint, token, current.ca_file)
                except HansaError:
                    return  # it is forgotten here, and lapses there
        pointer = self._file.parent / "current"
        if pointer.is_file() and pointer.read_text(encoding="utf-8").strip() == self.url:
            pointer.unlink()

    def _is_stale(self, stored: Stored) -> bool:
        return time.time() > stored.expires - MARGIN_S

    def _refresh(self, stored: Stored) -> Stored:
        from hansa.client import oidc

        token = stored.refresh_token or _from_keyring(stored.url)
        if not token:
            raise _over(stored.url)
        try:
            fresh = oidc.refresh(stored.token_endpoint, token, stored.ca_file)
        except oidc.Refused as error:
            raise _over(stored.url) from error
        kept = replace(stored, access_token=fresh.access, expires=fresh.expires)
        if fresh.refresh:
            kept = _keep_refresh(kept, fresh.refresh, in_keyring=stored.refresh_token is None)
        _write(self._file, kept)
        return kept


def find(url: str, environ: Mapping[str, str]) -> Login | None:
    """The stored sign-in at a server."""
    file = _file_of(url, environ)
    stored = _read(file)
    return Login(file, stored) if stored is not None and stored.url == url else None


def save(stored: Stored, refresh_token: str, environ: Mapping[str, str]) -> str:
    """Keep a new sign-in, and make its server the one that commands go to; where the secret is, in words."""
    file = _file_of(stored.url, environ)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.parent.chmod(0o700)
    with _locked(file):
        kept = _keep_refresh(stored, refresh_token, in_keyring=environ.get("HANSA_KEYRING") != "0")
        _write(file, kept)
    write_private(file.parent / "current", stored.url + "\n")
    return "the system's keyring" if kept.refresh_token is None else str(file)


def _keep_refresh(stored: Stored, token: str, *, in_keyring: bool) -> Stored:
    if in_keyring and _into_keyring(stored.url, token):
        return replace(stored, refresh_token=None)
    return replace(stored, refresh_token=token)


def _file_of(url: str, environ: Mapping[str, str]) -> Path:
    host = re.sub(r"[^a-z0-9.-]", "_", (urlsplit(url).hostname or "server").lower())
    return config_folder(environ) / "logins" / f"{host}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.json"


def _read(file: Path) -> Stored | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Stored(**found)
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, stored: Stored) -> None:
    write_private(file, json.dumps(asdict(stored)))


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _over(url: str) -> HansaError:
    return HansaError(NO_LOGIN, f"The sign-in at {url} has ended.", hint=f"Sign in again: hansa login {url}")


# The keyring: whatever goes wrong in a desktop's keyring, the file is there.


def _into_keyring(url: str, token: str) -> bool:
    try:
        import keyring
        from keyring.backends import fail, null

        if isinstance(keyring.get_keyring(), fail.Keyring | null.Keyring):
            return False
        keyring.set_password(_SERVICE, url, token)
        return keyring.get_password(_SERVICE, url) == token
    except Exception:  # noqa: BLE001 - backends raise what they like
        return False


def _from_keyring(url: str) -> str | None:
    try:
        import keyring

        return keyring.get_password(_SERVICE, url)
    except Exception:  # noqa: BLE001
        return None


def _drop_from_keyring(url: str) -> None:
    try:
        import keyring

        keyring.delete_password(_SERVICE, url)
    except Exception:  # noqa: BLE001, S110 - it was not there
        pass
