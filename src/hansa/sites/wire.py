"""Wire models of sites."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT

SiteName = Annotated[str, MinLen(1), MaxLen(100)]
"""Letters, digits and ``. _ -``."""
VoName = Annotated[str, MinLen(1), MaxLen(200)]
Text = Annotated[str, MaxLen(2000)]
Pattern = Annotated[str, MinLen(1), MaxLen(300)]
Why = Annotated[str, MaxLen(500)]
Settings = dict[str, Any]
VisibilityName = Literal["owner", "vos", "all"]


@dataclass(frozen=True)
class Capacity:
    """What a site offers. GPUs and container runtimes by name."""

    cores: int
    memory_mib: int
    gpus: list[str] = field(default_factory=list)
    container_runtimes: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    """What jobs may ask for by name: ``bigmem``, ``data:NAME`` for a data set that is there."""
    required_tags: list[str] = field(default_factory=list)
    """Only jobs that ask for these are taken."""


@dataclass(frozen=True)
class Contact:
    """Whom to ask."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1), MaxLen(200)]
    email: Annotated[str, MaxLen(320)] | None = None
    role: Annotated[str, MaxLen(100)] | None = None
    """What for, as ``security`` or ``operations``."""


@dataclass(frozen=True)
class SitePolicy:
    """The site's own rules. They rule over whatever a user, a VO or this server would allow."""

    __pydantic_config__: ClassVar = STRICT

    users: Annotated[list[Pattern], MaxLen(10_000)] | None = None
    """Names or ids of the only users that it serves. Default: all of the VOs that it serves."""
    vm_images: Annotated[list[Pattern], MaxLen(1000)] = field(default_factory=list)
    """Patterns (``*``, ``?``) of the only VM images that may run: a name of a preset, of an image for all or of one of
    the site's own; ``vo/VO/NAME`` of a VO's; a checksum or an id. Default: all."""
    vm_images_denied: Annotated[list[Pattern], MaxLen(1000)] = field(default_factory=list)
    """Patterns of VM images that may not run."""
    vm_lifetime_h: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Hours after which a machine is deleted, whatever its owner wants, counted from its making here. Default: no
    limit."""
    vms_per_user: Annotated[int, Ge(0), Le(1_000_000)] | None = None
    """Machines that one user may have here. Default: no limit but the quota."""
    demands_grant: bool = False
    """Whether work needs a capacity grant of its VO here."""
    price_per_core_hour: Annotated[float, Ge(0), Le(1e6)] | None = None
    """What an hour of a core costs, in the site's currency. Default: no price is shown."""
    pilots: bool = True
    """Whether pilots, which run the tasks of jobs, may start here."""
    canaries: bool = False
    """Whether the smallest job (at endpoints of kind ``slurm`` and ``ssh``) or the smallest machine (``openstack``,
    ``libcloud``) may be started now and then, where nothing else was, to see whether things start. The computer of an
    embedded server (the site ``local``) has none: its pilots are processes of that server."""


@dataclass(frozen=True)
class NewAccess:
    """How a VO comes in at an endpoint."""

    __pydantic_config__: ClassVar = STRICT

    project: Annotated[str, MaxLen(200)] | None = None
    """Where its things live there: an OpenStack project, a Slurm account."""
    settings: Settings = field(default_factory=dict)
    """What differs for this VO, of the settings of the endpoint's kind, as ``region``."""


Accesses = Annotated[dict[VoName, NewAccess | Annotated[str, MaxLen(200)] | None], MaxLen(2000)]
"""By VO; a word alone is its project."""


@dataclass(frozen=True)
class NewEndpoint:
    """One service of a site."""

    __pydantic_config__: ClassVar = STRICT

    kind: Annotated[str, MinLen(1), MaxLen(40)]
    """What it is: ``openstack``, ``libcloud``, ``slurm``, ``ssh``, or another that is installed."""
    name: Annotated[str, MinLen(1), MaxLen(100)] | None = None
    """Its name at this site. Default: its kind."""
    url: Annotated[str, MaxLen(2000)] | None = None
    """Where it answers, for kinds that have an address: ``https://keystone.example.org:5000/v3``."""
    settings: Settings = field(default_factory=dict)
    """What its kind needs besides."""
    vos: Accesses = field(default_factory=dict)
    """The VOs that it serves, and how each comes in."""
    credential: dict[str, Annotated[str, MaxLen(65_536)]] | None = None
    """What Hansa signs in with, for probes and for VOs without a grant of their own. Kept encrypted, never shown."""


