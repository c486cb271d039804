"""``hansa site add``, ``drain``, ``ban``, ``downtime …``: for who keeps a site."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.cli.site_file import read_site_file, read_yaml
from hansa.cli.site_login import add_own
from hansa.cli.sites import site_details
from hansa.client import site_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.units import parse_time
from hansa.sites.wire import BanView, DowntimeView, ImportedSite, NewBan, NewDowntime, Site

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def show_site(site: Site, form: str) -> None:
    emit_one(site, form, site_details, lambda found: found.name)


@click.command(epilog=examples("hansa site add site.yaml", "hansa site add --ssh mycluster"))
@click.argument("file", type=FILE, required=False)
@click.option("--ssh", "host", metavar="HOST", help="A host of your ~/.ssh/config, as a site of yours alone.")
@click.option("--name", metavar="NAME", help="With --ssh: the site's name. [default: the host's]")
@click.option("--ssh-config", type=FILE, help="With --ssh: another file than ~/.ssh/config.")
@output_option()
def add(file: Path | None, host: str | None, name: str | None, ssh_config: Path | None, *, form: str) -> None:
    """Join the site that FILE describes, or with --ssh a computer or cluster of your own."""
    if (file is None) == (host is None):
        raise HansaError(USAGE, "Give a site file, or --ssh HOST.")
    if file is not None:
        show_site(open_session().run(site_api.add_site(read_site_file(file))), form)
    else:
        show_site(add_own(host or "", name, ssh_config), form)


@click.command(epilog=examples("hansa site check site.yaml"))
@click.argument("file", type=FILE)
@output_option()
def check(file: Path, *, form: str) -> None:
    """Try the site that FILE describes, without joining it, and print what it must allow. The exit code tells."""
    found = open_session().run(site_api.check_site(read_site_file(file)))
    if form == "table":
        for end in found.endpoints:
            click.echo(f"{found.site}, {end.name} ({end.kind}) {end.url or ''}".rstrip())
            for step in end.steps:
                click.echo(f"  {'-' if step.ok is None else 'ok' if step.ok else 'NO':2}  {step.stage}: {step.message}")
            click.echo("  The site must allow:")
            for need in end.requires:
                click.echo(f"    {need.group}: {need.what}")
            click.echo(f"    load: about {end.calls_per_hour} calls of its API per hour, at rest.")
    else:
        emit_one(found, form, lambda one: {"site": one.site}, lambda one: one.site)
    if not found.ok:
        sys.exit(1)


@click.command("import", epilog=examples("hansa site import sites/ --vo-mappings vo-mappings.yaml"))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--vo-mappings", type=FILE, help="The federation's vo-mappings.yaml. [default: beside FOLDER]")
@output_option()
def import_sites(folder: Path, vo_mappings: Path | None, *, form: str) -> None:
    """Import the EGI federation's site files in FOLDER: new sites, or news of those there are. For operators."""
    beside = folder.parent / "vo-mappings.yaml"
    mappings = vo_mappings or (beside if beside.is_file() else None)
    documents = {one.name: read_yaml(one) for one in sorted(folder.glob("*.y*ml"))}
    if not documents:
        raise HansaError(USAGE, f"{folder} has no YAML files in it.")
    vos = (read_yaml(mappings) or {}).get("vos", {}) if mappings else {}
    report = open_session().run(site_api.import_sites(documents, vos))
    emit(report.items, form, _import_cells, lambda one: one.site)
    for one in report.items:
        for said in one.notes:
            note(f"{one.site}: {said}")


def _import_cells(one: ImportedSite) -> dict[str, Any]:
    return {"site": one.site, "outcome": one.outcome, "endpoints": one.endpoints, "vos": one.vos}


@click.command(epilog=examples("hansa site update site.yaml"))
@click.argument("file", type=FILE)
@output_option()
def update(file: Path, *, form: str) -> None:
    """Make a site what FILE says. Credentials that it does not name stay."""
    found = read_site_file(file)
    show_site(open_session().run(site_api.change_site(str(found.get("name", "")), found)), form)


@click.command(epilog=examples("hansa site remove NEBULA"))
@click.argument("site", shell_complete=completion.sites)
def remove(site: str) -> None:
    """Forget SITE, its history and its credentials. What runs there is not touched."""
    open_session().run(site_api.remove_site(site))
    note(f"{site} is no longer a site of this server")


@click.command(epilog=examples("hansa site policy NEBULA policy.yaml"))
@click.argument("site", shell_complete=completion.sites)
@click.argument("file", type=FILE)
@output_option()
def policy(site: str, file: Path, *, form: str) -> None:
    """Give SITE the policy in FILE: who, which VM images, how long, pilots or not."""
    found = read_site_file(file)
    show_site(open_session().run(site_api.set_site_policy(site, found.get("policy", found))), form)


@click.command(epilog=examples("hansa site admins NEBULA maria paul"))
@click.argument("site", shell_complete=completion.sites)
@click.argument("users", nargs=-1, required=True)
def admins(site: str, users: tuple[str, ...]) -> None:
    """Make USERS the administrators of SITE, in the place of those there were."""
    found = open_session().run(site_api.set_site_admins(site, list(users)))
    note(f"{site} is administered by {', '.join(found.users)}")


