"""Hansa as OpenID provider: the use cases. Authlib is imported when the first request comes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hansa.identity import access, errors, store, vo_store
from hansa.identity.access import AccessToken, BadToken, Verifier
from hansa.identity.keys import KeyRing, Keys
from hansa.identity.model import Caller, Subject
from hansa.identity.provider import desk as d
from hansa.identity.provider import store as provider_store
from hansa.identity.wire import Client as ClientView
from hansa.identity.wire import ClientList, NewClient, RotatedKey
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.secrets import new_token, token_hash
from hansa.kernel.settings import IdentitySettings

if TYPE_CHECKING:
    from hansa.identity.provider.clients import Client
    from hansa.identity.provider.engine import Answer

REALM = "/auth/realms/hansa"
"""Where Keycloak would have it, so that a move to EGI Check-in changes nothing but the issuer."""
PROTOCOL = f"{REALM}/protocol/openid-connect"
Fields = list[tuple[str, str]]
SIGN_IN_CODE = timedelta(seconds=60)
SITE_CLIENT = "hansa-server"
"""In whose name this server signs in at sites; nobody can sign in as it."""
SITE_SCOPE = "openid profile voperson_id eduperson_entitlement entitlements"


@dataclass(frozen=True)
class Session:
    """A browser that is signed in."""

    hash: str
    user_id: str
    name: str
    is_operator: bool
    auth_time: datetime

    @property
    def caller(self) -> Caller:
        return Caller(self.user_id, self.name, is_operator=self.is_operator)


@dataclass(frozen=True)
class Ask:
    """An authorization request that is in order: what to ask its user before it is answered."""

    client_name: str
    scope: str
    needs_login: bool
    needs_consent: bool


class ProviderService:
    """Answers the requests of OpenID Connect, and knows which browsers are signed in."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, url: str, keys: Keys, settings: IdentitySettings
    ) -> None:
        self.url = url
        self.issuer = f"{url}{REALM}"
        self.keys = keys
        self._database = database
        self._events = events
        self._clock = clock
        self._session_s = settings.session_s
        self._lifetimes = d.Lifetimes(
            access=timedelta(seconds=settings.access_token_s),
            session=timedelta(seconds=settings.session_s),
            offline=timedelta(seconds=settings.offline_s),
            device_interval_s=settings.device_interval_s,
        )
        self._verifier = Verifier(self.issuer)

    # --- access tokens at our own API -----------------------------------------------------------------------

    async def authenticate(self, token: str) -> Caller:
        """The caller behind one of our access tokens. Raises Fault ``identity.bad_token`` or ``identity.suspended``."""
        found = await self.validate(token)
        if found is None or self.url not in found.audience:
            raise _bad_token()
        return await self._caller(found)

    async def validate(self, token: str) -> AccessToken | None:
        """What an access token of ours says, if its signature and its times are right; whatever its audience."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        now = self._clock.now()
        known = self._verifier.recall(digest, now)
        if known is not None:
            return known
        try:
            ring = await self.keys.ring(access.key_id_of(token))
            return self._verifier.verify(token, digest, ring, now)
        except BadToken:
            return None

    async def _caller(self, token: AccessToken) -> Caller:
        async with self._database.read() as tx:
            row = await provider_store.state_of(tx, token.user_id, token.grant_id, token.id)
        if row is None or row.grant_id is None or row.revoked is not None or row.jti is not None:
            raise _bad_token()
        if row.suspended:
            raise Fault(errors.SUSPENDED, f"The account {row.name} is suspended.", hint="Ask the server's operator.")
        return Caller(token.user_id, row.name, is_operator=row.operator, scopes=token.scopes)

    async def issue_for_site(self, user_id: str, site_url: str, lasts: timedelta) -> str | None:
        """A token that says to one site who a user is and in which VOs, and is good for nothing here: for what this
        server does there on the user's behalf. None where there is no such user, or the account is suspended."""
        engine = await self._engine()
        signer = (await self.keys.signing_ring()).signer
        now = self._clock.now()
        async with self._database.begin() as tx:
            subject = await self._subject(tx, user_id)
            if subject is None or subject.suspended or signer is None:
                return None
            grant = d.Grant(new_id("grant"), user_id, SITE_CLIENT, SITE_SCOPE, now, now, now + lasts)
            await provider_store.apply(tx, [d.SaveGrant(grant)], now)
        claims = access.access_claims(
            issuer=self.issuer,
            user_id=user_id,
            client_id=SITE_CLIENT,
            audience=[site_url],
            scope=SITE_SCOPE,
            grant_id=grant.id,
            now=now,
            expires=grant.expires,
            more=engine.user_claims(subject, SITE_SCOPE, self.issuer),
        )
        return access.sign(claims, signer, access.ACCESS_TYPE)

    # --- the protocol ---------------------------------------------------------------------------------------

    async def token(self, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """The token endpoint."""
        return await self._answer("token", fields, headers)

    async def endpoint(self, name: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """``device_authorization``, ``introspection`` or ``revocation``."""
        return await self._answer(name, fields, headers)

    async def _answer(self, name: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        engine = await self._engine()
        ring = await self.keys.signing_ring()
        fields, headers = without_empty_secret(fields, headers)
        async with self._database.begin() as tx:
            desk = await self._load(tx, dict(reversed(fields)), headers)
            server = engine.Provider(desk, ring)
            request = engine.Request("POST", fields, headers)
            answer: Answer = (
                server.create_token_response(request)
                if name == "token"
                else server.create_endpoint_response(name, request)
            )
            await self._apply(tx, desk)
        return answer

    async def examine(self, fields: Fields, session: Session | None) -> Ask | Answer:
        """What an authorization request needs of its user; an Answer where it is refused.

        Raises Fault ``identity.bad_client`` where the browser must not be sent back, as nobody knows whereto.
        """
        engine = await self._engine()
        from authlib.oauth2 import OAuth2Error

        data = dict(reversed(fields))
        async with self._database.read() as tx:
            desk = await self._authorization_desk(tx, data, session)
            consented = set()
            if session is not None and desk.client is not None:
                consented = await provider_store.get_consent(tx, session.user_id, desk.client.id)
        request = engine.Request("GET", fields, {})
        server = engine.Provider(desk, KeyRing([]))
        try:
            if "request" in data or "request_uri" in data:
                raise engine.InvalidRequestError("Request objects are not supported.")
            grant = server.get_consent_grant(request, desk.subject)
        except OAuth2Error as error:
            return self._refused(server, request, error)
        scope = str(request.scope)
        needs_login = session is None or grant.prompt in ("login", "select_account") or self._is_old(data, session)
        client = desk.client
        new = set(scope.split()) - consented
        needs_consent = client is not None and not client.trusted and (bool(new) or grant.prompt == "consent")
        if data.get("prompt") == "none" and (needs_login or needs_consent):
            why = "login_required" if needs_login else "consent_required"
            return self._refused(server, request, OAuth2Error(error=why, redirect_uri=data["redirect_uri"]))
        return Ask((client.name or client.id) if client else "", scope, needs_login, needs_consent)

    async def authorize(self, fields: Fields, session: Session, *, allow: bool) -> Answer:
        """The answer to an authorization request whose user has said yes or no: back to the client."""
        engine = await self._engine()
        from authlib.oauth2 import OAuth2Error

        request = engine.Request("GET", fields, {})
        async with self._database.begin() as tx:
            desk = await self._authorization_desk(tx, dict(reversed(fields)), session)
            server = engine.Provider(desk, KeyRing([]))
            try:
                grant = server.get_consent_grant(request, desk.subject)
            except OAuth2Error as error:
                return self._refused(server, request, error)
            user = desk.subject if allow and desk.subject_is_active else None
            answer: Answer = server.create_authorization_response(request, grant_user=user, grant=grant)
            if user is not None and desk.client is not None and not desk.client.trusted:
                scope = set(str(request.scope).split())
                await provider_store.save_consent(tx, user.user_id, desk.client.id, scope, desk.now)
            await self._apply(tx, desk)
        return answer

    async def userinfo(self, token: str) -> dict[str, Any] | None:
        """What the scopes of an access token say of its user; None: the token is not good for it."""
        found = await self.validate(token)
        if found is None or "openid" not in found.scopes:
            return None
        engine = await self._engine()
        async with self._database.read() as tx:
            row = await provider_store.state_of(tx, found.user_id, found.grant_id, found.id)
            subject = await self._subject(tx, found.user_id)
        if row is None or row.grant_id is None or row.revoked is not None or row.jti is not None:
            return None
        if subject is None or subject.suspended:
            return None
        return {"sub": subject.user_id, **engine.user_claims(subject, " ".join(found.scopes), self.issuer)}

    async def jwks(self) -> dict[str, Any]:
        """The public keys; the first is made here if need be."""
        return (await self.keys.signing_ring()).jwks()

    def discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0 and RFC 8414."""
        from hansa.identity.provider import clients

        protocol = f"{self.url}{PROTOCOL}"
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{protocol}/auth",
            "token_endpoint": f"{protocol}/token",
            "device_authorization_endpoint": f"{protocol}/auth/device",
            "introspection_endpoint": f"{protocol}/token/introspect",
            "revocation_endpoint": f"{protocol}/revoke",
            "userinfo_endpoint": f"{protocol}/userinfo",
            "end_session_endpoint": f"{protocol}/logout",
            "jwks_uri": f"{protocol}/certs",
            "scopes_supported": list(clients.SCOPES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": [clients.CODE, clients.REFRESH, clients.DEVICE, clients.EXCHANGE, clients.SERVICE],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "claims_parameter_supported": False,
            "claims_supported": [
                *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "name", "preferred_username"),
                *("voperson_id", "eduperson_entitlement", "entitlements"),
            ],
        }

    # --- browsers -------------------------------------------------------------------------------------------

    async def open_session(self, user_id: str) -> str:
        """Sign a browser in: the secret of its cookie, always a new one."""
        secret = new_token("session")
        now = self._clock.now()
        async with self._database.begin() as tx:
            expires = now + timedelta(seconds=self._session_s)
            await provider_store.insert_session(
                tx, hash=token_hash(secret), user_id=user_id, auth_time=now, expires=expires
            )
        return secret

    async def lend_session(self, caller: Caller) -> str:
        """A code that signs one browser in as this user, once, within a minute: for people who hold a token."""
        code = new_token("signin")
        now = self._clock.now()
        async with self._database.begin() as tx:
            await provider_store.insert_sign_in_code(tx, token_hash(code), caller.user_id, now, now + SIGN_IN_CODE)
        return code

    async def use_code(self, code: str) -> str | None:
        """The user whom a code of :meth:`lend_session` signs in; None where it is unknown, used or too old."""
        async with self._database.begin() as tx:
            return await provider_store.take_sign_in_code(tx, token_hash(code), self._clock.now())

    async def find_session(self, secret: str | None) -> Session | None:
        """The session of a cookie, unless it is over or its user is suspended."""
        if not secret:
            return None
        digest = token_hash(secret)
        async with self._database.read() as tx:
            row = await provider_store.get_session(tx, digest)
        if row is None or row.expires <= self._clock.now() or row.suspended:
            return None
        return Session(digest, row.user_id, row.name, row.operator, row.auth_time)

    async def close_session(self, session: Session) -> None:
        """Sign a browser out, and out of the clients that it signed in to (but for offline access)."""
        async with self._database.begin() as tx:
            await provider_store.delete_session(tx, session.hash, self._clock.now())

    async def end_sign_ins_of(self, user_id: str) -> None:
        """Sign a user out of everything: a new password was set, as somebody else may have had the old one."""
        async with self._database.begin() as tx:
            await provider_store.end_sign_ins_of(tx, user_id, self._clock.now())

    async def logout_target(
        self, hint: str | None, client_id: str | None, uri: str | None
    ) -> tuple[str | None, str | None]:
        """For RP-initiated logout: whose session the hint names, and the URI to go back to, if it is registered."""
        user_id = None
        if hint:
            try:
                ring = await self.keys.ring(access.key_id_of(hint))
                # An expired id_token is as good a hint (OpenID Connect RP-Initiated Logout 1.0, section 2).
                moment = datetime.fromtimestamp(_issued_at(hint), self._clock.now().tzinfo)
                claims = access.check(hint, ring, self.issuer, moment, "JWT")
                user_id, client_id = str(claims["sub"]), str(claims["aud"])
            except (BadToken, ValueError, KeyError, OverflowError):
                return None, None
        async with self._database.read() as tx:
            client = await self._client(tx, client_id) if client_id else None
        return user_id, uri if uri and client is not None and uri in client.logout_uris else None

    async def find_device(self, user_code: str) -> tuple[d.Device, str] | None:
        """A device that waits, and the name of its client."""
        code = normal_user_code(user_code)
        async with self._database.read() as tx:
            device = await provider_store.find_user_code(tx, code, self._clock.now())
            client = await self._client(tx, device.client_id) if device else None
        return (device, client.name or client.id) if device and client else None

    async def decide_device(self, user_code: str, session: Session, *, approved: bool) -> bool:
        """What the user says of a device; False where it does not wait any more."""
        async with self._database.begin() as tx:
            device = await provider_store.find_user_code(tx, normal_user_code(user_code), self._clock.now())
            if device is None:
                return False
            return await provider_store.decide_device(
                tx, device.hash, session.user_id, session.auth_time, approved=approved
            )

    # --- clients and keys -----------------------------------------------------------------------------------

    async def add_client(self, caller: Caller, new: NewClient) -> ClientView:
        """Add a client; the secret of a confidential one is shown once."""
        from hansa.identity.provider.clients import BUILT_IN, redirect_problem

        for uri in [*new.redirect_uris, *new.logout_uris]:
            if problem := redirect_problem(uri):
                raise Fault(errors.BAD_CLIENT, f"{uri} cannot be a redirect URI: {problem}.")
        if not new.id.replace("-", "").replace("_", "").replace(".", "").isalnum() or not new.id.isascii():
            raise Fault(errors.BAD_CLIENT, f"{new.id!r} cannot be an id: letters, digits and . _ - only.")
        if self.url in new.audiences:
            raise Fault(errors.BAD_CLIENT, f"{self.url} is this server's API.", hint="Set api instead.")
        secret = new_token("client") if new.confidential else None
        now = self._clock.now()
        async with self._database.begin() as tx:
            if new.id == BUILT_IN or await provider_store.get_client(tx, new.id) is not None:
                raise Fault(errors.CLIENT_TAKEN, f"There is a client {new.id} already.", hint="Choose another id.")
            await provider_store.insert_client(
                tx,
                id=new.id,
                name=new.name,
                secret_hash=token_hash(secret) if secret else None,
                redirect_uris=new.redirect_uris,
                logout_uris=new.logout_uris,
                audiences=new.audiences,
                api=new.api,
                trusted=new.trusted,
                introspects=new.introspects,
                created=now,
            )
            message = f"{caller.name} added the OpenID client {new.id}."
            await self._events.record(
                tx, Event(caller.actor, f"client/{new.id}", "active", "identity.client_added", message)
            )
            return _client_view(await provider_store.get_client(tx, new.id), secret)

    async def list_clients(self) -> ClientList:
        async with self._database.read() as tx:
            return ClientList([_client_view(row) for row in await provider_store.list_clients(tx)])

    async def remove_client(self, caller: Caller, client_id: str) -> None:
        """Remove a client; all sign-ins at it end."""
        async with self._database.begin() as tx:
            if not await provider_store.delete_client(tx, client_id, self._clock.now()):
                raise Fault(errors.NO_CLIENT, f"There is no client {client_id}.", hint="hansa admin client list")
            message = f"{caller.name} removed the OpenID client {client_id}; its sign-ins have ended."
            await self._events.record(
                tx, Event(caller.actor, f"client/{client_id}", "removed", "identity.client_removed", message)
            )

    async def rotate_key(self, caller: Caller) -> RotatedKey:
        return RotatedKey(await self.keys.rotate(caller.actor))

    async def forget_expired(self) -> None:
        """Delete what has expired."""
        async with self._database.begin() as tx:
            await provider_store.delete_expired(tx, self._clock.now())

    # --- inside ---------------------------------------------------------------------------------------------

    async def _engine(self) -> Any:
        """The engine, imported in a thread when it is first needed: it takes a moment."""
        import sys

        name = "hansa.identity.provider.engine"
        if name not in sys.modules:
            import importlib

            return await asyncio.to_thread(importlib.import_module, name)
        return sys.modules[name]

    async def _load(self, tx: Tx, data: Mapping[str, str], headers: Mapping[str, str]) -> d.Desk:
        desk = d.Desk(self._clock.now(), self.issuer, self.url, self._lifetimes)
        desk.client = await self._client(tx, _client_id(data, headers))
        if code := data.get("code"):
            desk.code = await provider_store.find_code(tx, token_hash(code))
        if device := data.get("device_code"):
            desk.device = await provider_store.find_device(tx, token_hash(device))
        for name in ("token", "subject_token", "refresh_token"):
            if token := data.get(name):
                await self._load_token(tx, desk, token)
        user_id = _user_of(desk)
        if desk.client is not None and data.get("grant_type") == "client_credentials":
            user_id = desk.client.service_user
        desk.subject = await self._subject(tx, user_id) if user_id else None
        return desk

    async def _load_token(self, tx: Tx, desk: d.Desk, token: str) -> None:
        if not access.is_jwt(token):
            desk.refresh = await provider_store.find_refresh(tx, token_hash(token))
            return
        desk.access = await self.validate(token)
        if desk.access is not None:
            desk.access_grant = await provider_store.get_grant(tx, desk.access.grant_id)
            desk.access_revoked = await provider_store.is_revoked(tx, desk.access.id)

    async def _authorization_desk(self, tx: Tx, data: Mapping[str, str], session: Session | None) -> d.Desk:
        desk = d.Desk(self._clock.now(), self.issuer, self.url, self._lifetimes)
        desk.client = await self._client(tx, data.get("client_id"))
        if session is not None:
            desk.subject = await self._subject(tx, session.user_id)
            desk.session, desk.auth_time = session.hash, session.auth_time
        return desk

    async def _client(self, tx: Tx, client_id: str | None) -> Client | None:
        from hansa.identity.provider.clients import BUILT_IN, built_in, client_of

        if not client_id:
            return None
        if client_id == BUILT_IN:
            return built_in()
        row = await provider_store.get_client(tx, client_id)
        return client_of(row) if row is not None else None

    async def _subject(self, tx: Tx, user_id: str) -> Subject | None:
        row = await store.get_user(tx, user_id)
        if row is None:
            return None
        return Subject(row.id, row.name, row.suspended, await vo_store.memberships(tx, user_id))

    async def _apply(self, tx: Tx, desk: d.Desk) -> None:
        await provider_store.apply(tx, desk.effects, desk.now)
        for effect in desk.effects:
            if event := _event_of(effect, desk):
                await self._events.record(tx, event)

    def _is_old(self, data: Mapping[str, str], session: Session | None) -> bool:
        asked = data.get("max_age", "")
        if session is None or not asked.isdigit():
            return False
        return (self._clock.now() - session.auth_time).total_seconds() > int(asked[:9])

    def _refused(self, server: Any, request: Any, error: Any) -> Answer:
        """Back to the client with the error, if its redirect URI was found right; else a page of our own."""
        if not error.redirect_uri:
            description = error.get_error_description() or error.error
            raise Fault(errors.BAD_CLIENT, f"The application's request is not in order: {description}")
        error.state = request.payload.state
        answer: Answer = server.handle_error_response(request, error)
        from authlib.common.urls import add_params_to_uri

        answer.location = add_params_to_uri(answer.location, [("iss", self.issuer)])
        return answer


def normal_user_code(text: str) -> str:
    """A user code as people type it, as we wrote it."""
    letters = "".join(letter for letter in text.upper() if letter.isalnum())
    return f"{letters[:4]}-{letters[4:8]}"


def _client_id(data: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """The client that a request claims to come from; Authlib authenticates it after."""
    if headers.get("authorization", "").lower().startswith("basic "):
        return _basic(headers)[0]
    return data.get("client_id")


def _basic(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and secret of HTTP Basic; None where there is none that can be read."""
    import base64
    import binascii

    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None, None
    try:
        name, _, secret = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, ValueError):
        return None, None
    return unquote(name), secret


def without_empty_secret(fields: Fields, headers: Mapping[str, str]) -> tuple[Fields, Mapping[str, str]]:
    """Some clients (oidc-agent) say by Basic with an empty secret that they are public: that is no authentication."""
    name, secret = _basic(headers)
    if not name or secret != "":
        return fields, headers
    kept = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    return [*(pair for pair in fields if pair[0] != "client_id"), ("client_id", name)], kept


def _user_of(desk: d.Desk) -> str | None:
    if desk.code is not None:
        return desk.code.user_id
    if desk.device is not None:
        return desk.device.user_id
    if desk.refresh is not None:
        return desk.refresh.grant.user_id
    return desk.access.user_id if desk.access is not None else None


def _event_of(effect: d.Effect, desk: d.Desk) -> Event | None:
    match effect:
        case d.RedeemCode(_, grant) | d.SaveGrant(grant):
            message = f"{desk.subject.name if desk.subject else '?'} signed in at {grant.client_id}."
            return Event("hansa", f"grant/{grant.id}", "active", "identity.signed_in", message, grant.user_id)
        case d.RevokeGrant(grant_id, user_id, "identity.signed_out"):
            return Event("hansa", f"grant/{grant_id}", "ended", "identity.signed_out", "Signed out.", user_id)
        case d.RevokeGrant(grant_id, user_id, why):
            message = "A secret of this sign-in came twice: somebody else may have it. The sign-in has ended."
            return Event("hansa", f"grant/{grant_id}", "ended", why, message, user_id)
    return None


def _issued_at(token: str) -> float:
    import json
    from base64 import urlsafe_b64decode

    middle = token.split(".")[1]
    return float(json.loads(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))["iat"])


def _client_view(row: Any, secret: str | None = None) -> ClientView:
    return ClientView(
        id=row.id,
        name=row.name,
        redirect_uris=list(row.redirect_uris),
        logout_uris=list(row.logout_uris),
        audiences=list(row.audiences),
        confidential=row.secret_hash is not None,
        api=row.api,
        trusted=row.trusted,
        introspects=row.introspects,
        created=row.created,
        secret=secret,
    )


def _bad_token() -> Fault:
    return Fault(
        errors.BAD_TOKEN,
        "This token is not valid here, or not any more.",
        hint="Sign in again: hansa login SERVER",
    )