@dataclass(frozen=True)
class NewSite:
    """A site as its administrator writes it down."""

    __pydantic_config__: ClassVar = STRICT

    name: SiteName
    endpoints: Annotated[list[NewEndpoint], MinLen(1), MaxLen(50)]
    description: Text = ""
    country: Annotated[str, MaxLen(100)] = ""
    visibility: VisibilityName | None = None
    """Who sees it: ``owner``, members of its ``vos``, or ``all``. Default: ``vos`` if it has any, else ``owner``."""
    contacts: Annotated[list[Contact], MaxLen(50)] = field(default_factory=list)
    admins: Annotated[list[str], MaxLen(50)] = field(default_factory=list)
    """Users of this server who administer the site. Default: whoever adds it."""
    vos: Accesses = field(default_factory=dict)
    """VOs that all its endpoints serve."""
    policy: SitePolicy = field(default_factory=SitePolicy)


@dataclass(frozen=True)
class Flavour:
    """A size of machine."""

    id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int = 0
    gpus: int = 0
    gpu_model: str = ""


@dataclass(frozen=True)
class VmImage:
    """A VM image that the site has."""

    id: str
    name: str
    digest: str = ""
    min_disk_gib: int = 0
    min_memory_mib: int = 0
    is_public: bool = False
    """Whether the site offers it to all of its users."""
    size_bytes: int = 0
    """0: not known."""


@dataclass(frozen=True)
class Network:
    """A network that machines can be put into."""

    id: str
    name: str
    is_external: bool = False
    is_shared: bool = False


