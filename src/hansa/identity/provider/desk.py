"""One request at the provider: what was read for it before, and what it decided, to be written after. Pure.

Authlib works synchronously between the two, so the whole request is one unit of work and its decisions need no
database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hansa.identity.access import AccessToken
from hansa.identity.model import Subject
from hansa.identity.provider.clients import Client


@dataclass(frozen=True)
class Grant:
    """A sign-in of a user at a client: what refresh tokens of one family have in common."""

    id: str
    user_id: str
    client_id: str
    scope: str
    auth_time: datetime
    created: datetime
    expires: datetime
    session: str | None = None
    revoked: datetime | None = None

    @property
    def is_offline(self) -> bool:
        return "offline_access" in self.scope.split()

    def is_live(self, now: datetime) -> bool:
        return self.revoked is None and now < self.expires


@dataclass(frozen=True)
class Code:
    """An authorization code, by its hash. ``grant_id``: what it was redeemed for."""

    hash: str
    client_id: str
    user_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    auth_time: datetime
    session: str | None
    expires: datetime
    grant_id: str | None = None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass(frozen=True)
class Refresh:
    """A refresh token, by its hash, and its grant."""

    hash: str
    grant: Grant
    expires: datetime
    used: datetime | None = None

    def get_scope(self) -> str:
        return self.grant.scope

    def check_client(self, client: Client) -> bool:
        return client.id == self.grant.client_id


@dataclass(frozen=True)
class Device:
    """A device that waits for its user. ``approved`` None: the user has not said yet."""

    hash: str
    user_code: str
    client_id: str
    scope: str
    expires: datetime
    interval_s: int
    last_poll: datetime | None = None
    user_id: str | None = None
    approved: bool | None = None
    auth_time: datetime | None = None
    used: bool = False

    def get_client_id(self) -> str:
        return self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_user_code(self) -> str:
        return self.user_code


# What a request may decide:


@dataclass(frozen=True)
class SaveCode:
    code: Code


@dataclass(frozen=True)
class RedeemCode:
    hash: str
    grant: Grant


@dataclass(frozen=True)
class SaveGrant:
    grant: Grant


@dataclass(frozen=True)
class SaveRefresh:
    hash: str
    grant_id: str
    expires: datetime


@dataclass(frozen=True)
class UseRefresh:
    hash: str
    grant_id: str
    grant_expires: datetime


@dataclass(frozen=True)
class RevokeGrant:
    """``why`` is a stable code; reuse of a code or a refresh token is told to the user."""

    grant_id: str
    user_id: str
    why: str


@dataclass(frozen=True)
class RevokeAccess:
    jti: str
    expires: int


@dataclass(frozen=True)
class SaveDevice:
    device: Device


@dataclass(frozen=True)
class UseDevice:
    hash: str


@dataclass(frozen=True)
class Polled:
    hash: str
    interval_s: int


Effect = (
    SaveCode
    | RedeemCode
    | SaveGrant
    | SaveRefresh
    | UseRefresh
    | RevokeGrant
    | RevokeAccess
    | SaveDevice
    | UseDevice
    | Polled
)


@dataclass(frozen=True)
class Lifetimes:
    """How long what we give out lasts."""

    access: timedelta
    session: timedelta
    offline: timedelta
    code: timedelta = timedelta(seconds=60)
    device: timedelta = timedelta(minutes=10)
    device_interval_s: int = 5

    def grant_expiry(self, scope: str, now: datetime) -> datetime:
        return now + (self.offline if "offline_access" in scope.split() else self.session)


@dataclass
class Desk:
    """What is known for one request, and what it decides."""

    now: datetime
    issuer: str
    api: str
    lifetimes: Lifetimes
    client: Client | None = None
    subject: Subject | None = None
    code: Code | None = None
    refresh: Refresh | None = None
    device: Device | None = None
    access: AccessToken | None = None
    access_grant: Grant | None = None
    access_revoked: bool = False
    session: str | None = None
    auth_time: datetime | None = None
    effects: list[Effect] = field(default_factory=list)

    @property
    def subject_is_active(self) -> bool:
        return self.subject is not None and not self.subject.suspended

    @property
    def access_is_live(self) -> bool:
        """Whether the access token in the request is good: nobody suspended, nothing revoked."""
        grant = self.access_grant
        return (
            self.access is not None
            and self.subject_is_active
            and not self.access_revoked
            and grant is not None
            and grant.revoked is None
        )

    @property
    def refresh_is_live(self) -> bool:
        found = self.refresh
        return (
            found is not None
            and found.used is None
            and self.now < found.expires
            and found.grant.is_live(self.now)
            and self.subject_is_active
        )
