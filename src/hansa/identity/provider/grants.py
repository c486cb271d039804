"""The grants, on Authlib's: each says only what is ours. They read the desk and add to its effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from authlib.oauth2.rfc6749 import BaseGrant, TokenEndpointMixin
from authlib.oauth2.rfc6749.errors import (
    AccessDeniedError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from authlib.oidc.core import OpenIDCode

from hansa.identity.model import Subject
from hansa.identity.provider import desk as d
from hansa.identity.provider.clients import EXCHANGE, Client
from hansa.kernel.secrets import new_token, token_hash

METHODS = ["client_secret_basic", "client_secret_post", "none"]
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name, RFC 8693
_SLOW_DOWN_S = 5


class InvalidTargetError(OAuth2Error):  # type: ignore[misc, unused-ignore]
    """RFC 8693, 2.2.2: the audience cannot be had."""

    error = "invalid_target"


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc, unused-ignore]
    """Codes are kept as hashes, for a minute. A code that comes twice ends what it was redeemed for."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def generate_authorization_code(self) -> str:
        return new_token("code")

    def save_authorization_code(self, code: str, request: Any) -> None:
        desk: d.Desk = self.server.desk
        data = request.payload.data
        desk.effects.append(
            d.SaveCode(
                d.Code(
                    hash=token_hash(code),
                    client_id=request.client.id,
                    user_id=request.user.user_id,
                    redirect_uri=request.payload.redirect_uri,
                    scope=request.scope,
                    nonce=data.get("nonce"),
                    code_challenge=data.get("code_challenge"),
                    code_challenge_method=data.get("code_challenge_method"),
                    auth_time=desk.auth_time or desk.now,
                    session=desk.session,
                    expires=desk.now + desk.lifetimes.code,
                )
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> d.Code | None:  # noqa: ARG002 - Authlib's
        desk: d.Desk = self.server.desk
        found = desk.code
        if found is None or found.client_id != client.id:
            return None
        if found.grant_id is not None:
            desk.effects.append(d.RevokeGrant(found.grant_id, found.user_id, "identity.code_reused"))
            return None
        return found if desk.now < found.expires else None

    def delete_authorization_code(self, authorization_code: d.Code) -> None:
        """Redeemed in :meth:`authenticate_user`: the code stays until it expires, to recognise its reuse."""

    def authenticate_user(self, authorization_code: d.Code) -> Subject | None:
        desk: d.Desk = self.server.desk
        if not desk.subject_is_active:
            return None
        grant = self.server.new_grant(
            authorization_code.scope, authorization_code.auth_time, authorization_code.session
        )
        desk.effects.append(d.RedeemCode(authorization_code.hash, grant))
        return desk.subject


class Pkce(CodeChallenge):  # type: ignore[misc, unused-ignore]
    """S256 only (RFC 9700, 2.1.1): required of public clients, honoured from all."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        super().validate_code_challenge(grant, redirect_uri)
        data = grant.request.payload.data
        has_challenge = bool(data.get("code_challenge"))
        if not has_challenge and grant.request.client.is_public:
            raise InvalidRequestError("Missing 'code_challenge'")
        if has_challenge and data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("Unsupported 'code_challenge_method'")


class IdTokens(OpenIDCode):  # type: ignore[misc, unused-ignore]
    """An id_token with every answer whose scope has openid, whatever the grant."""

    def exists_nonce(self, nonce: str, request: Any) -> bool:  # noqa: ARG002 - codes are single-use anyway
        return False

    def encode_id_token(self, token: dict[str, Any], request: Any) -> str:
        nonce = request.authorization_code.nonce if request.authorization_code else None
        signed: str = request.server.id_token(token, request.user, nonce)
        return signed

    def process_token(self, grant: Any, response: Any) -> Any:
        grant.request.server = grant.server
        return super().process_token(grant, response)


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc, unused-ignore]
    """Every refresh gives a new refresh token. One that comes twice was stolen by somebody: its family ends."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> d.Refresh | None:  # noqa: ARG002 - it is on the desk
        desk: d.Desk = self.server.desk
        found = desk.refresh
        if found is None or found.grant.client_id != self.request.client.id:
            return None
        if found.used is not None and found.grant.revoked is None:
            desk.effects.append(d.RevokeGrant(found.grant.id, found.grant.user_id, "identity.refresh_reused"))
        return found if desk.refresh_is_live else None

    def authenticate_user(self, refresh_token: d.Refresh) -> Subject | None:
        self.server.grant = refresh_token.grant
        subject: Subject | None = self.server.desk.subject
        return subject

    def revoke_old_credential(self, refresh_token: d.Refresh) -> None:
        desk: d.Desk = self.server.desk
        expires = refresh_token.grant.expires
        if refresh_token.grant.is_offline:
            expires = desk.now + desk.lifetimes.offline
        desk.effects.append(d.UseRefresh(refresh_token.hash, refresh_token.grant.id, expires))


class DeviceGrant(DeviceCodeGrant):  # type: ignore[misc, unused-ignore]
    """The device asks until its user has said yes; once."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def query_device_credential(self, device_code: str) -> Any:  # noqa: ARG002 - it is on the desk
        desk: d.Desk = self.server.desk
        if desk.device is None or desk.device.used:
            raise InvalidGrantError("Invalid 'device_code' in request.")
        return _Expiring(desk.device, is_over=desk.now >= desk.device.expires)

    def query_user_grant(self, user_code: str) -> tuple[Subject, bool] | None:  # noqa: ARG002
        desk: d.Desk = self.server.desk
        device = desk.device
        if device is None or device.approved is None:
            return None
        if not device.approved or not desk.subject_is_active or desk.subject is None:
            desk.effects.append(d.UseDevice(device.hash))
            raise AccessDeniedError
        desk.effects.append(d.UseDevice(device.hash))
        grant = self.server.new_grant(device.scope, device.auth_time or desk.now, None)
        desk.effects.append(d.SaveGrant(grant))
        return desk.subject, True

    def should_slow_down(self, credential: Any) -> bool:  # noqa: ARG002
        desk: d.Desk = self.server.desk
        device = desk.device
        if device is None:
            return False
        is_early = (
            device.last_poll is not None and (desk.now - device.last_poll).total_seconds() < device.interval_s - 0.5
        )
        desk.effects.append(d.Polled(device.hash, device.interval_s + (_SLOW_DOWN_S if is_early else 0)))
        return is_early


class _Expiring:
    """A device as Authlib asks it: whether it is over is a question of our clock."""

    def __init__(self, device: d.Device, *, is_over: bool) -> None:
        self._device = device
        self._is_over = is_over

    def is_expired(self) -> bool:
        return self._is_over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)


class DeviceEndpoint(DeviceAuthorizationEndpoint):  # type: ignore[misc, unused-ignore]
    """Gives out device codes and user codes (RFC 8628)."""

    CLIENT_AUTH_METHODS = METHODS

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        lifetimes: d.Lifetimes = server.desk.lifetimes
        self.EXPIRES_IN = int(lifetimes.device.total_seconds())
        self.INTERVAL = lifetimes.device_interval_s

    def generate_device_code(self) -> str:
        return new_token("device")

    def get_verification_uri(self) -> str:
        return f"{self.server.desk.issuer}/device"

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        desk: d.Desk = self.server.desk
        client = desk.client
        allowed = client.get_allowed_scope(scope) if client else ""
        device = d.Device(
            hash=token_hash(data["device_code"]),
            user_code=data["user_code"],
            client_id=client_id,
            scope=allowed,
            expires=desk.now + desk.lifetimes.device,
            interval_s=self.INTERVAL,
        )
        desk.effects.append(d.SaveDevice(device))


class ServiceGrant(ClientCredentialsGrant):  # type: ignore[misc, unused-ignore]
    """A service account: a program that signs in with a secret of its own, for nobody but itself. Nothing renewable."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS[:2]

    def create_token_response(self) -> Any:
        desk: d.Desk = self.server.desk
        client: Client = self.request.client
        scope = client.get_allowed_scope(self.request.payload.scope)
        if desk.subject is None or not desk.subject_is_active:
            raise InvalidGrantError("This service account is suspended.")
        if not scope or set((self.request.payload.scope or scope).split()) - set(scope.split()):
            raise InvalidScopeError
        desk.effects.append(d.SaveGrant(self.server.new_grant(scope, desk.now, None)))
        issued = self.server.access_token(client, desk.subject, scope)
        return 200, {**issued, "scope": scope}, self.TOKEN_RESPONSE_HEADER


class ExchangeGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc, unused-ignore]
    """Token exchange (RFC 8693): a narrower token for a token of ours. Never a wider, a longer or a renewable one."""

    GRANT_TYPE = EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self) -> None:
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError
        self.request.client = client
        data = self.request.payload.data
        if (
            data.get("subject_token_type") != ACCESS_TOKEN
            or data.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN
        ):
            raise InvalidRequestError("Only access tokens can be exchanged, for access tokens.")
        if "actor_token" in data:
            raise InvalidRequestError("'actor_token' is not supported.")
        desk: d.Desk = self.server.desk
        token = desk.access
        if token is None or not desk.access_is_live:
            raise InvalidGrantError("Invalid 'subject_token'.")
        if client.id != token.client_id and client.id not in token.audience:
            raise InvalidGrantError("This token was not given to this client, nor meant for it.")

    def create_token_response(self) -> Any:
        desk: d.Desk = self.server.desk
        token, asked = desk.access, self.request.payload
        if token is None or desk.access_grant is None:
            raise InvalidGrantError
        audience = narrow(
            list(token.audience), [*asked.datalist.get("audience", []), *asked.datalist.get("resource", [])]
        )
        scopes = narrow_scopes(token.scopes, asked.scope)
        client: Client = self.request.client
        self.server.grant = replace(desk.access_grant, scope=scopes, client_id=client.id)
        issued = self.server.access_token(client, desk.subject, scopes, audience=audience, until=token.expires)
        answer = {**issued, "issued_token_type": ACCESS_TOKEN, "scope": scopes}
        if "openid" in scopes.split():
            answer["id_token"] = self.server.id_token(answer, desk.subject, None)
        return 200, answer, self.TOKEN_RESPONSE_HEADER


def narrow(audience: list[str], asked: list[str]) -> list[str]:
    """The part of the audience that was asked for; all of it where nothing was. Raises for anything beyond it."""
    if not asked:
        return audience
    if not set(asked) <= set(audience):
        raise InvalidTargetError("The audience is not one of the token's.")
    return [one for one in audience if one in asked]


def narrow_scopes(scopes: frozenset[str], asked: str | None) -> str:
    """The scopes asked for; all but the right to refresh where nothing was. Raises for anything beyond the token's."""
    wanted = dict.fromkeys((asked or " ".join(sorted(scopes - {"offline_access"}))).split())
    parts_of_all = {"hansa.read", "hansa.jobs"} if "hansa" in scopes else set()
    if not set(wanted) <= (scopes | parts_of_all) - {"offline_access"}:
        raise InvalidScopeError
    return " ".join(wanted)
