"""``hansa site add``, ``update``, ``remove``: for who keeps a site."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.cli.site_file import read_site_file
from hansa.cli.sites import site_details
from hansa.client import api
from hansa.sites.wire import Site

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def show_site(site: Site, form: str) -> None:
    emit_one(site, form, site_details, lambda found: found.name)


@click.command(epilog=examples("hansa site add site.yaml"))
@click.argument("file", type=FILE)
@output_option()
def add(file: Path, *, form: str) -> None:
    """Join the site that FILE describes."""
    show_site(open_session().run(api.add_site(read_site_file(file))), form)


@click.command(epilog=examples("hansa site update site.yaml"))
@click.argument("file", type=FILE)
@output_option()
def update(file: Path, *, form: str) -> None:
    """Make a site what FILE says. Credentials that it does not name stay."""
    found = read_site_file(file)
    show_site(open_session().run(api.change_site(str(found.get("name", "")), found)), form)


@click.command(epilog=examples("hansa site remove NEBULA"))
@click.argument("site", shell_complete=completion.sites)
def remove(site: str) -> None:
    """Forget SITE, its history and its credentials. What runs there is not touched."""
    open_session().run(api.remove_site(site))
    note(f"{site} is no longer a site of this server")
