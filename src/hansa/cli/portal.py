"""``hansa portal``: the server's pages, signed in."""

from __future__ import annotations

import click

from hansa.cli.jobs import examples
from hansa.cli.login import has_display
from hansa.cli.session import note, open_session
from hansa.client import people_api


@click.command(epilog=examples("hansa portal", "hansa portal --no-browser"))
@click.option("--no-browser", is_flag=True, help="Only print the link. It signs in once, within a minute.")
def portal(*, no_browser: bool) -> None:
    """Open the portal in a browser, signed in as you. The token never leaves this computer: a code that is good once
    goes instead.
    """
    link = open_session().run(people_api.portal_sign_in()).link
    if not no_browser and has_display():
        import webbrowser

        if webbrowser.open(link):
            note("opened the portal in your browser")
            return
    click.echo(link)
