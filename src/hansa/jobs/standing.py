"""How a task queue stands: why nothing of it can start now, and who must act. Pure.

It is kept with the queue, not with its jobs: a million of them would have to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.identity.errors import GRANT_EXPIRED
from hansa.jobs.sizing import Live
from hansa.kernel.status import Party
from hansa.placement import choose
from hansa.placement.filter import OWN_CHOICE
from hansa.placement.model import Choice, Finding

_SHOWN = 3
_URGENCY = (Party.USER, Party.VO_MANAGER, Party.SITE, Party.HANSA, Party.NOBODY)
_WORDS = {
    "sites.login": "jobs.login",
    GRANT_EXPIRED.code: GRANT_EXPIRED.code,
    "placement.no_grant": "jobs.no_grant",
    "placement.grant_used_up": "jobs.no_grant",
}


@dataclass(frozen=True)
class Standing:
    """The status of what waits in a queue, where that is not simply for a pilot."""

    reason: str
    message: str
    waiting_on: str


def standing_of(choice: Choice, serving: Sequence[Live], told: Sequence[str]) -> Standing | None:
    """Why nothing can start; None: something can. ``serving``: pilots that could run it; ``told``: why there are no
    more of them.
    """
    if any(not one.trouble for one in serving):
        return None
    if serving and (choice.order or not choice.rejected):
        first = min(serving, key=lambda one: _URGENCY.index(Party(one.waiting_on)))
        reason = "jobs.login" if first.waiting_on == Party.USER.value else "jobs.no_start"
        return Standing(reason, f"A pilot cannot be started at {first.place.site}: {first.trouble}", first.waiting_on)
    if choice.order:
        return Standing("jobs.no_room", f"It waits: {_listed(told)}.", Party.SITE.value) if told else None
    verdicts = [(candidate, choose.explain(choice, candidate)) for candidate in choice.rejected]
    wanted = [one for one in verdicts if not any(found.reason in OWN_CHOICE for found in one[1].findings)]
    # One that lacks a single thing is nearer than one that lacks many; a user can act at once.
    near = sorted(wanted or verdicts, key=lambda one: (len(one[1].findings), _urgency(one[1].findings), one[0].key))
    if not near:
        return Standing("jobs.no_site", "No site serves you now.", Party.SITE.value)
    nearest = near[0][1].findings
    said = [f"{candidate.site}: {' '.join(finding.message for finding in one.findings)}" for candidate, one in near]
    reason = _WORDS.get(nearest[0].reason, "jobs.no_site_now") if nearest else "jobs.no_site_now"
    what = f" {nearest[0].remedy}" if nearest and nearest[0].reason == GRANT_EXPIRED.code else ""
    return Standing(reason, f"Nowhere can it start now. {_listed(said, ' ')}{what}", _party(nearest).value)


def _urgency(findings: Sequence[Finding]) -> int:
    return min((_URGENCY.index(one.waiting_on) for one in findings), default=len(_URGENCY))


def _party(findings: Sequence[Finding]) -> Party:
    return findings[0].waiting_on if findings else Party.SITE


def _listed(said: Sequence[str], between: str = "; ") -> str:
    more = f"{between}… and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return between.join(said[:_SHOWN]) + more
