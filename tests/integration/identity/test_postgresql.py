"""The provider of a federation: PostgreSQL, migrated from nothing."""

from __future__ import annotations

from pathlib import Path

from tests.support.identity import Server


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
    finally:
        server.close()
