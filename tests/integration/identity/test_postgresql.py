"""The provider of a federation: PostgreSQL, migrated from nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa

from hansa.kernel.database import open_database
from tests.support.clear import in_clear
from tests.support.identity import Server


async def content_of(url: str) -> bytes:
    """Every row of every table, as text."""
    database = await open_database(url)
    try:
        async with database.read() as tx:
            tables = sa.text("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            rows = [
                row
                for name in (await tx.execute(tables)).scalars().all()
                for row in (await tx.execute(sa.text(f"SELECT t::text FROM {name} t"))).scalars()
            ]
    finally:
        await database.close()
    assert len(rows) > 20
    return "\n".join(rows).encode()


def test_sign_in_on_postgresql(tmp_path: Path, postgres_database: str) -> None:
    environ = {"HANSA_DATABASE__URL": postgres_database, "HANSA_ALLOW_ROOT": "1"}
    server = Server(tmp_path / "home", environ).start()
    try:
        ada = server.account("ada")
        server.operator().post("/vos", json={"name": "vo.a", "manager": "ada"})
        tokens = ada.tokens(scope="openid offline_access entitlements hansa")
        assert server.api(tokens["access_token"]).get("/whoami").json()["vos"] == ["vo.a"]
        fields = {"grant_type": "refresh_token", "client_id": "hansa-cli", "refresh_token": tokens["refresh_token"]}
        assert server.token(**fields).status_code == 200
        assert server.token(**fields).json()["error"] == "invalid_grant"
        assert server.whoami(tokens["access_token"]) == 401
        content = asyncio.run(content_of(postgres_database))
        assert b"ada" in content
        assert not in_clear(content, server.secrets)
    finally:
        server.close()
