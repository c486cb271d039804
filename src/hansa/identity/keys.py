"""The keys that sign our tokens: made when first needed, sealed in the database, rotated when told.

A retired key signs nothing more, but stays published until the last token that it signed has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from hansa.identity import store
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.secrets import Vault, new_token, token_hash

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

ALGORITHM = "RS256"
"""What every OpenID client has to support (OpenID Connect Core 1.0, section 15.1)."""
_BITS = 2048
_MARGIN = timedelta(minutes=5)
_LOOK_AGAIN = timedelta(seconds=10)


@dataclass(frozen=True)
class SigningKey:
    """A key; ``retired``: since when it signs nothing more."""

    id: str
    key: RSAKey
    public: Mapping[str, Any]
    created: datetime
    retired: datetime | None


@dataclass(frozen=True)
class KeyRing:
    """All keys that some valid token may have been signed with, the newest first."""

    keys: Sequence[SigningKey]

    @property
    def signer(self) -> SigningKey | None:
        return next((key for key in self.keys if key.retired is None), None)

    def find(self, key_id: object) -> SigningKey | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def jwks(self) -> dict[str, Any]:
        """The public halves (RFC 7517)."""
        return {"keys": [dict(key.public) for key in self.keys]}


def still_published(retired: datetime | None, now: datetime, token_s: int) -> bool:
    """Whether a token signed by this key may still be valid."""
    return retired is None or now < retired + timedelta(seconds=token_s) + _MARGIN


class Keys:
    """Reads the ring, makes and rotates keys. The ring is kept in memory and read again when that may help."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, vault: Vault, token_s: int) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._vault = vault
        self._token_s = token_s
        self._ring: KeyRing | None = None
        self._read_at: datetime | None = None
        self._making = asyncio.Lock()

    async def ring(self, wanted: object = None) -> KeyRing:
        """The ring; read again where it lacks the key ``wanted``, or is older than ten seconds.

        Keys that nobody knows are asked for at most once a second, so that forged ones cost us nothing.
        """
        now = self._clock.now()
        if self._ring is None or self._read_at is None or now - self._read_at > _LOOK_AGAIN:
            return await self._read(now)
        if wanted is not None and self._ring.find(wanted) is None and now - self._read_at > timedelta(seconds=1):
            return await self._read(now)
        return self._ring

    async def signing_ring(self) -> KeyRing:
        """The ring, with a key to sign with: the first is made here."""
        ring = await self.ring()
        if ring.signer is not None:
            return ring
        async with self._making:
            if (await self._read(self._clock.now())).signer is None:
                await self.rotate("hansa", is_first=True)
        return await self._read(self._clock.now())

    async def rotate(self, actor: str, *, is_first: bool = False) -> str:
        """Make a new key and sign with it from now on; the id of the new key."""
        key_id, public, private = await asyncio.to_thread(_generate)
        now = self._clock.now()
        async with self._database.begin() as tx:
            await store.lock_keys(tx)
            rows = await store.list_keys(tx)
            if is_first and any(row.retired is None for row in rows):
                return next(str(row.id) for row in rows if row.retired is None)  # another server was first
            await store.retire_keys(tx, now)
            await store.delete_keys(tx, now - timedelta(seconds=self._token_s) - _MARGIN)
            sealed = self._vault.seal(private, f"signing_key/{key_id}")
            await store.insert_key(tx, id=key_id, public=public, private=sealed, created=now, retired=None)
            message = f"Tokens are signed with the key {key_id}; those of earlier keys stay valid until they expire."
            await self._events.record(tx, Event(actor, f"key/{key_id}", "active", "identity.key_rotated", message))
        await self._read(now)
        return key_id

    async def _read(self, now: datetime) -> KeyRing:
        async with self._database.read() as tx:
            rows = await store.list_keys(tx)
        known = {key.id: key for key in self._ring.keys} if self._ring else {}
        ring = [
            SigningKey(
                row.id, known[row.id].key if row.id in known else self._open(row), row.public, row.created, row.retired
            )
            for row in rows
            if still_published(row.retired, now, self._token_s)
        ]
        self._ring, self._read_at = KeyRing(ring), now
        return self._ring

    def _open(self, row: Any) -> RSAKey:
        from joserfc.jwk import RSAKey

        return RSAKey.import_key(self._vault.open(row.private, f"signing_key/{row.id}"), {"kid": row.id})


def _generate() -> tuple[str, dict[str, Any], bytes]:
    from joserfc.jwk import RSAKey

    key_id = token_hash(new_token("key"))[:16]
    key = RSAKey.generate_key(_BITS, {"kid": key_id, "use": "sig", "alg": ALGORITHM}, private=True)
    return key_id, dict(key.as_dict(private=False)), key.as_pem(private=True)


async def rewrap_keys(tx: Tx, vault: Vault) -> int:
    """Put every private key under the current master key; the number of keys."""
    rows = await store.list_keys(tx)
    for row in rows:
        await store.update_key(tx, row.id, vault.rewrap(row.private, f"signing_key/{row.id}"))
    return len(rows)
