"""With what this server looks at a site for a VO: the VO's own credential there, or a token that the site trusts.

A token says who a person is, so it is one of somebody whose business the site is: its administrators who are in the
VO, then the VO's managers. It goes to no site but one that trusts its issuer (setting ``issuer`` of the endpoint): of a
lasting sign-in at that issuer, or where the site trusts this server, one that is made for it and good for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.identity.provider.service import ProviderService
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.sites import store
from hansa.sites.kinds.base import Target

LASTS = timedelta(minutes=30)
MARGIN = timedelta(minutes=5)
_AGAIN = timedelta(minutes=1)
"""After an issuer gave no token, it is asked for the same one no sooner."""


@dataclass(frozen=True)
class _Kept:
    value: str | None
    until: datetime


class SiteTokens:
    """Equips targets with what to sign in with. Never asked inside a transaction."""

    def __init__(
        self, database: Database, clock: Clock, authority: AuthorityService, provider: ProviderService
    ) -> None:
        self._database = database
        self._clock = clock
        self._authority = authority
        self._provider = provider
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def equip(self, target: Target, vo: str | None, people: Sequence[str] = ()) -> Target:
        """The target with the VO's credential and a token, where there are such. ``people``: whose token it may be
        (ids of users, the first first). Default: whose business the site is."""
        issuer = getattr(target.settings, "issuer", None)
        async with self._database.read() as tx:
            own = await self._authority.site_credential(tx, vo, target.site) if vo else None
            names = list(people) or await people_for(tx, target.site, vo)
        if own:
            given = {**target.credential, **{f"{vo}/{name}": value for name, value in own.items()}}
            return replace(target, credential=given, token=None)
        if not issuer or getattr(target.settings, "auth", "") != "v3oidcaccesstoken":
            return target
        for user_id in names:
            token = await self._token(user_id, issuer, target.url or "")
            if token is not None:
                return replace(target, token=token, holder=user_id)
        return replace(target, token=None)

    async def _token(self, user_id: str, issuer: str, url: str) -> str | None:
        now = self._clock.now()
        key = (user_id, url if issuer == self._provider.issuer else issuer)
        kept = self._kept.get(key)
        if kept is not None and kept.until > now:
            return kept.value
        if issuer == self._provider.issuer:
            value = await self._provider.issue_for_site(user_id, url, LASTS)
            kept = _Kept(value, now + (LASTS - MARGIN if value else _AGAIN))
        else:
            kept = await self._from_issuer(user_id, issuer, now)
        self._kept = {one: other for one, other in self._kept.items() if other.until > now} | {key: kept}
        return kept.value

    async def _from_issuer(self, user_id: str, issuer: str, now: datetime) -> _Kept:
        async with self._database.read() as tx:
            grant_id = await self._authority.offline_grant(tx, user_id, issuer)
        if grant_id is None:
            return _Kept(None, now + _AGAIN)
        try:
            token = await self._authority.access_token(grant_id, MARGIN)
        except Fault:  # it has lapsed, or the issuer is away: both are shown where grants are
            return _Kept(None, now + _AGAIN)
        return _Kept(token.value, token.expires - MARGIN)


async def people_for(tx: Tx, site: str, vo: str | None) -> list[str]:
    """Whose business it is: administrators of the site, of those for a VO its members; then the VO's managers."""
    admins = [str(row.user_id) for row in await store.admins_of(tx, site)]
    if vo is None:
        return admins
    members = [one for one in admins if _is_active(await vo_store.get_membership(tx, vo, one))]
    return list(dict.fromkeys([*members, *await vo_store.managers(tx, vo)]))


def _is_active(membership: Any) -> bool:
    return membership is not None and not membership.suspended
