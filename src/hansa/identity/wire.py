"""Wire models of identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.wire import STRICT


@dataclass(frozen=True)
class User:
    """A user: ``(issuer, sub)``, never an e-mail address."""

    id: str
    issuer: str
    sub: str
    name: str
    operator: bool
    suspended: bool = False
    vos: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NewUser:
    """A user of this server's own, for small groups until an issuer is set up."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1), MaxLen(100)]


@dataclass(frozen=True)
class NewUserToken:
    """A new user and the token that signs in as that user: shown once."""

    user: User
    token: str


@dataclass(frozen=True)
class UserPage:
    """Users, and the cursor of the next page."""

    items: list[User]
    next: str | None = None


@dataclass(frozen=True)
class Invitation:
    """A link that is good once, until then."""

    link: str
    expires: datetime


Name = Annotated[str, MinLen(1), MaxLen(63)]
"""A name of a VO: as a host name, e.g. ``vo.example.org``."""
GroupName = Annotated[str, MinLen(1), MaxLen(200)]
"""A group of a VO; ``a:b`` is the group b of the group a (AARC-G069)."""
RoleName = Literal["member", "vm-operator", "manager"]
Why = Annotated[str, MaxLen(500)]


@dataclass(frozen=True)
class NewVo:
    """A virtual organisation to create; ``manager``: a user's name, by default whoever creates it."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    description: Annotated[str, MaxLen(2000)] = ""
    manager: Annotated[str, MaxLen(100)] | None = None


@dataclass(frozen=True)
class VoChange:
    """What to change of a virtual organisation."""

    __pydantic_config__: ClassVar = STRICT

    description: Annotated[str, MaxLen(2000)]


@dataclass(frozen=True)
class Vo:
    """A virtual organisation, as the caller sees it.

    ``membership``: where its members come from, ``invitation`` or ``issuer``; never both. ``issuer_vo``: what the
    issuer calls it, where that is another name.
    """

    name: str
    description: str
    members: int
    groups: list[str]
    membership: str
    suspended: bool
    created: datetime
    suspended_why: str | None = None
    my_roles: list[str] = field(default_factory=list)
    my_groups: list[str] = field(default_factory=list)
    issuer: str | None = None
    issuer_vo: str | None = None
    assurance: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VoPage:
    """VOs, and the cursor of the next page."""

    items: list[Vo]
    next: str | None = None


@dataclass(frozen=True)
class Member:
    """A member of a virtual organisation."""

    vo: str
    user_id: str
    name: str
    roles: list[str]
    groups: list[str]
    suspended: bool
    since: datetime
    suspended_why: str | None = None


@dataclass(frozen=True)
class MemberPage:
    """Members, and the cursor of the next page."""

    items: list[Member]
    next: str | None = None


@dataclass(frozen=True)
class MemberChange:
    """What to change of a member; None: as it is. ``roles`` need not name ``member``, which everybody is."""

    __pydantic_config__: ClassVar = STRICT

    roles: list[RoleName] | None = None
    groups: Annotated[list[GroupName], MaxLen(100)] | None = None


@dataclass(frozen=True)
class NewInvitation:
    """Whom an invitation makes of those who use it, and for how many seconds it is good."""

    __pydantic_config__: ClassVar = STRICT

    roles: list[RoleName] = field(default_factory=list)
    groups: Annotated[list[GroupName], MaxLen(100)] = field(default_factory=list)
    lasts_s: Annotated[int, Ge(60), Le(90 * 86_400)] | None = None


@dataclass(frozen=True)
class Token:
    """A secret from a link."""

    __pydantic_config__: ClassVar = STRICT

    token: Annotated[str, MinLen(1), MaxLen(200)]


@dataclass(frozen=True)
class Suspension:
    """Why something is suspended, for those whom it concerns."""

    __pydantic_config__: ClassVar = STRICT

    why: Why = ""


@dataclass(frozen=True)
class NewGroup:
    """A group of a virtual organisation."""

    __pydantic_config__: ClassVar = STRICT

    name: GroupName


@dataclass(frozen=True)
class NewClient:
    """An OpenID client to add.

    Without ``confidential`` it gets no secret, as programs on people's computers can keep none. ``api``: its tokens
    are good for this server's API. ``trusted``: users are not asked for consent. ``introspects``: it may introspect
    tokens that were given to others, as sites do.
    """

    __pydantic_config__: ClassVar = STRICT

    id: Annotated[str, MinLen(1), MaxLen(100)]
    name: Annotated[str, MaxLen(200)] = ""
    redirect_uris: Annotated[list[Annotated[str, MaxLen(2000)]], MaxLen(20)] = field(default_factory=list)
    logout_uris: Annotated[list[Annotated[str, MaxLen(2000)]], MaxLen(20)] = field(default_factory=list)
    audiences: Annotated[list[Annotated[str, MinLen(1), MaxLen(500)]], MaxLen(20)] = field(default_factory=list)
    confidential: bool = False
    api: bool = False
    trusted: bool = False
    introspects: bool = False


@dataclass(frozen=True)
class Client:
    """An OpenID client; ``secret`` only in the answer that creates it."""

    id: str
    name: str
    redirect_uris: list[str]
    logout_uris: list[str]
    audiences: list[str]
    confidential: bool
    api: bool
    trusted: bool
    introspects: bool
    created: datetime
    secret: str | None = None


@dataclass(frozen=True)
class ClientList:
    """All clients that an operator added."""

    items: list[Client]
    next: str | None = None


@dataclass(frozen=True)
class RotatedKey:
    """The key that signs tokens now."""

    id: str


@dataclass(frozen=True)
class Identity:
    """With what a user signs in at another issuer. ``title``: what this server calls that issuer."""

    id: str
    issuer: str
    title: str
    sub: str
    name: str
    linked: datetime
    last_seen: datetime


@dataclass(frozen=True)
class IdentityList:
    """All identities of a user."""

    items: list[Identity]
    next: str | None = None


@dataclass(frozen=True)
class Authority:
    """A grant under which Hansa acts while a user is away: a lasting sign-in, or a VO's credential at a site."""

    id: str
    kind: str
    phase: str
    reason: str
    message: str
    waiting_on: str
    since: datetime
    created: datetime
    issuer: str | None = None
    vo: str | None = None
    site: str | None = None
    refreshed: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class AuthorityList:
    """Grants of authority."""

    items: list[Authority]
    next: str | None = None


