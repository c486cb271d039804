"""Wire models of VM images."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT

ImageName = Annotated[str, MinLen(1), MaxLen(63)]
Text = Annotated[str, MaxLen(2000)]
Short = Annotated[str, MaxLen(200)]
Address = Annotated[str, MaxLen(2000)]
Checksum = Annotated[str, MaxLen(140)]
"""``sha256:`` or ``sha512:`` and hex digits."""
Visibility = Literal["owner", "vo", "all"]


@dataclass(frozen=True)
class NewVersion:
    """A version to add. Exactly one of ``url`` (http, https, oci) and ``upload`` (content follows) is given.

    An ``oci`` address is pinned by its digest, an upload by what arrives; for the others ``checksum``, or
    ``sums``, the address of a file of checksums, is needed.
    """

    __pydantic_config__: ClassVar = STRICT

    version: Annotated[str, MinLen(1), MaxLen(60)] = "1"
    url: Address | None = None
    upload: bool = False
    checksum: Checksum | None = None
    sums: Address | None = None
    format: Literal["qcow2", "raw"] | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class NewImage:
    """An image to add to the catalogue, with its first version."""

    __pydantic_config__: ClassVar = STRICT

    name: ImageName
    source: NewVersion
    vo: Annotated[str, MaxLen(63)] | None = None
    title: Short = ""
    description: Text = ""
    os: Short = "Linux"
    os_name: Short = ""
    os_version: Short = ""
    arch: Short = "x86_64"
    licence: Short = ""
    contact: Short = ""
    gpu_drivers: Annotated[list[Short], MaxLen(20)] = field(default_factory=list)
    login: Annotated[str, MaxLen(32)] = ""
    """The user whom the image's cloud-init makes, for SSH: ``debian``, ``ubuntu``, ``almalinux``."""
    visibility: Visibility = "owner"


@dataclass(frozen=True)
class ImageVersion:
    """A version, pinned by its checksum. ``done_bytes`` of ``size_bytes`` have been fetched."""

    version: str
    status: Status
    source: str
    checksum: str | None
    sha256: str | None
    format: str | None
    size_bytes: int | None
    virtual_bytes: int | None
    done_bytes: int
    created: datetime
    expires: datetime | None = None
    site: str | None = None
    """Of a snapshot that is kept at its site: machines of it start there only."""


@dataclass(frozen=True)
class Endorsement:
    """A VO lets its members start an image: one version, or whatever is newest (``version`` None)."""

    vo: str
    by: str
    since: datetime
    version: str | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class VmImage:
    """An image of the catalogue, newest version first."""

    name: str
    scope: str
    """``preset``, ``vo/NAME`` or ``user/NAME``: whose it is."""
    title: str
    description: str
    os: str
    os_name: str
    os_version: str
    arch: str
    licence: str
    contact: str
    gpu_drivers: list[str]
    login: str
    visibility: str
    created: datetime
    versions: list[ImageVersion]
    endorsements: list[Endorsement]


@dataclass(frozen=True)
class VmImagePage:
    """Images, and the cursor of the next page."""

    items: list[VmImage]
    next: str | None = None


@dataclass(frozen=True)
class NewEndorsement:
    """Let members of a VO start an image. ``version`` None with ``follow``: also what comes later."""

    __pydantic_config__: ClassVar = STRICT

    vo: Annotated[str, MinLen(1), MaxLen(63)]
    version: Annotated[str, MaxLen(60)] | None = None
    follow: bool = False
    lasts_days: Annotated[int, Gt(0)] | None = None


@dataclass(frozen=True)
class Withdrawal:
    """Why a version is taken back."""

    __pydantic_config__: ClassVar = STRICT

    why: Annotated[str, MaxLen(500)] = ""


@dataclass(frozen=True)
class ImagePolicy:
    """What a VO lets its members start besides endorsed VM images.

    ``site_images``: also the public VM images of a site. ``registries``: the container registries that jobs may take
    images from; None: any. ``public_list``: whoever asks gets the list of what it endorses, and the contents.
    """

    __pydantic_config__: ClassVar = STRICT

    site_images: bool = False
    registries: Annotated[list[Annotated[str, MinLen(1), MaxLen(200)]], MaxLen(100)] | None = None
    public_list: bool = False


@dataclass(frozen=True)
class NewSubscription:
    """An image list to follow for a VO. Its images are endorsed while the list names them.

    With ``authorities`` (PEM) the list must be signed (S/MIME), and by ``endorser`` (RFC 2253) where that is given.
    """

    __pydantic_config__: ClassVar = STRICT

    url: Address
    authorities: Annotated[str, MaxLen(100_000)] | None = None
    endorser: Annotated[str, MaxLen(500)] | None = None
    unsigned: bool = False
    every_s: Annotated[int, Ge(300)] = 6 * 3600


@dataclass(frozen=True)
class Subscription:
    """An image list that is followed."""

    id: str
    vo: str
    url: str
    signed: bool
    status: Status
    endorser: str | None = None
    identifier: str | None = None
    version: str | None = None
    images: int = 0
    expires: datetime | None = None
    read: datetime | None = None


@dataclass(frozen=True)
class SubscriptionPage:
    """Image lists that are followed."""

    items: list[Subscription]
    next: str | None = None
