"""Any other cloud that Apache Libcloud has a driver for."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import Field

from hansa.engines.libcloud import Account, RefusedSignInError, call
from hansa.engines.web import Web
from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds.base import JUMP, Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.wire import Facts, Flavour, Network, Quota, VmImage

MOST_IMAGES = 2000
CORES = ("vcpu", "vcpus", "cpu", "cpus", "cores", "guestCpus", "numberOfCores")
"""Where drivers have the number of a size's cores, among its extras."""
TRIED = {
    "opennebula": "tested against a server that speaks OCCI as Libcloud does, never at a real one.",
    "gce": "no request was ever sent there; the names of its arguments fit Libcloud's driver.",
    "azure_arm": "no request was ever sent there; the names of its arguments fit Libcloud's driver.",
}
"""How well a provider is known; EC2's whole life is tested against moto's server."""
UNTRIED = "untested, and it is given no user data and no SSH keys."
PROBE_S, LOOK_S = 20.0, 60.0


class LibcloudSettings(KindSettings):
    """Which driver of Apache Libcloud, and what it is told."""

    provider: str = Field(min_length=1, max_length=100)
    """Its name in ``libcloud.compute.types.Provider``, as ``ec2`` or ``gce``."""
    region: str | None = Field(default=None, max_length=200)
    """Region."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the driver. No secrets: those belong into the credential (``key``, ``secret``)."""
    create: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the driver's ``create_node``, for clouds other than ec2: ``{"ex_network": "lab"}``."""
    image_owner: str | None = Field(default=None, max_length=200)
    """Whose VM images are listed, where the cloud has millions. Default: the account's own."""
    subnet: str | None = Field(default=None, max_length=200)
    """Subnet for machines."""
    ssh_jump: str | None = Field(default=None, max_length=200, pattern=JUMP)
    """For ec2: the host before machines without a public address, ``USER@HOST:PORT``."""
    canary_image: str | None = Field(default=None, max_length=200)
    """VM image of canaries, by id or name. Default: a small one that the VO endorses, or else that is listed here."""
    canary_flavour: str | None = Field(default=None, max_length=200)
    """Flavour of canaries, by name. Default: the smallest without GPUs that the VM image fits."""
    zone: str | None = Field(default=None, max_length=200)
    """For ec2: the availability zone of machines and volumes. Default: that of the subnet, else the region's first."""


class LibcloudKind:
    """A cloud by Apache Libcloud."""

    name = "libcloud"
    settings: type[KindSettings] = LibcloudSettings
    has_url = True

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        tried = TRIED.get(target.settings.provider)
        said = f"Hansa with {target.settings.provider}: {tried or UNTRIED} Try a machine before users do."
        return Needs(
            (
                *((Requirement("trial", said),) if target.settings.provider != "ec2" else ()),
                Requirement("role", "A key that may create, list and delete machines, addresses and key pairs."),
                Requirement(
                    "firewall",
                    f"TCP from this server to the API of {target.settings.provider}: {target.url or 'port 443'}.",
                ),
            ),
            round(3600 / probe_s + 5 * max(1, len(target.vos)) * 3600 / discover_s),
        )

    async def probe(self, target: Target) -> Finding:
        """It answers; it lets us in and lists something small of ours."""
        account = account_of(target, next(iter(target.vos), None))
        if account is None:
            return await self._reach(target)
        try:
            await call(account, something_small, target.egress, PROBE_S)
        except RefusedSignInError as error:
            return Finding(Answer.DOWN, Stage.SIGN_IN, str(error), "sites.sign_in")
        except Permanent as error:
            return Finding(Answer.DOWN, Stage.LIST, str(error), "sites.list")
        except Temporary as error:
            return Finding(Answer.DOWN, Stage.REACH, str(error), "sites.unreachable")
        return Finding(Answer.UP, Stage.LIST, "It lets us in and lists what we have there.")

    async def discover(self, target: Target, vo: str | None) -> Facts:
        account = account_of(target, vo)
        if account is None:
            return Facts(notes=["There is no credential to look with: key and secret are needed."])
        owner = target.settings.image_owner
        return await call(account, lambda driver: look(driver, owner), target.egress, LOOK_S)

    async def _reach(self, target: Target) -> Finding:
        if target.url is None:
            message = "There is nothing to look with: no address, and no credential (key, secret)."
            return Finding(Answer.UNKNOWN, Stage.REACH, message)
        try:
            async with Web(target.egress) as web:
                await web.ask("GET", target.url)
        except (Permanent, Temporary) as error:
            return Finding(Answer.DOWN, Stage.REACH, str(error), "sites.unreachable")
        return Finding(Answer.UP, Stage.REACH, "It answers; there is no credential to sign in with.")


