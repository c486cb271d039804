"""Where this server may not act for somebody: nothing of theirs starts there until they sign in again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from hansa.identity.authority import RENEW, AuthorityService
from hansa.kernel.database import Tx
from hansa.kernel.status import Status
from hansa.placement.model import Candidate, Refusal
from hansa.sites.model import SiteView, Visibility
from hansa.sites.service import LOCAL


def of_others(sites: Iterable[SiteView]) -> list[SiteView]:
    """Sites at which pilots need their owner's word: all but this computer, and those of the owner's own login."""
    return [one for one in sites if one.kind != LOCAL and one.visibility is not Visibility.OWNER]


async def lapsed_at(
    tx: Tx, authority: AuthorityService, sites: Sequence[SiteView], user_id: str, vo: str | None, until: datetime
) -> dict[str, Status]:
    """Of these sites those where no grant of authority lasts until then, and why. Who has a lasting sign-in has one
    everywhere; else it is the VO's credential at the site that counts."""
    mine = await authority.look(tx, user_id, until) if sites else None
    if not isinstance(mine, Status):
        return {}
    found = {}
    for site in sites:
        good = await authority.look(tx, user_id, until, vo=vo, site=site.name) if vo else mine
        if isinstance(good, Status):
            found[site.name] = good
    return found


def refused(candidates: Iterable[Candidate], lapsed: Mapping[str, Status]) -> list[Candidate]:
    """The candidates, with a refusal at those sites."""
    return [without_authority(one, lapsed[one.site]) if one.site in lapsed else one for one in candidates]


def without_authority(candidate: Candidate, status: Status) -> Candidate:
    """A place where nothing of the user's may start: there is no grant of authority that lasts."""
    refusal = Refusal(status.reason, status.message, RENEW, status.waiting_on)
    return replace(candidate, refusals=(*candidate.refusals, refusal))
