"""Validation of our access tokens: by signature, from the cache, and with the look at the database that follows.

Budget (issue 3): 20,000/s from the cache, 2,000/s with signature. ``python benchmarks/tokens.py`` prints a line each
and writes ``benchmarks/results/tokens.json``. One core, SQLite.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy.schema import CreateTable

from hansa.identity import store
from hansa.identity.access import access_claims, sign
from hansa.identity.keys import Keys
from hansa.identity.provider import desk as d
from hansa.identity.provider import store as provider_store
from hansa.identity.provider.service import ProviderService
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import metadata, open_database
from hansa.kernel.events import EventLog
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import IdentitySettings
from hansa.server import tables as _tables  # noqa: F401 - the whole schema

URL = "https://hansa.example.org"
TOKENS = 4_000
BUDGETS = {"signature": 2_000, "cache": 20_000}


async def measure(folder: Path) -> dict[str, float]:
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
            for _ in range(TOKENS)
        ]
        return {
            "signature": await rate(provider.validate, tokens, 1),
            "cache": await rate(provider.validate, tokens, 10),
            "cache_and_database": await rate(provider.authenticate, tokens, 2),
        }
    finally:
        await database.close()


async def rate(ask: Callable[[str], Awaitable[object]], tokens: list[str], rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        for token in tokens:
            assert await ask(token) is not None
    return rounds * len(tokens) / (time.perf_counter() - start)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder)))
    for name, value in found.items():
        budget = f"  budget {BUDGETS[name]:,}/s" if name in BUDGETS else ""
        print(f"{name:20} {value:10,.0f}/s{budget}")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "tokens.json").write_text(json.dumps({name: round(value) for name, value in found.items()}) + "\n")


if __name__ == "__main__":
    main()
