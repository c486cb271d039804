"""Calls of the API about sites: grants of capacity, steering, health, plans, usage."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hansa.accounting.wire import UsagePage
from hansa.client.api import call, get, part, send
from hansa.client.effects import Operation, Request
from hansa.placement.wire import Plan, PlanRequest
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant, GrantCaps, GrantPage, GrantTerms, RefuseGrant
from hansa.sites.wire import (
    Admins,
    BanPage,
    BanView,
    CheckReport,
    DowntimePage,
    DowntimeView,
    Drain,
    HealthReport,
    ImportReport,
    ImportRequest,
    NewBan,
    NewDowntime,
    OwnSite,
    Site,
    SitePage,
)


def sites(after: str | None = None) -> Operation[SitePage]:
    return (yield from get(SitePage, "/sites", after=after))


def site(name: str) -> Operation[Site]:
    return (yield from get(Site, f"/sites/{quote(name, safe='')}"))


def add_site(site: dict[str, Any]) -> Operation[Site]:
    """Join a site; ``site`` is what its file says. The server looks at it."""
    return (yield from send(Site, "POST", "/sites", site, repeatable=False))


def check_site(site: dict[str, Any]) -> Operation[CheckReport]:
    """What joining the site would meet; nothing is joined."""
    return (yield from send(CheckReport, "POST", "/sites/check", site))


def import_sites(documents: dict[str, Any], vo_mappings: dict[str, str]) -> Operation[ImportReport]:
    return (yield from send(ImportReport, "POST", "/sites/import", ImportRequest(documents, vo_mappings)))


def add_own_site(host: str, name: str | None = None, config: str | None = None) -> Operation[Site]:
    """A host of one's own SSH configuration, as a site of the server on this computer."""
    return (yield from send(Site, "POST", "/sites/own", OwnSite(host, name, config), repeatable=False))


def probe_site(name: str) -> Operation[None]:
    yield from call(Request("POST", f"/sites/{part(name)}/probe"))


def change_site(name: str, site: dict[str, Any]) -> Operation[Site]:
    return (yield from send(Site, "PUT", f"/sites/{part(name)}", site))


def remove_site(name: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{part(name)}", repeatable=False))


def plan(request: PlanRequest) -> Operation[Plan]:
    """Where something would run now; nothing is started."""
    return (yield from send(Plan, "POST", "/plan", request))


def grants(after: str | None = None) -> Operation[GrantPage]:
    return (yield from get(GrantPage, "/grants", after=after))


def grant(vo: str, site: str) -> Operation[Grant]:
    return (yield from get(Grant, f"/grants/{part(vo)}/{part(site)}"))


def ask_grant(vo: str, site: str, terms: GrantTerms, note: str = "") -> Operation[Grant]:
    """Ask a site for capacity; asked twice it is asked once."""
    return (yield from send(Grant, "POST", "/grants", AskGrant(vo, site, terms, note)))


def agree_grant(vo: str, site: str, terms: GrantTerms | None = None, note: str = "") -> Operation[Grant]:
    """Agree to what was asked (None), or to other terms."""
    return (yield from send(Grant, "POST", f"/grants/{part(vo)}/{part(site)}/agree", AgreeGrant(terms, note)))


def refuse_grant(vo: str, site: str, why: str) -> Operation[Grant]:
    path = f"/grants/{part(vo)}/{part(site)}/refuse"
    return (yield from send(Grant, "POST", path, RefuseGrant(why), repeatable=False))


def cap_grant(vo: str, site: str, caps: GrantCaps) -> Operation[Grant]:
    return (yield from send(Grant, "PUT", f"/grants/{part(vo)}/{part(site)}/caps", caps))


def set_site_policy(name: str, policy: dict[str, Any]) -> Operation[Site]:
    return (yield from send(Site, "PUT", f"/sites/{part(name)}/policy", policy))


def set_site_admins(name: str, users: list[str]) -> Operation[Admins]:
    return (yield from send(Admins, "PUT", f"/sites/{part(name)}/admins", Admins(users)))


def drain_site(name: str, why: str) -> Operation[Site]:
    return (yield from send(Site, "POST", f"/sites/{part(name)}/drain", Drain(why)))


def resume_site(name: str) -> Operation[Site]:
    return (yield from send(Site, "POST", f"/sites/{part(name)}/resume"))


def bans(name: str) -> Operation[BanPage]:
    return (yield from get(BanPage, f"/sites/{part(name)}/bans"))


def ban(name: str, new: NewBan) -> Operation[BanView]:
    return (yield from send(BanView, "POST", f"/sites/{part(name)}/bans", new))


def unban(name: str, kind: str, who: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{part(name)}/bans/{kind}/{part(who)}"))


def downtimes(name: str, since: str | None = None) -> Operation[DowntimePage]:
    return (yield from get(DowntimePage, f"/sites/{part(name)}/downtimes", since=since))


def announce_downtime(name: str, new: NewDowntime) -> Operation[DowntimeView]:
    path = f"/sites/{part(name)}/downtimes"
    return (yield from send(DowntimeView, "POST", path, new, repeatable=False))


def end_downtime(name: str, downtime: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{part(name)}/downtimes/{part(downtime)}", repeatable=False))


def site_health(name: str, days: int = 30) -> Operation[HealthReport]:
    return (yield from get(HealthReport, f"/sites/{part(name)}/health", days=days))


def usage(by: str | None = None, **asked: Any) -> Operation[UsagePage]:
    """Sums of usage records, ``by`` words with commas; ``asked``: since, until, vo, site, user, everybody."""
    query: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, False)}
    query |= {"everybody": "true"} if asked.get("everybody") else {}
    return (yield from get(UsagePage, "/usage", by=by, **query))


def usage_apel(since: str | None = None, until: str | None = None, site: str | None = None) -> Operation[str]:
    """Usage as APEL's summary messages."""
    response = yield from call(Request("GET", "/usage/apel", {"since": since, "until": until, "site": site}))
    return response.body.decode()
