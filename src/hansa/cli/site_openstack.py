"""``hansa site env`` and ``hansa site openstack``: for people who know the OpenStack client."""

from __future__ import annotations

import os

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit, output_option
from hansa.cli.session import note, open_session
from hansa.client import openstack, people_api, site_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect
from hansa.client.transport import Transport

VO = click.option("--vo", metavar="VO", help="The VO in whose project it happens. [default: your only one]")


def _vo(session: Transport, vo: str | None) -> str:
    """The VO that was said, else the only one. Raises HansaError where that is none, or there are several."""
    if vo is not None:
        return vo
    mine = [one.name for one in session.run(collect(people_api.vos))]
    if len(mine) == 1:
        return str(mine[0])
    said = f"You are in several: {', '.join(mine)}" if mine else "You are in no VO"
    raise HansaError(USAGE, f"Say for which VO: --vo NAME. {said}.", hint="hansa vo list")


@click.command(epilog=examples('eval "$(hansa site env NEBULA --vo vo.example.org)"; openstack server list'))
@click.argument("site", shell_complete=completion.sites)
@VO
def env(site: str, vo: str | None) -> None:
    """Print what a shell must know for the OpenStack client to work at SITE, in the project of the VO."""
    session = open_session()
    access = openstack.access_of(session.run(site_api.site(site)), _vo(session, vo))
    project_id = openstack.find_project(access, openstack.site_token(os.environ))
    click.echo(openstack.exports(access, project_id))
    if access.ca:
        note(f"{site} has a certificate authority of its own: set OS_CACERT to a file with it")


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "hansa site openstack NEBULA --vo vo.example.org -- image list",
        "hansa site openstack --all-sites -- server list",
    ),
)
@click.option("--all-sites", is_flag=True, help="At every OpenStack site that serves the VO, all at once.")
@VO
@output_option()
@click.argument("words", nargs=-1, required=True, metavar="[SITE] -- COMMAND...")
def run(words: tuple[str, ...], vo: str | None, *, all_sites: bool, form: str) -> None:
    """Run the real OpenStack client at SITE, or at all sites with one table of what they say."""
    session = open_session()
    if not all_sites and len(words) < 2:
        raise HansaError(USAGE, "Say where, and what to run: hansa site openstack SITE -- server list")
    vo = _vo(session, vo)
    if all_sites:
        sites, command = session.run(collect(site_api.sites)), words
        accesses = [openstack.access_of(one, vo) for one in sites if _serves(one, vo)]
        if not accesses:
            raise HansaError(USAGE, f"No OpenStack site here serves {vo}.", hint="hansa site list")
    else:
        command = words[1:]
        accesses = [openstack.access_of(session.run(site_api.site(words[0])), vo)]
    ran = openstack.run_at(accesses, openstack.site_token(os.environ), command, os.environ)
    _write(ran, form, is_one=not all_sites)
    if failed := [one.code for one in ran if one.code]:
        raise click.exceptions.Exit(failed[0])


def _serves(site: object, vo: str) -> bool:
    ends = getattr(site, "endpoints", ())
    return any(one.kind == "openstack" and one.url and any(a.vo == vo for a in one.vos) for one in ends)


def _write(ran: list[openstack.Ran], form: str, *, is_one: bool) -> None:
    """One table where there are tables; what else was said as it was said, under the site's name."""
    rows = [({} if is_one else {"site": one.site}) | row for one in ran for row in one.rows or ()]
    if rows:
        emit(
            rows, form, lambda row: row, lambda row: next((row[key] for key in ("ID", "id", "Name") if key in row), "")
        )
    for one in ran:
        if one.rows is None and one.output:
            click.echo(one.output if is_one else f"{one.site}:\n{one.output}", nl=not one.output.endswith("\n"))
        if one.words:
            note(f"{one.site}: {one.words}")
