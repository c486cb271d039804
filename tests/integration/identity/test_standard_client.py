"""A client library that is not ours, in its usual steps: discovery, code with PKCE, id_token, userinfo, refresh."""

from __future__ import annotations

import httpx
import pytest
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.identity import Browser, Server

CALLBACK = "https://app.example.org/callback"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_authlibs_own_client(server: Server, ada: Browser, method: str) -> None:
    name = f"app-{method}"
    made = server.add_client(
        id=name, redirect_uris=[CALLBACK], confidential=method != "none", trusted=True, audiences=["site"]
    )
    found = httpx.get(f"{server.issuer}/.well-known/openid-configuration").json()
    with OAuth2Client(
        name,
        made.get("secret"),
        scope="openid profile offline_access",
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        token_endpoint=found["token_endpoint"],
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    ) as client:
        verifier = "v" * 50
        url, state = client.create_authorization_url(found["authorization_endpoint"], code_verifier=verifier, nonce="n")
        answer = ada.get(url)
        token = client.fetch_token(
            authorization_response=answer.headers["location"], state=state, code_verifier=verifier
        )
        server.seen(token)
        keys = KeySet.import_key_set(httpx.get(found["jwks_uri"]).json())
        claims = jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims
        jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": server.issuer},
            aud={"essential": True, "value": name},
            nonce={"essential": True, "value": "n"},
        ).validate(claims)
        assert client.get(found["userinfo_endpoint"]).json()["sub"] == claims["sub"]
        fresh = client.refresh_token(found["token_endpoint"], refresh_token=token["refresh_token"])
        assert fresh["access_token"] != token["access_token"]
        assert client.revoke_token(found["revocation_endpoint"], fresh["refresh_token"]).status_code == 200
        assert client.get(found["userinfo_endpoint"]).status_code == 401
