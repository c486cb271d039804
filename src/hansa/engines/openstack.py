"""Connections to OpenStack clouds: an async face over openstacksdk, whose calls block and run in threads here.

One connection per (site, project, credential), made when first used and kept; openstacksdk is imported then. Errors are
:class:`Temporary` or :class:`Permanent`; no secret is part of their text.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import DriverError, Permanent, Temporary

T = TypeVar("T")
CALL_S = 60.0
"""Seconds that a call may take unless it is given others."""
THREADS = 32
KEPT = 500
"""Connections that are kept."""
_BUSY = frozenset({408, 409, 413, 425, 429})


class Credential(Protocol):
    """How to sign in. ``identity`` tells credentials apart without telling the secret."""

    @property
    def identity(self) -> str: ...

    def auth_type(self) -> str: ...

    def auth(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ApplicationCredential:
    """Of one user in one project, made at the site."""

    id: str
    secret: str = field(repr=False)

    @property
    def identity(self) -> str:
        return f"application:{self.id}:{_digest(self.secret)}"

    def auth_type(self) -> str:
        return "v3applicationcredential"

    def auth(self) -> dict[str, Any]:
        return {"application_credential_id": self.id, "application_credential_secret": self.secret}


@dataclass(frozen=True)
class Password:
    """A user of the site's own."""

    username: str
    password: str = field(repr=False)
    domain: str = "Default"

    @property
    def identity(self) -> str:
        return f"password:{self.domain}/{self.username}:{_digest(self.password)}"

    def auth_type(self) -> str:
        return "v3password"

    def auth(self) -> dict[str, Any]:
        return {"username": self.username, "password": self.password, "user_domain_name": self.domain}


@dataclass(frozen=True)
class AccessToken:
    """A token of an OpenID issuer that the site trusts. ``token`` gives a fresh one; ``holder`` says whose it is."""

    holder: str
    token: Callable[[], str] = field(repr=False, compare=False)
    provider: str = "egi.eu"
    protocol: str = "openid"

    @property
    def identity(self) -> str:
        return f"token:{self.provider}/{self.protocol}:{self.holder}"

    def auth_type(self) -> str:
        return "v3oidcaccesstoken"

    def auth(self) -> dict[str, Any]:
        return {"identity_provider": self.provider, "protocol": self.protocol, "access_token": self.token()}


@dataclass(frozen=True)
class Place:
    """A project at a site. ``project_id`` None: not scoped, or as the application credential says."""

    auth_url: str
    project_id: str | None = None
    region: str | None = None
    ca: str | None = field(default=None, repr=False)
    """PEM of the authority that signed its certificate."""


@dataclass(frozen=True)
class Project:
    """A project that a credential may use. ``vo``: whose it is by the property ``egi.VO``."""

    id: str
    name: str
    vo: str | None


class Cloud:
    """One project at one site. Calls are functions of an ``openstack.connection.Connection``."""

    def __init__(
        self, place: Place, credential: Credential, pool: ThreadPoolExecutor, egress: EgressPolicy | None = None
    ) -> None:
        self.place = place
        self.credential = credential
        self._pool = pool
        self._egress = egress
        self._connection: Any = None
        self._ca: Any = None
        self._lock = threading.Lock()

    async def call(self, work: Callable[[Any], T], deadline_s: float = CALL_S) -> T:
        """The result of ``work(connection)`` in a thread. Raises Temporary or Permanent, and Temporary when late.

        A call that was late may still have its effect.
        """
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, self._do, work, deadline_s, loop)
        try:
            return await asyncio.wait_for(running, deadline_s)
        except TimeoutError as error:
            raise Temporary(f"{self.host} did not answer within {deadline_s:.0f} s.") from error

    async def projects(self) -> list[Project]:
        """Those that the credential may use, scoped or not."""
        return await self.call(self._projects)

    @property
    def host(self) -> str:
        return urlsplit(self.place.auth_url).hostname or self.place.auth_url

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._ca is not None:
            self._ca.close()

    def _projects(self, connection: Any) -> list[Project]:
        base = self.place.auth_url.rstrip("/")
        found = connection.session.get(f"{base}/auth/projects").json()["projects"]
        return [Project(one["id"], one["name"], one.get("egi.VO")) for one in found if one.get("enabled", True)]

    def _do(self, work: Callable[[Any], T], deadline_s: float, loop: asyncio.AbstractEventLoop) -> T:
        try:
            with self._lock:
                is_new = self._connection is None
                if is_new:
                    self._connection = self._connect(deadline_s, loop)
                connection = self._connection
            try:
                return work(connection)
            except Exception as error:
                if is_new or not _is_sign_in(error):
                    raise
            # What was refused may be a sign-in that has ended: once more with a fresh one.
            with self._lock:
                self._connection = connection = self._connect(deadline_s, loop)
            return work(connection)
        except DriverError:
            raise  # of the policy
        except Exception as error:
            translated = translate(error, self.host)
            if translated is None:
                raise
            raise translated from error

    def _connect(self, timeout_s: float, loop: asyncio.AbstractEventLoop) -> Any:
        import openstack

        place = self.place
        auth = {"auth_url": place.auth_url, **self.credential.auth()}
        if place.project_id is not None:
            auth["project_id"] = place.project_id
        if place.ca and self._ca is None:
            self._ca = tempfile.NamedTemporaryFile("w", prefix="hansa-ca-", suffix=".pem")  # noqa: SIM115 - until close
            self._ca.write(place.ca)
            self._ca.flush()
        connection = openstack.connection.Connection(
            auth_type=self.credential.auth_type(),
            auth=auth,
            region_name=place.region,
            identity_interface="public",
            api_timeout=timeout_s,
            cacert=self._ca.name if self._ca else None,
            app_name="hansa",
        )
        if self._egress is not None:
            _guard(connection, self._egress, loop)
        return connection