def account_of(target: Target, vo: str | None) -> Account | None:
    """With what to sign in for a VO: its own key (``VO/key``) where there is one, else the site's; None: nothing."""
    given, settings = target.credential, target.settings
    prefix = f"{vo}/" if vo and f"{vo}/key" in given else ""
    if f"{prefix}key" not in given:
        return None
    key, secret, token = (given.get(f"{prefix}{name}") for name in ("key", "secret", "token"))
    return Account(settings.provider, key or "", secret, token, settings.region, target.url, settings.options)


def something_small(driver: Any) -> None:
    """The first of these that the driver has. Blocks."""
    for name in ("list_key_pairs", "list_locations", "list_nodes"):
        try:
            getattr(driver, name)()
        except NotImplementedError:
            continue
        return
    raise Permanent("This driver of Libcloud can list nothing.")


def look(driver: Any, image_owner: str | None) -> Facts:
    """Everything that discovery wants; what a driver cannot say is left out, with a note. Blocks."""
    notes: list[str] = []
    flavours = [flavour(one) for one in _asked(driver, "list_sizes", notes)]
    takes = inspect.signature(driver.list_images).parameters
    owner = {"ex_owner": image_owner or "self"} if "ex_owner" in takes else {}
    found = _asked(driver, "list_images", notes, **owner)
    images = [VmImage(str(one.id), one.name or str(one.id), is_public=_is_public(one)) for one in found[:MOST_IMAGES]]
    if len(found) > MOST_IMAGES:
        notes.append(f"It has more than {MOST_IMAGES} VM images; the others are left out.")
    where = "ex_list_subnets" if hasattr(driver, "ex_list_subnets") else "ex_list_networks"
    networks = [Network(str(one.id), one.name or str(one.id)) for one in _asked(driver, where, notes)]
    models = sorted({one.gpu_model for one in flavours if one.gpu_model})
    return Facts(flavours, images, networks, quotas(driver, notes), gpus=models, notes=notes)


def _asked(driver: Any, name: str, notes: list[str], **given: Any) -> list[Any]:
    method = getattr(driver, name, None)
    try:
        return list(method(**given)) if method is not None else []
    except NotImplementedError:
        notes.append(f"The driver of Libcloud cannot {name.removeprefix('ex_').replace('_', ' ')}.")
        return []


def _is_public(image: Any) -> bool:
    """EC2 says so of each; other clouds say nothing. Pure."""
    return str((image.extra or {}).get("is_public", True)).lower() == "true"


def flavour(one: Any) -> Flavour:
    """A size. Cores and GPUs are among its extras, under whatever name the driver gave them. Pure."""
    extra = one.extra or {}
    cores = next((_whole(extra[name]) for name in CORES if name in extra), 0)
    gpus = _whole(extra.get("gpu", 0))
    model = str(extra.get("gpuModel") or extra.get("gpu_model") or "gpu") if gpus else ""
    return Flavour(str(one.id), one.name, max(1, cores), _whole(one.ram), _whole(one.disk), gpus, model)


def quotas(driver: Any, notes: list[str]) -> dict[str, Quota]:
    """Limits of the account, where the driver knows of any, and how many machines count against them."""
    if not hasattr(driver, "ex_get_limits"):
        return {}
    try:
        limits = driver.ex_get_limits().get("resource", {})
    except ValueError:  # clouds like EC2 answer with more than was asked, which the driver takes for numbers
        notes.append("It does not say its limits as Libcloud reads them.")
        return {}
    if "max-instances" not in limits:
        return {}
    used = [one for one in _asked(driver, "list_nodes", notes) if str(one.state) != "terminated"]
    return {"machines": Quota(int(limits["max-instances"]), len(used))}


def _whole(value: Any) -> int:
    """A number of whatever a driver says; 0 for ``NA`` and nothing."""
    try:
        return max(0, int(float(value or 0)))
    except (TypeError, ValueError):
        return 0
