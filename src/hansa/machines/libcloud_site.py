"""From an endpoint of the kind ``libcloud`` to the driver of its machines: EC2 has its own, others share one."""

from __future__ import annotations

from hansa.machines.drivers.base import Machines, Refused, Why
from hansa.machines.drivers.ec2 import Ec2Machines
from hansa.machines.drivers.libcloud import LibcloudMachines
from hansa.machines.places import Holder
from hansa.sites.kinds.base import Target
from hansa.sites.kinds.libcloud import account_of


async def build(target: Target, holder: Holder) -> Machines:
    """The driver for whom it acts. Raises Refused SIGN_IN without a key."""
    account = account_of(target, holder.vo)
    if account is None:
        raise Refused(Why.SIGN_IN, f"There is nothing to sign in with at {target.site} for {holder.vo or 'you'}.")
    if target.settings.provider == "ec2":
        settings = target.settings
        return Ec2Machines(account, target.egress, settings.subnet, settings.zone, settings.ssh_jump)
    return LibcloudMachines(account, target.egress, target.settings.create)
