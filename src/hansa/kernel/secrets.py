"""Secrets: tokens are random and kept as hashes; private files are 0600 from the moment they exist.

What must be read again (private keys, credentials) is sealed by a :class:`Vault`: envelope encryption, where each
secret has a data key of its own, and only data keys are encrypted with the master key. The master key is a 0600 file
or comes from the environment, never from the database.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from hansa.kernel import errors

MASTER_KEY_VARIABLE = "HANSA_MASTER_KEY"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = "hv1"


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


def new_master_key() -> str:
    """A master key as it is written to a file or into the environment: 256 random bits in base64url."""
    return _encode(secrets.token_bytes(_KEY_BYTES))


def read_master_keys(file: Path, environ: Mapping[str, str]) -> list[bytes]:
    """The master keys, the current one first: of ``HANSA_MASTER_KEY`` (comma between several), else one per line.

    Raises Fault ``kernel.master_key`` where there is none, where it is no key, or where others can read the file.
    """
    if given := environ.get(MASTER_KEY_VARIABLE):
        return _parse_master_keys(given.split(","), MASTER_KEY_VARIABLE)
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise errors.Fault(errors.MASTER_KEY, f"Others can read {file}.", hint=f"chmod 600 {file}")
        return _parse_master_keys(file.read_text(encoding="ascii").split(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise errors.Fault(
            errors.MASTER_KEY, f"{file} cannot be read: {error}.", hint=f"Restore it, or set {MASTER_KEY_VARIABLE}."
        ) from error


def _parse_master_keys(words: Sequence[str], source: str) -> list[bytes]:
    try:
        keys = [_decode(word.strip()) for word in words if word.strip()]
    except (binascii.Error, ValueError):
        keys = []
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise errors.Fault(errors.MASTER_KEY, f"{source} holds no master key: 32 bytes in base64url are expected.")
    return keys


class Vault:
    """Seals and opens secrets. ``context`` names what a secret is for; opened for anything else it fails.

    The first master key seals; all of them open, so that a rotation can go on while the server works.
    """

    def __init__(self, master_keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): key for key in master_keys}
        self._current = _key_id(master_keys[0])

    def seal(self, plain: bytes, context: str) -> str:
        """Text that only :meth:`open` with the same context can read."""
        data_key = secrets.token_bytes(_KEY_BYTES)
        wrapped = _encrypt(self._keys[self._current], data_key, f"key:{context}")
        return ".".join((_FORMAT, self._current, wrapped, _encrypt(data_key, plain, context)))

    def open(self, sealed: str, context: str) -> bytes:
        """What was sealed. Raises Fault ``kernel.sealed``."""
        key_id, wrapped, content = self._parts(sealed)
        return _decrypt(_decrypt(self._master(key_id), wrapped, f"key:{context}"), content, context)

    def rewrap(self, sealed: str, context: str) -> str:
        """The same secret under the current master key; its content is not even decrypted."""
        key_id, wrapped, content = self._parts(sealed)
        data_key = _decrypt(self._master(key_id), wrapped, f"key:{context}")
        return ".".join(
            (_FORMAT, self._current, _encrypt(self._keys[self._current], data_key, f"key:{context}"), content)
        )

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, the same at every server that has this master key."""
        return hmac.digest(self._keys[self._current], b"hansa " + purpose.encode(), "sha256")

    def _master(self, key_id: str) -> bytes:
        try:
            return self._keys[key_id]
        except KeyError:
            raise errors.Fault(
                errors.SEALED,
                f"A secret was sealed with the master key {key_id}, which this server does not have.",
                hint="Give it the key (keys/master.key, or HANSA_MASTER_KEY); a backup of HANSA_HOME has it.",
            ) from None

    def _parts(self, sealed: str) -> tuple[str, str, str]:
        parts = sealed.split(".")
        if len(parts) != 4 or parts[0] != _FORMAT:
            raise errors.Fault(errors.SEALED, "A sealed secret is damaged.")
        return parts[1], parts[2], parts[3]


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"hansa master key" + key).hexdigest()[:12]


def _encrypt(key: bytes, plain: bytes, context: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # not where nothing is sealed: a slow import

    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _encode(nonce + AESGCM(key).encrypt(nonce, plain, context.encode()))


def _decrypt(key: bytes, sealed: str, context: str) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = _decode(sealed)
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise errors.Fault(errors.SEALED, "A sealed secret is damaged, or was meant for something else.") from error


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
