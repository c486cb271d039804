"""An OpenStack cloud."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hansa.engines.openstack import ApplicationCredential, Cloud, Clouds, Credential
from hansa.engines.web import Web
from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds import openstack_look as look
from hansa.sites.kinds.base import JUMP, Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.wire import Facts


class OpenstackSettings(KindSettings):
    """How Hansa signs in at a keystone. The conventions of the EGI federation are the defaults."""

    shown: ClassVar[tuple[str, ...]] = (
        *("auth", "identity_provider", "protocol", "issuer", "region", "project_property", "ca"),
    )

    auth: str = Field(
        default="v3oidcaccesstoken", pattern="^(v3oidcaccesstoken|v3applicationcredential|v3password|v3token)$"
    )
    """Way to sign in, as keystoneauth calls it: ``v3oidcaccesstoken`` (federated: the users' own tokens),
    ``v3applicationcredential`` or ``v3password`` (a credential of the VO or the site)."""
    identity_provider: str = Field(default="egi.eu", max_length=200)
    """Name of the identity provider in that keystone."""
    protocol: str = Field(default="openid", max_length=100)
    """Name of the federation protocol in that keystone."""
    region: str | None = Field(default=None, max_length=200)
    """Region, where there are several."""
    interface: str = Field(default="public", pattern="^(public|internal|admin)$")
    """Which addresses of the catalogue are used."""
    issuer: str = Field(default="https://aai.egi.eu/auth/realms/egi", max_length=500)
    """OpenID issuer whose tokens it takes (``v3oidcaccesstoken``), so that no token goes to a site that has no use for
    it. A site that trusts this server: the server's own, as ``hansa whoami`` shows it."""
    project_property: str = Field(default="egi.VO", max_length=200)
    """Property of a project that names its VO."""
    ca: str | None = None
    """PEM of the authority that signed its certificate, where computers do not know it."""
    network: str | None = Field(default=None, max_length=200)
    """Network for machines, by name or id. Default: found by looking."""
    external_network: str | None = Field(default=None, max_length=200)
    """Network from which floating addresses come. Default: found by looking."""
    ssh_jump: str | None = Field(default=None, max_length=200, pattern=JUMP)
    """Host before machines without a public address, ``USER@HOST:PORT``: ``hansa machine ssh`` goes through it. Without
    USER everybody is there what he is called at home."""
    canary_image: str | None = Field(default=None, max_length=200)
    """VM image of canaries, by id or name. Default: a small one that the VO endorses, or else a public one."""
    canary_flavour: str | None = Field(default=None, max_length=200)
    """Flavour of canaries, by name. Default: the smallest without GPUs that the VM image fits."""
    image_sync: bool | None = None
    """Whether the VM images that a VO endorses are brought here by themselves; also for one VO only, in its settings.
    Default: yes; at a site that somebody keeps for himself only when a machine is started of one. No: nothing is sent
    here, not for a machine either, and machines start of the site's own images only."""
    image_formats: list[str] = Field(default_factory=lambda: ["qcow2", "raw"], max_length=20)
    """Formats of VM images that it takes."""
    entitlement: str | None = Field(default=None, max_length=500)
    """Of a VO: the entitlement (AARC-G002) that the site's mapping asks of its members."""
    accounting_name: str | None = Field(default=None, max_length=200)
    """Name of the site in usage records. Default: the site's."""


class OpenstackKind:
    """An OpenStack cloud."""

    name = "openstack"
    settings: type[KindSettings] = OpenstackSettings
    has_url = True

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        vos = max(1, len(target.vos))
        return Needs(
            (
                Requirement("role", "member in the project of each VO (compute, network, volume, image)."),
                Requirement(
                    "role",
                    f"Identity provider {target.settings.identity_provider}, protocol {target.settings.protocol}, with"
                    " a mapping from the VO's entitlement to its project."
                    if target.settings.auth == "v3oidcaccesstoken"
                    else "An application credential for each VO, or for the site.",
                ),
                Requirement("firewall", f"TCP from this server to {target.url} and to the addresses of its catalogue."),
                Requirement("firewall", "TCP 22 from this server to the machines, or to one jump host before them."),
            ),
            round(3 * 3600 / probe_s + 6 * vos * 3600 / discover_s),
        )

    def __init__(self) -> None:
        self._clouds: Clouds | None = None

    async def probe(self, target: Target) -> Finding:
        """Its keystone answers; it lets us in; the images of the first VO can be listed."""
        if (problem := await self._reach(target)) is not None:
            return problem
        vo = next(iter(target.vos), None)
        credential = look.credential(target, vo)
        if credential is None:
            return Finding(Answer.UP, Stage.REACH, "It answers; there is no credential to sign in with.")
        try:
            cloud = await self._project(target, vo, credential)
            await cloud.call(lambda connection: connection.session.get_token())
        except Permanent as error:
            return Finding(Answer.DOWN, Stage.SIGN_IN, str(error), "sites.sign_in")
        try:
            await cloud.call(lambda connection: next(iter(connection.image.images(limit=1)), None))
        except (Permanent, Temporary) as error:
            return Finding(Answer.DOWN, Stage.LIST, str(error), "sites.list")
        return Finding(Answer.UP, Stage.LIST, "It lets us in and lists its VM images.")

    async def discover(self, target: Target, vo: str | None) -> Facts:
        credential = look.credential(target, vo)
        if credential is None:
            return Facts(notes=["There is no credential to look with."])
        cloud = await self._project(target, vo, credential)
        return await cloud.call(look.look)

    async def _reach(self, target: Target) -> Finding | None:
        """What is wrong with its address; None: an identity service answers there."""
        try:
            async with Web(target.egress, target.settings.ca) as web:
                _, body = await web.ask("GET", (target.url or "").rstrip("/") + "/")
        except (Permanent, Temporary) as error:
            return Finding(Answer.DOWN, Stage.REACH, str(error), "sites.unreachable")
        if not look.is_keystone(body):
            message = "What answers there is no keystone of version 3."
            return Finding(Answer.DOWN, Stage.REACH, message, "sites.garbage")
        return None

    async def _project(self, target: Target, vo: str | None, credential: Credential) -> Cloud:
        """The cloud in the project of a VO. An application credential has its project in it."""
        if self._clouds is None:
            self._clouds = Clouds()
        if isinstance(credential, ApplicationCredential):
            return self._clouds.at(look.place(target, None), credential, target.egress)
        projects = await self._clouds.at(look.place(target, None), credential, target.egress).projects()
        found = look.project_of(projects, target, vo)
        if found is None:
            names = ", ".join(sorted(one.name for one in projects)) or "none"
            raise Permanent(f"{target.site} has no project of {vo} for this credential; it has: {names}.")
        return self._clouds.at(look.place(target, found.id), credential, target.egress)