@dataclass(frozen=True)
class Quota:
    """A limit and what of it is used; ``limit`` None: none that the site told of."""

    limit: int | None = None
    used: int = 0

    @property
    def free(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


@dataclass(frozen=True)
class Partition:
    """A queue of a batch system."""

    name: str
    nodes: int = 0
    cores: int = 0
    cores_per_node: int = 0
    memory_mib_per_node: int = 0
    gpus: list[str] = field(default_factory=list)
    """GPUs of one node, by model."""
    max_wall_time_s: int | None = None
    is_default: bool = False
    idle_cores: int = 0


@dataclass(frozen=True)
class Facts:
    """What was discovered at an endpoint, for one VO or for all. Quotas by resource: ``cores``, ``memory_mib``,
    ``machines``, ``volumes``, ``storage_gib``, ``floating_ips``, ``gpus``."""

    flavours: list[Flavour] = field(default_factory=list)
    vm_images: list[VmImage] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    quotas: dict[str, Quota] = field(default_factory=dict)
    partitions: list[Partition] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    """Models of GPUs that can be had."""
    capacity: Capacity | None = None
    """Of endpoints that are computers: a host, a cluster."""
    load: float | None = None
    """How much of such a computer is in use, from 0 to 1."""
    notes: list[str] = field(default_factory=list)
    """What was left out or looks wrong, in words."""


@dataclass(frozen=True)
class Access:
    """A VO that an endpoint serves."""

    vo: str
    project: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as the API shows it. ``settings`` only for administrators of the site."""

    id: str
    name: str
    kind: str
    url: str | None
    health: Status
    vos: list[Access] = field(default_factory=list)
    settings: dict[str, Any] | None = None
    sign_in: dict[str, Any] = field(default_factory=dict)
    """How its users sign in, where they can: settings of its kind that are no business of administrators alone."""
    has_credential: bool = False
    discovered: datetime | None = None


@dataclass(frozen=True)
class DowntimeView:
    """A downtime of a site, or of one of its endpoints (by name)."""

    id: str
    site: str
    severity: str
    planned: bool
    starts: datetime
    ends: datetime
    description: str = ""
    endpoint: str | None = None
    by: str = ""


@dataclass(frozen=True)
class BanView:
    """A user or VO that a site does not serve."""

    kind: str
    who: str
    why: str
    since: datetime
    by: str


@dataclass(frozen=True)
class Site:
    """A site as the API shows it."""

    name: str
    kind: str
    owner: str
    status: Status
    capacity: Capacity
    pilots: int = 0
    running: int = 0
    description: str = ""
    country: str = ""
    visibility: str = "owner"
    contacts: list[Contact] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    vos: list[str] = field(default_factory=list)
    """The VOs that it serves: all for its administrators, the caller's own for others."""
    policy: SitePolicy = field(default_factory=SitePolicy)
    downtimes: list[DowntimeView] = field(default_factory=list)
    drained: str | None = None
    my_roles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SitePage:
    items: list[Site]
    next: str | None = None


@dataclass(frozen=True)
class NewBan:
    """A user or a VO that the site will not serve."""

    __pydantic_config__: ClassVar = STRICT

    kind: Literal["user", "vo"]
    who: Annotated[str, MinLen(1), MaxLen(200)]
    """Name or id of the user; name of the VO."""
    why: Why = ""


@dataclass(frozen=True)
class BanPage:
    items: list[BanView]
    next: str | None = None


@dataclass(frozen=True)
class NewDowntime:
    """A time for which a site will not work (``outage``), or may not (``at_risk``)."""

    __pydantic_config__: ClassVar = STRICT

    ends: datetime
    starts: datetime | None = None
    """Default: now. A start at least 24 hours ahead makes it a planned one."""
    severity: Literal["outage", "at_risk"] = "outage"
    description: Text = ""
    endpoint: Annotated[str, MaxLen(100)] | None = None
    """Name of the only endpoint that it is of. Default: all."""


@dataclass(frozen=True)
class DowntimePage:
    items: list[DowntimeView]
    next: str | None = None


@dataclass(frozen=True)
class Drain:
    """Why no new work may start there."""

    __pydantic_config__: ClassVar = STRICT

    why: Why = ""


@dataclass(frozen=True)
class Admins:
    """Names or ids of the users who administer a site."""

    __pydantic_config__: ClassVar = STRICT

    users: Annotated[list[str], MinLen(1), MaxLen(50)]


@dataclass(frozen=True)
class Period:
    """A day, a month: availability = up / (total - unknown), reliability leaves out planned downtime as well (both from
    0 to 1; none where nothing is known); seconds in each state."""

    label: str
    availability: float | None
    reliability: float | None
    up_s: float
    down_s: float
    unknown_s: float
    downtime_s: float


@dataclass(frozen=True)
class ProbeSpan:
    """A time over which all probes of an endpoint gave the same answer; ``took_ms`` is their mean."""

    begins: datetime
    ends: datetime
    answer: str
    stage: str
    message: str
    probes: int
    took_ms: int


@dataclass(frozen=True)
class CanaryView:
    """The smallest job, started to see whether it would: it ``ran`` after ``waited_s`` seconds, ``failed``, or was
    ``withdrawn``, which says nothing."""

    number: int
    sent: datetime
    ended: datetime
    state: str
    waited_s: float | None
    message: str


@dataclass(frozen=True)
class EndpointHistory:
    """How an endpoint is and was; the newest span first."""

    name: str
    kind: str
    health: Status
    total: Period
    spans: list[ProbeSpan]
    canaries: list[CanaryView] = field(default_factory=list)
    """The newest first."""


@dataclass(frozen=True)
class HealthReport:
    """How a site is and was. Of endpoints of a kind either will do, of kinds all are needed."""

    site: str
    status: Status
    days: list[Period]
    months: list[Period]
    endpoints: list[EndpointHistory]


@dataclass(frozen=True)
class ImportRequest:
    """Files of the EGI federation (``fedcloud-catchall-operations``), read as YAML: by file name, and the mapping from
    VOs to entitlements."""

    __pydantic_config__: ClassVar = STRICT

    documents: Annotated[dict[str, Any], MinLen(1), MaxLen(1000)]
    vo_mappings: Annotated[dict[str, str], MaxLen(5000)] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportedSite:
    """What became of a site: ``added``, ``changed``, ``unchanged`` or ``refused``."""

    site: str
    outcome: str
    files: list[str]
    endpoints: int
    vos: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImportReport:
    items: list[ImportedSite]
    next: str | None = None


@dataclass(frozen=True)
class CheckStep:
    """One thing that was tried. ``ok`` none: there was nothing to try it with."""

    stage: str
    ok: bool | None
    message: str


@dataclass(frozen=True)
class Requires:
    """Something that the site must allow: a ``role``, a ``firewall`` rule, a ``load``."""

    group: str
    what: str


@dataclass(frozen=True)
class CheckedEndpoint:
    """An endpoint that was tried, and what it must allow; ``calls_per_hour``: of its API, at rest."""

    name: str
    kind: str
    url: str | None
    steps: list[CheckStep]
    requires: list[Requires]
    calls_per_hour: int


@dataclass(frozen=True)
class CheckReport:
    """What joining this site would meet."""

    site: str
    ok: bool
    endpoints: list[CheckedEndpoint]


@dataclass(frozen=True)
class OwnSite:
    """A host of the caller's own ``~/.ssh/config``, on the caller's own server."""

    __pydantic_config__: ClassVar = STRICT

    host: Annotated[str, MinLen(1), MaxLen(253)]
    name: SiteName | None = None
    """Name of the site. Default: the host's."""
    config: Annotated[str, MaxLen(1000)] | None = None
    """Another configuration file than ``~/.ssh/config``."""
