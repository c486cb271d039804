"""Every route asks the policy; none but the public ones answers without a token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from hansa.identity.http import permission_of
from hansa.identity.model import Caller
from hansa.identity.policy import POLICY, Permission, Rule, may_change, may_see, permits
from hansa.identity.provider.browser import Browser
from hansa.kernel.http import ANONYMOUS_LIMIT_BYTES, BodyLimit
from hansa.portal.frame import Portal
from hansa.server.app import create_app, is_upload

REALM = "/auth/realms/hansa"
PROTOCOL = f"{REALM}/protocol/openid-connect"

PUBLIC = {
    "/api/v1/image-lists/authority.pem",
    "/api/v1/image-lists/content/{version_id}",
    "/api/v1/image-lists/vo/{vo}",
    "/health",
    "/api/v1/health",
    f"{REALM}/.well-known/openid-configuration",
    f"{PROTOCOL}/certs",
    f"{PROTOCOL}/userinfo",  # its access token signs in
    f"{PROTOCOL}/auth",  # pages for browsers, with sessions and CSRF tokens of their own
    f"{PROTOCOL}/auth/decision",
    f"{PROTOCOL}/logout",
    f"{REALM}/login",
    f"{REALM}/account",
    f"{REALM}/device",
    f"{REALM}/welcome",
    f"{REALM}/join",
    f"{REALM}/renew",
    f"{REALM}/broker/{{issuer}}/login",  # to other issuers and back
    f"{REALM}/broker/{{issuer}}/endpoint",
    f"{REALM}/broker/{{issuer}}/link",
    f"{REALM}/broker/{{issuer}}/renew",
    f"{REALM}/static/hansa.css",
    "/api/v1/pilots/{pilot}/enrol",  # a ticket signs in, with a secret beside it
    "/sign-in",  # the portal: a code signs in
    "/assets/{version}/{name}",
}
PORTAL = {
    "/",
    "/search",
    "/components",
    "/live",
    "/sign-in",
    "/sign-out",
    "/look",
    "/assets/{version}/{name}",
}
"""Pages for browsers: they sign in by a session, and send who has none to the login."""
PORTAL_ROOMS = (
    "/jobs",
    "/machines",
    "/volumes",
    "/snapshots",
    "/images",
    "/sites",
    "/grants/act",
    "/vos",
    "/usage",
    "/admin",
)
BY_CLIENTS = {
    f"{PROTOCOL}/token",
    f"{PROTOCOL}/token/introspect",
    f"{PROTOCOL}/revoke",
    f"{PROTOCOL}/auth/device",
}
PAGES = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
"""FastAPI's own: they describe the API and hold nothing of anybody's."""

ADA = Caller("user_1", "ada")
OPERATOR = Caller("user_2", "ole", is_operator=True)
PILOT = Caller("user_1", "ada", pilot="pilot_1")


def all_routes() -> list[RouteContext]:
    return list(iter_route_contexts(create_app().routes))


def api_routes() -> list[RouteContext]:
    return [route for route in all_routes() if isinstance(route.original_route, APIRoute)]


def is_page(path: str) -> bool:
    return path in PORTAL or path.startswith(PORTAL_ROOMS)


def permissions(dependant: Dependant) -> Iterator[Permission]:
    permission = permission_of(dependant.call)
    if permission is not None:
        yield permission
    for inner in dependant.dependencies:
        yield from permissions(inner)


def test_there_is_nothing_but_api_routes_and_the_pages_of_the_description() -> None:
    others = [route for route in all_routes() if not isinstance(route.original_route, APIRoute)]
    assert {route.path for route in others} == PAGES


def test_every_route_declares_exactly_one_permission_of_the_policy() -> None:
    for route in api_routes():
        declared = list(permissions(route.dependant))
        assert len(declared) == 1, f"{route.methods} {route.path} declares {declared}"
        assert declared[0] in POLICY


def test_the_public_routes_are_the_expected_ones() -> None:
    public = {route.path for route in api_routes() if Permission.PUBLIC in permissions(route.dependant)}
    assert public == PUBLIC


def test_the_routes_that_clients_of_the_protocol_use_are_the_expected_ones() -> None:
    found = {route.path for route in api_routes() if Permission.CLIENT in permissions(route.dependant)}
    assert found == BY_CLIENTS


def test_every_permission_of_the_policy_is_used() -> None:
    used = {permission for route in api_routes() for permission in permissions(route.dependant)}
    assert used == set(POLICY) == set(Permission)


def test_everything_but_health_is_versioned() -> None:
    unversioned = {str(route.path) for route in api_routes() if not str(route.path).startswith("/api/v1/")}
    assert {path for path in unversioned if not is_page(path)} == {
        "/health",
        "/metrics",
    } | {path for path in PUBLIC | BY_CLIENTS if path.startswith(REALM)}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app()
    app.state.services = _Anything()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hansa") as opened:
        yield opened


class _Anything(dict[type, Any]):
    """Services that are nothing: a route that gets as far as using one has let the caller in."""

    def __missing__(self, key: type) -> Any:
        if key is Browser:
            return Browser("https://hansa.example.org", b"key")
        if key is Portal:
            return Portal(self[Browser])
        return object.__new__(key)


async def test_no_route_but_the_public_ones_answers_without_a_token(client: httpx.AsyncClient) -> None:
    for route in api_routes():
        if route.path in PUBLIC | BY_CLIENTS or is_page(str(route.path)):  # tests/integration/identity has those
            continue
        path = re.sub(r"{(\w+)(:path)?}", "1", str(route.path))
        for method in sorted(route.methods or ()):
            for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, f"{method} {path} answers {answer.status_code}"
                assert answer.json()["code"] == "identity.no_token"
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_no_page_but_the_public_ones_is_shown_without_a_session(client: httpx.AsyncClient) -> None:
    for route in api_routes():
        if route.path in PUBLIC or not is_page(str(route.path)):
            continue
        path = re.sub(r"{(\w+)(:path)?}", "1", str(route.path))
        for method in sorted(route.methods or ()):
            answer = await client.request(method, path)
            if path == "/live":
                assert answer.status_code == 401
                continue
            assert answer.status_code == 303, f"{method} {path} answers {answer.status_code}"
            assert answer.headers["location"].startswith(f"https://hansa.example.org{REALM}/login?next=%2F")


@pytest.mark.parametrize("permission", list(Permission))
def test_who_has_a_permission(permission: Permission) -> None:
    rule = POLICY[permission]
    everybody = (Rule.ANYBODY, Rule.CLIENT)  # the protocol itself looks at its clients
    assert permits(permission, None) is (rule in everybody)
    assert permits(permission, ADA) is (rule in (*everybody, Rule.USER))
    assert permits(permission, OPERATOR) is (rule in (*everybody, Rule.USER, Rule.OPERATOR))
    assert permits(permission, PILOT) is (rule in (*everybody, Rule.PILOT))


def test_things_are_private_to_their_owner() -> None:
    assert may_see(ADA, "user_1")
    assert may_change(ADA, "user_1")
    assert not may_see(OPERATOR, "user_1")
    assert not may_change(OPERATOR, "user_1")
    assert not may_see(PILOT, "user_1")
    assert not may_change(PILOT, "user_1")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/api/v1/files/sha256:00", True),
        ("/api/v1/pilots/pilot_1/files/sha256:00", True),
        ("/api/v1/files/missing", False),
        ("/api/v1/jobs", False),
        ("/api/v1/pilots/pilot_1/exchange", False),
    ],
)
def test_which_bodies_have_a_limit_of_their_own(path: str, is_one: bool) -> None:
    assert is_upload(path) is is_one


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [
        ({}, ANONYMOUS_LIMIT_BYTES + 1, 413),
        ({}, 10, 401),
        ({"Authorization": "Bearer x"}, 1_000_001, 413),
    ],
)
async def test_a_body_is_bounded_before_anybody_asks_who_sends_it(
    headers: dict[str, str], size: int, status: int
) -> None:
    app = create_app()
    app.state.services = _Anything()
    bounded = BodyLimit(app, 1_000_000, is_upload)
    transport = httpx.ASGITransport(bounded, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hansa") as opened:
        body = '{"tasks":[' + " " * (size - 12) + "]}" if size > 12 else "{}"
        answer = await opened.post("/api/v1/jobs/1/kill", content=body, headers=headers)
    assert answer.status_code == status
