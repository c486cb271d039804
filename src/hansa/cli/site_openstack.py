"""``hansa site env`` and ``hansa site openstack``: for people who know the OpenStack client."""

from __future__ import annotations

import os

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit, output_option
from hansa.cli.session import note, open_session
from hansa.client import openstack, site_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect

VO = click.option("--vo", required=True, metavar="VO", help="The virtual organisation in whose project it happens.")


@click.command(epilog=examples('eval "$(hansa site env NEBULA --vo vo.example.org)"; openstack server list'))
@click.argument("site", shell_complete=completion.sites)
@VO
def env(site: str, vo: str) -> None:
    """Print what a shell must know for the OpenStack client to work at SITE, in the project of the VO."""
    access = openstack.access_of(open_session().run(site_api.site(site)), vo)
    project_id = openstack.find_project(access, openstack.site_token(os.environ))
    click.echo(openstack.exports(access, project_id))
    if access.ca:
        note(f"{site} has a certificate authority of its own: set OS_CACERT to a file with it")


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "hansa site openstack NEBULA --vo vo.example.org -- image list",
        "hansa site openstack --all-sites --vo vo.example.org -- server list",
    ),
)
@click.option("--all-sites", is_flag=True, help="At every OpenStack site that serves the VO, all at once.")
@VO
@output_option()
@click.argument("words", nargs=-1, required=True, metavar="[SITE] -- COMMAND...")
def run(words: tuple[str, ...], vo: str, *, all_sites: bool, form: str) -> None:
    """Run the real OpenStack client at SITE, or at all sites with one table of what they say."""
    session = open_session()
    if all_sites:
        sites, command = session.run(collect(site_api.sites)), words
        accesses = [openstack.access_of(one, vo) for one in sites if _serves(one, vo)]
        if not accesses:
            raise HansaError(USAGE, f"No OpenStack site here serves {vo}.", hint="hansa site list")
    else:
        command = words[1:]
        if not command:
            raise HansaError(USAGE, "Say what to run: hansa site openstack SITE --vo VO -- server list")
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