class Clouds:
    """All connections of this process, the last used ones kept."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openstack")
        self._clouds: dict[tuple[Place, str], Cloud] = {}

    def at(self, place: Place, credential: Credential, egress: EgressPolicy | None = None) -> Cloud:
        """The connection, made anew where the credential is another."""
        key = (place, credential.identity)
        found = self._clouds.pop(key, None) or Cloud(place, credential, self._pool, egress)
        self._clouds[key] = found  # at the end: the first one is the one longest unused
        while len(self._clouds) > KEPT:
            self._clouds.pop(next(iter(self._clouds))).close()
        found.credential = credential  # the same one, perhaps with a fresher token
        return found

    def forget(self, place: Place, credential: Credential) -> None:
        """The next use signs in again: after a token has ended, or a credential was withdrawn."""
        found = self._clouds.pop((place, credential.identity), None)
        if found is not None:
            found.close()

    def close(self) -> None:
        for cloud in self._clouds.values():
            cloud.close()
        self._clouds.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _guard(connection: Any, egress: EgressPolicy, loop: asyncio.AbstractEventLoop) -> None:
    """Every request of a connection passes the policy: a site's catalogue may name any address.

    The policy resolves a name, and the connection resolves it once more: a name that changes in between is not caught.
    """
    from requests.adapters import HTTPAdapter

    class Guarded(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            asyncio.run_coroutine_threadsafe(egress.allow(request.url), loop).result(CALL_S)
            return super().send(request, *args, **options)

    for scheme in ("https://", "http://"):
        connection.session.session.mount(scheme, Guarded())


def _digest(secret: str) -> str:
    """Tells secrets apart, and does not tell them."""
    return hashlib.sha256(b"hansa credential " + secret.encode()).hexdigest()[:16]


def translate(error: Exception, host: str) -> Temporary | Permanent | None:
    """What an exception of openstacksdk or keystoneauth means; None for what is not of theirs (a defect of ours)."""
    from keystoneauth1 import exceptions as auth
    from openstack import exceptions as sdk

    status = _status(error)
    if isinstance(error, auth.ConnectFailure | auth.DiscoveryFailure | sdk.ResourceTimeout):
        return Temporary(f"{host} cannot be reached, or does not answer as OpenStack does.")
    if status == 401:
        return Permanent(
            f"{host} refused the sign-in: it does not accept the credential, or its user has no role there."
        )
    if isinstance(error, auth.ClientException | sdk.SDKException):
        words = f"{host}: {_words(error)}"
        if status is None or status >= 500 or status in _BUSY:
            return Temporary(words, _retry_after_s(error))
        return Permanent(words)
    return None


def _status(error: Exception) -> int | None:
    return getattr(error, "http_status", None) or getattr(error, "status_code", None)


def _is_sign_in(error: Exception) -> bool:
    return _status(error) == 401


def _words(error: Exception) -> str:
    """What the cloud said, in one line."""
    said = getattr(error, "details", None) or str(error)
    return " ".join(str(said).split())[:500]


def _retry_after_s(error: Exception) -> float | None:
    answer = getattr(error, "response", None)
    given = getattr(answer, "headers", {}).get("Retry-After", "")
    return float(given) if given.isdecimal() else None