@click.command(epilog=examples("hansa site drain NEBULA --why 'New switches on Monday'"))
@click.argument("site", shell_complete=completion.sites)
@click.option("--why", default="", metavar="TEXT", help="For its users.")
@output_option()
def drain(site: str, why: str, *, form: str) -> None:
    """Let no new work start at SITE. What runs goes on."""
    show_site(open_session().run(site_api.drain_site(site, why)), form)


@click.command(epilog=examples("hansa site resume NEBULA"))
@click.argument("site", shell_complete=completion.sites)
@output_option()
def resume(site: str, *, form: str) -> None:
    """Let new work start at SITE again."""
    show_site(open_session().run(site_api.resume_site(site)), form)


def _ban_cells(one: BanView) -> dict[str, Any]:
    return {"kind": one.kind, "who": one.who, "why": one.why, "by": one.by, "since": one.since}


def _who(user: str | None, vo: str | None) -> NewBan:
    if (user is None) == (vo is None):
        raise HansaError(USAGE, "Say whom: --user NAME or --vo NAME.")
    return NewBan("user", user) if user is not None else NewBan("vo", vo or "")


@click.command(epilog=examples("hansa site ban NEBULA --user mallory --why 'Mines coins'", "hansa site ban NEBULA"))
@click.argument("site", shell_complete=completion.sites)
@click.option("--user", metavar="USER", help="A user, by name or id.")
@click.option("--vo", metavar="VO", help="A virtual organisation.")
@click.option("--why", default="", metavar="TEXT", help="For whom it concerns.")
@output_option()
def ban(site: str, user: str | None, vo: str | None, why: str, *, form: str) -> None:
    """Let nothing new of a user or VO start at SITE; without either: list who is banned."""
    session = open_session()
    if user or vo:
        new = _who(user, vo)
        session.run(site_api.ban(site, NewBan(new.kind, new.who, why)))
    emit(session.run(site_api.bans(site)).items, form, _ban_cells, lambda one: one.who)


@click.command(epilog=examples("hansa site unban NEBULA --user mallory"))
@click.argument("site", shell_complete=completion.sites)
@click.option("--user", metavar="USER", help="A user, by name or id.")
@click.option("--vo", metavar="VO", help="A virtual organisation.")
def unban(site: str, user: str | None, vo: str | None) -> None:
    """Let a user or VO in again at SITE."""
    one = _who(user, vo)
    open_session().run(site_api.unban(site, one.kind, one.who))
    note(f"{site} serves {one.who} again")


def _downtime_cells(one: DowntimeView) -> dict[str, Any]:
    return {
        "id": one.id,
        "severity": one.severity,
        "planned": one.planned,
        "starts": one.starts,
        "ends": one.ends,
        "endpoint": one.endpoint,
        "description": one.description,
        "by": one.by,
    }


@click.command(epilog=examples("hansa site downtime list NEBULA"))
@click.argument("site", shell_complete=completion.sites)
@output_option()
def list_downtimes(site: str, *, form: str) -> None:
    """List the downtimes of SITE that are on or to come."""
    emit(open_session().run(site_api.downtimes(site)).items, form, _downtime_cells, lambda one: one.id)


@click.command(
    epilog=examples(
        "hansa site downtime add NEBULA --from '2026-12-01 08:00' --for 4h --why 'New switches'",
        "hansa site downtime add NEBULA --for 1h --at-risk",
    )
)
@click.argument("site", shell_complete=completion.sites)
@click.option("--from", "starts", metavar="TIME", help="When it starts, in this computer's time. [default: now]")
@click.option("--to", "ends", metavar="TIME", help="When it ends.")
@click.option("--for", "lasts", metavar="TIME", help="How long it lasts instead, as 4h.")
@click.option("--at-risk", is_flag=True, help="It may work: prefer other sites, but use this one.")
@click.option("--endpoint", metavar="NAME", help="Of this endpoint only.")
@click.option("--why", default="", metavar="TEXT", help="For its users.")
@output_option()
def add_downtime(
    site: str,
    starts: str | None,
    ends: str | None,
    lasts: str | None,
    endpoint: str | None,
    why: str,
    *,
    at_risk: bool,
    form: str,
) -> None:
    """Announce a downtime of SITE. Announced a day ahead it is planned, and spares its reliability."""
    start = _moment(starts) if starts else None
    if (ends is None) == (lasts is None):
        raise HansaError(USAGE, "Say when it ends (--to), or how long it lasts (--for).")
    if ends is not None:
        end = _moment(ends)
    else:
        end = (start or datetime.now(UTC)) + timedelta(seconds=parse_time(lasts or ""))
    new = NewDowntime(end, start, "at_risk" if at_risk else "outage", why, endpoint)
    emit_one(open_session().run(site_api.announce_downtime(site, new)), form, _downtime_cells, lambda one: one.id)


@click.command(epilog=examples("hansa site downtime end NEBULA downtime_0198…"))
@click.argument("site", shell_complete=completion.sites)
@click.argument("downtime")
def end_downtime(site: str, downtime: str) -> None:
    """End a DOWNTIME of SITE now, or take it back."""
    open_session().run(site_api.end_downtime(site, downtime))
    note(f"the downtime of {site} is over")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise HansaError(USAGE, f"{text!r} is no time.", hint="As in 2026-12-01 08:00.") from error
