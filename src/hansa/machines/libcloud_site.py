"""From an endpoint of the kind ``libcloud`` to the driver of its machines. Of its many clouds those that speak EC2."""

from __future__ import annotations

from hansa.machines.drivers.base import Machines, Refused, Why
from hansa.machines.drivers.ec2 import Ec2Machines
from hansa.machines.places import Holder
from hansa.sites.kinds.base import Target
from hansa.sites.kinds.libcloud import account_of


async def build(target: Target, holder: Holder) -> Machines:
    """The driver for whom it acts. Raises Refused UNABLE for other providers, SIGN_IN without a key."""
    provider = target.settings.provider
    if provider != "ec2":
        raise Refused(Why.UNABLE, f"Machines at {provider} cannot be started yet: of Libcloud's clouds only ec2.")
    account = account_of(target, holder.vo)
    if account is None:
        raise Refused(Why.SIGN_IN, f"There is nothing to sign in with at {target.site} for {holder.vo or 'you'}.")
    return Ec2Machines(account, target.egress, target.settings.subnet)
