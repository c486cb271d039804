"""The protocol's routes, for programs: OpenID Connect, at the paths that Keycloak has."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from hansa.identity.http import client_authenticated, public
from hansa.identity.provider.browser import read_form
from hansa.identity.provider.service import PROTOCOL, REALM, ProviderService
from hansa.kernel.http import provided

router = APIRouter(include_in_schema=False)
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
_PUBLIC_CACHE = {"Cache-Control": "public, max-age=60", "Access-Control-Allow-Origin": "*"}


@router.get(f"{REALM}/.well-known/openid-configuration", dependencies=[public()])
async def discovery(provider: Provider) -> Response:
    """Where everything is."""
    return JSONResponse(provider.discovery(), headers=_PUBLIC_CACHE)


@router.get(f"{PROTOCOL}/certs", dependencies=[public()])
async def certs(provider: Provider) -> Response:
    """The public keys."""
    return JSONResponse(await provider.jwks(), headers=_PUBLIC_CACHE)


@router.post(f"{PROTOCOL}/token", dependencies=[client_authenticated()])
async def token(request: Request, provider: Provider) -> Response:
    """Tokens for a code, a device, a refresh token or an access token."""
    return _response(await provider.token(await read_form(request), request.headers))


@router.post(f"{PROTOCOL}/auth/device", dependencies=[client_authenticated()])
async def device(request: Request, provider: Provider) -> Response:
    """Codes for a device."""
    return _response(await provider.endpoint("device_authorization", await read_form(request), request.headers))


@router.post(f"{PROTOCOL}/token/introspect", dependencies=[client_authenticated()])
async def introspect(request: Request, provider: Provider) -> Response:
    """What a token is good for."""
    return _response(await provider.endpoint("introspection", await read_form(request), request.headers))


@router.post(f"{PROTOCOL}/revoke", dependencies=[client_authenticated()])
async def revoke(request: Request, provider: Provider) -> Response:
    """End a token."""
    return _response(await provider.endpoint("revocation", await read_form(request), request.headers))


@router.api_route(f"{PROTOCOL}/userinfo", methods=["GET", "POST"], dependencies=[public()])
async def userinfo(request: Request, provider: Provider) -> Response:
    """What an access token's scopes say of its user. The token signs in."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    claims = await provider.userinfo(value.strip()) if scheme.lower() == "bearer" else None
    if claims is None:
        return JSONResponse(
            {"error": "invalid_token"}, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"', **_NO_STORE}
        )
    return JSONResponse(claims, headers=_NO_STORE)


_NO_STORE = {"Cache-Control": "no-store"}


def _response(answer: Any) -> Response:
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-type"}
    body = dict(answer.body) if not isinstance(answer.body, dict) else answer.body
    return JSONResponse(body, answer.status, {**headers, **_NO_STORE})
