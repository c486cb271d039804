"""Validation of access tokens, ours and those of another issuer: by signature, from the cache, and with the look at the
database that follows. Budgets: 20,000/s from the cache, 2,000/s with signature. One core, SQLite.

The other issuer is asked about each token once (introspection); here it answers at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from sqlalchemy.schema import CreateTable

from benchmarks.harness import Better, Row, rounded
from hansa.identity import store
from hansa.identity.access import access_claims, sign
from hansa.identity.keys import Keys
from hansa.identity.provider import desk as d
from hansa.identity.provider import store as provider_store
from hansa.identity.provider.service import ProviderService
from hansa.identity.upstream.bearer import BearerService
from hansa.identity.upstream.issuers import Issuer, read_issuers
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Remote
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import Database, metadata, open_database
from hansa.kernel.events import EventLog
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import IdentitySettings, IssuerSettings
from hansa.server import tables as _tables  # noqa: F401 - the whole schema

URL = "https://hansa.example.org"
TOKENS = 4_000
UP = "https://up.example.org"
BUDGETS = {"signature": 2_000.0, "cache": 20_000.0}


class FakeRemote(Remote):
    """An issuer next door: its keys are known, and it vouches for every token at once."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(clock, 900)
        self.key = RSAKey.generate_key(2048, {"kid": "up", "use": "sig", "alg": "RS256"}, private=True)
        self.set = KeySet([RSAKey.import_key(self.key.as_dict(private=False))])

    async def keys(self, issuer: Issuer, key_id: object) -> KeySet:
        return self.set

    async def introspect(self, issuer: Issuer, token: str) -> dict[str, Any] | None:
        return {"active": True}


async def measure(folder: Path, many: int) -> dict[str, float]:
    """Validations per second, by way."""
    clock, settings = SystemClock(), IdentitySettings()
    database = await open_database(f"sqlite:///{folder}/tokens.db")
    try:
        async with database.begin() as tx:
            for table in metadata.sorted_tables:
                await tx.execute(CreateTable(table))
        events = EventLog(database, clock)
        keys = Keys(database, events, clock, Vault([b"k" * 32]), settings.access_token_s)
        provider = ProviderService(database, events, clock, URL, keys, settings)
        signer = (await keys.signing_ring()).signer
        assert signer is not None
        now = clock.now()
        async with database.begin() as tx:
            row = {"issuer": URL, "sub": "ada", "name": "ada", "operator": False, "suspended": False}
            await store.insert_user(tx, id="u", created=now, **row)
            grant = d.Grant("g", "u", "hansa-cli", "openid hansa", now, now, now + timedelta(hours=1))
            await provider_store.apply(tx, [d.SaveGrant(grant)], now)
        tokens = [
            sign(
                access_claims(
                    issuer=provider.issuer,
                    user_id="u",
                    client_id="hansa-cli",
                    audience=[URL],
                    scope="openid hansa",
                    grant_id="g",
                    now=now,
                    expires=now + timedelta(hours=1),
                    more={"entitlements": [f"urn:mace:hansa:group:vo{n}.example.org:role=member#h" for n in range(10)]},
                ),
                signer,
                "at+jwt",
            )
            for _ in range(many)
        ]
        ours = {
            "signature": await rate(provider.validate, tokens, 1),
            "cache": await rate(provider.validate, tokens, 10),
            "cache_and_database": await rate(provider.authenticate, tokens, 2),
        }
        return ours | await measure_foreign(database, events, clock, many)
    finally:
        await database.close()


async def measure_foreign(database: Database, events: EventLog, clock: SystemClock, many: int) -> dict[str, float]:
    """The same of tokens of an issuer that is trusted by configuration."""
    settings = IssuerSettings(name="up", url=UP, client_id="hansa", preset="egi-check-in", audiences=(URL,))
    issuers, remote = read_issuers((settings,), URL), FakeRemote(clock)
    issuer = issuers.of_url(UP)
    assert issuer is not None
    bearer = BearerService(database, clock, issuers, remote, People(events, clock), 60, 900)
    now = int(clock.now().timestamp())
    held = [f"urn:mace:egi.eu:group:vo{n}.example.org:role=member#aai.egi.eu" for n in range(10)]
    tokens = []
    for number in range(many):
        claims = {"iss": UP, "sub": "maria", "aud": URL, "iat": now, "nbf": now, "exp": now + 3600, "jti": str(number)}
        more = {"client_id": "tool", "scope": "openid", "eduperson_entitlement": held}
        tokens.append(jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": "up"}, claims | more, remote.key))

    async def validate(token: str) -> object:
        return await bearer.validate(token, issuer)

    async def authenticate(token: str) -> object:
        return await bearer.authenticate(token, issuer)

    await authenticate(tokens[0])  # the account is made when its first token comes
    return {
        "foreign_signature": await rate(validate, tokens, 1),
        "foreign_cache": await rate(validate, tokens, 10),
        "foreign_cache_and_database": await rate(authenticate, tokens, 2),
    }


async def rate(ask: Callable[[str], Awaitable[object]], tokens: list[str], rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        for token in tokens:
            assert await ask(token) is not None
    return rounds * len(tokens) / (time.perf_counter() - start)


def run(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), 200 if quick else TOKENS))
    rows = []
    for name, value in found.items():
        whose = "another issuer's" if name.startswith("foreign_") else "our own"
        way = name.removeprefix("foreign_")
        work = f"validate {whose} access tokens: {way.replace('_', ' ')}"
        rows.append(Row(work, "/s", Better.HIGHER, rounded(value), {}, BUDGETS.get(way)))
    return rows
