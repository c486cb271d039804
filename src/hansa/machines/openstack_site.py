"""From an OpenStack endpoint of the registry to the driver of its machines."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hansa.engines.openstack import ApplicationCredential, Cloud, Clouds, Credential
from hansa.machines.drivers.base import Machines, Refused, Why
from hansa.machines.drivers.openstack import OpenstackMachines
from hansa.machines.places import Holder
from hansa.sites.kinds import openstack_look as look
from hansa.sites.kinds.base import Target, parse_settings

K = TypeVar("K")
V = TypeVar("V")
KEPT = 1000
"""Projects, and drivers, that are remembered."""


class OpenstackSites:
    """Makes drivers, one for each project and credential, and keeps them: they hold the locks of what is made once."""

    def __init__(self) -> None:
        self._clouds = Clouds()
        self._projects: dict[tuple[str, str | None, str], str] = {}
        self._drivers: dict[tuple[str, str | None, str], OpenstackMachines] = {}

    async def build(self, target: Target, holder: Holder) -> Machines:
        """The driver for whom it acts. Raises Refused SIGN_IN where there is nothing to sign in with."""
        target = _for_vo(target, holder.vo)
        credential = _credential(target, holder)
        cloud = await self._cloud(target, holder, credential)
        key = (target.id, cloud.place.project_id, credential.identity)
        driver = self._drivers.get(key)
        if driver is None or driver.cloud is not cloud:
            settings = target.settings
            driver = OpenstackMachines(cloud, settings.network, settings.external_network, settings.ssh_jump)
            _remember(self._drivers, key, driver)
        return driver

    async def _cloud(self, target: Target, holder: Holder, credential: Credential) -> Cloud:
        """The cloud in the project of the VO. An application credential has its project in it."""
        if isinstance(credential, ApplicationCredential):
            return self._clouds.at(look.place(target, None), credential, target.egress)
        key = (target.id, holder.vo, credential.identity)
        project_id = self._projects.get(key)
        if project_id is None:
            projects = await self._clouds.at(look.place(target, None), credential, target.egress).projects()
            found = look.project_of(projects, target, holder.vo)
            if found is None:
                names = ", ".join(sorted(one.name for one in projects)) or "none"
                said = f"{target.site} has no project of {holder.vo or 'yours'} for this credential; it has: {names}."
                raise Refused(Why.SIGN_IN, said)
            project_id = found.id
            _remember(self._projects, key, project_id)
        return self._clouds.at(look.place(target, project_id), credential, target.egress)

    def close(self) -> None:
        self._clouds.close()


def _for_vo(target: Target, vo: str | None) -> Target:
    """With what differs for the VO, as its region or network."""
    access = target.vos.get(vo) if vo else None
    if access is None or not access.settings:
        return target
    merged = {**target.settings.model_dump(exclude_unset=True), **access.settings}
    return replace(target, settings=parse_settings(target.kind, merged))


def _credential(target: Target, holder: Holder) -> Credential:
    found = look.credential(target, holder.vo)
    if found is None:
        raise Refused(Why.SIGN_IN, f"There is nothing to sign in with at {target.site} for {holder.vo or 'you'}.")
    return found


def _remember(kept: dict[K, V], key: K, value: V) -> None:
    kept[key] = value
    while len(kept) > KEPT:
        kept.pop(next(iter(kept)))