@dataclass(frozen=True)
class NewSiteCredential:
    """What a VO signs in with at a site; the fields are those of the site's kind, as ``id`` and ``secret``."""

    __pydantic_config__: ClassVar = STRICT

    fields: dict[Annotated[str, MinLen(1), MaxLen(100)], Annotated[str, MaxLen(20_000)]]
    expires: datetime | None = None


@dataclass(frozen=True)
class VoRule:
    """Who says who is in a VO: an issuer of the settings, by name, or None: invitations.

    ``issuer_vo`` is the VO's name at the issuer, where it is another one. ``assurance``: values of
    eduperson_assurance, one of which a member needs. Members that came the other way are taken out.
    """

    __pydantic_config__: ClassVar = STRICT

    issuer: Annotated[str, MaxLen(40)] | None
    issuer_vo: Annotated[str, MaxLen(200)] | None = None
    assurance: Annotated[list[Annotated[str, MaxLen(200)]], MaxLen(20)] = field(default_factory=list)


ServiceScope = Literal["hansa", "hansa.jobs", "hansa.read"]


@dataclass(frozen=True)
class NewService:
    """A service account of a VO: a program, such as a science gateway. ``hansa.jobs``: it may run jobs."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1), MaxLen(32)]
    scopes: Annotated[list[ServiceScope], MinLen(1), MaxLen(3)] = field(default_factory=lambda: ["hansa.jobs"])


@dataclass(frozen=True)
class Service:
    """A service account; ``id`` and ``secret`` are what it signs in with. The secret is shown once."""

    id: str
    vo: str
    scopes: list[str]
    created: datetime
    secret: str | None = None


@dataclass(frozen=True)
class ServiceList:
    """The service accounts of a VO."""

    items: list[Service]
    next: str | None = None
