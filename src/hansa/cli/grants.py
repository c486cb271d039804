"""``hansa grant …``: what sites give VOs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import site_api
from hansa.client.operations import collect
from hansa.client.units import parse_memory
from hansa.sites.capacity_wire import Grant, GrantCaps, GrantTerms

AMOUNT, HOURS = click.IntRange(0), click.FloatRange(0)
DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
vo_option = click.option("--vo", required=True, metavar="VO", help="The virtual organisation.")


def _cells(grant: Grant) -> dict[str, Any]:
    return {
        "vo": grant.vo,
        "site": grant.site,
        "state": grant.status.phase,
        "core_h": grant.terms.core_hours,
        "used_h": round(grant.used_h, 1),
        "reserved_h": round(grant.reserved_h, 1),
        "left_h": None if grant.left_h is None else round(grant.left_h, 1),
        "cores": grant.terms.cores,
        "gpus": grant.terms.gpus,
        "until": grant.terms.ends,
        "why": grant.status.message,
    }


def _details(grant: Grant) -> dict[str, Any]:
    asked = grant.asked
    return _cells(grant) | {
        "idle_h": round(grant.idle_h, 1),
        "memory_mib": grant.terms.memory_mib,
        "storage_gib": grant.terms.storage_gib,
        "asked": {name: str(value) for name, value in vars(asked).items() if value is not None} if asked else None,
        "note": grant.note,
        "each user": grant.caps.each_user,
        "users": grant.caps.users or None,
        "groups": grant.caps.groups or None,
        "waits for": grant.status.waiting_on.value,
        "since": grant.status.since,
    }


def _identify(grant: Grant) -> str:
    return f"{grant.vo}@{grant.site}"


def _show(grant: Grant, form: str) -> None:
    emit_one(grant, form, _details, _identify)


def terms_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how much."""
    for option in (
        click.option("--until", type=DAY, metavar="DAY", help="The end, UTC. [default: none]"),
        click.option("--storage", "storage_gib", type=AMOUNT, metavar="GIB", help="Storage, in GiB."),
        click.option("--gpus", type=AMOUNT, metavar="N", help="GPUs at the same time."),
        click.option("--memory", metavar="SIZE", help="Memory at the same time: 500G."),
        click.option("--cores", type=AMOUNT, metavar="N", help="Cores at the same time."),
        click.option("--core-hours", type=HOURS, metavar="H", help="Core hours in all. [default: no limit]"),
    ):
        function = option(function)
    return function


def _terms(
    core_hours: float | None,
    cores: int | None,
    memory: str | None,
    gpus: int | None,
    storage_gib: int | None,
    until: datetime | None,
) -> GrantTerms:
    memory_mib = parse_memory(memory) if memory else None
    ends = until.replace(tzinfo=UTC) if until else None
    return GrantTerms(core_hours, cores, memory_mib, gpus, storage_gib, None, ends)


@click.command(epilog=examples("hansa grant list"))
@output_option()
def list_grants(*, form: str) -> None:
    """List capacity grants: of your VOs, and at the sites that you administer."""
    found = open_session().run(collect(site_api.grants))
    emit(found, form, _cells, _identify)
    if not found:
        note("there is no capacity grant; managers of a VO ask for one: hansa grant ask SITE --vo VO")


@click.command(epilog=examples("hansa grant show bari --vo vo.example.org"))
@click.argument("site", shell_complete=completion.sites)
@vo_option
@output_option()
def show(site: str, vo: str, *, form: str) -> None:
    """Show what SITE grants a VO, and what of it is used."""
    _show(open_session().run(site_api.grant(vo, site)), form)


@click.command(epilog=examples("hansa grant ask bari --vo vo.example.org --core-hours 100000 --until 2027-12-31"))
@click.argument("site", shell_complete=completion.sites)
@vo_option
@terms_options
@click.option("--note", "text", default="", metavar="TEXT", help="What it is for.")
@output_option()
def ask(site: str, vo: str, text: str, *, form: str, **terms: Any) -> None:
    """Ask SITE for capacity, as a manager of the VO; again, to change what you have."""
    _show(open_session().run(site_api.ask_grant(vo, site, _terms(**terms), text)), form)


@click.command(
    epilog=examples("hansa grant agree bari --vo vo.example.org", "hansa grant agree bari --vo v --cores 200")
)
@click.argument("site", shell_complete=completion.sites)
@vo_option
@terms_options
@click.option("--note", "text", default="", metavar="TEXT", help="A word to the VO.")
@output_option()
def agree(site: str, vo: str, text: str, *, form: str, **terms: Any) -> None:
    """Agree, as an administrator of SITE: to what was asked, or where an option says so to other terms."""
    other = _terms(**terms) if any(value is not None for value in terms.values()) else None
    _show(open_session().run(site_api.agree_grant(vo, site, other, text)), form)


@click.command(epilog=examples("hansa grant refuse bari --vo vo.example.org --why 'We are full until spring'"))
@click.argument("site", shell_complete=completion.sites)
@vo_option
@click.option("--why", required=True, metavar="TEXT", help="The VO's managers read it.")
@output_option()
def refuse(site: str, vo: str, why: str, *, form: str) -> None:
    """Refuse what a VO asks, as an administrator of SITE."""
    _show(open_session().run(site_api.refuse_grant(vo, site, why)), form)


@click.command(
    epilog=examples("hansa grant cap bari --vo vo.example.org --each 1000 --group astro=5000 --user maria=200")
)
@click.argument("site", shell_complete=completion.sites)
@vo_option
@click.option("--each", type=HOURS, metavar="H", help="Core hours of each user.")
@click.option("--user", "users", multiple=True, metavar="NAME=H", help="Core hours of one user.")
@click.option("--group", "groups", multiple=True, metavar="GROUP=H", help="Core hours of a group.")
@output_option()
def cap(site: str, vo: str, each: float | None, users: tuple[str, ...], groups: tuple[str, ...], *, form: str) -> None:
    """Share the hours at SITE out, as a manager of the VO. What is not said is not capped."""
    caps = GrantCaps(each, _pairs(users), _pairs(groups))
    _show(open_session().run(site_api.cap_grant(vo, site, caps)), form)


def _pairs(words: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for word in words:
        name, _, hours = word.rpartition("=")
        try:
            found[name] = float(hours)
        except ValueError:
            name = ""
        if not name or not found[name] >= 0:
            raise click.UsageError(f"{word!r} is not NAME=HOURS, as maria=200.")
    return found
