"""``hansa admin …`` and ``hansa db …``: for who runs a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit_one, output_option
from hansa.cli.session import home, note, open_session
from hansa.client import api
from hansa.identity.wire import NewUserToken

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=examples("hansa admin backup hansa.tar.gz"))
@click.argument("file", type=FILE)
def backup(file: Path) -> None:
    """Write a copy of the embedded server's data to FILE. The server may run meanwhile.

    The copy has the server's keys in it: keep it as safe as HANSA_HOME itself.
    """
    from hansa.server.backup import write_backup

    write_backup(home(), file)
    note(f"wrote {file}; put it back with: hansa admin restore {file}")
    click.echo(file)


@click.command(epilog=examples("hansa admin restore hansa.tar.gz", "HANSA_HOME=~/elsewhere hansa admin restore …"))
@click.argument("file", type=FILE)
def restore(file: Path) -> None:
    """Put a copy back. The server must be down, and HANSA_HOME empty or moved away."""
    from hansa.server.backup import read_backup

    read_backup(home(), file)
    note(f"{home()} is as it was; start the server with: hansa up")


def _token_cells(found: NewUserToken) -> dict[str, Any]:
    return {"name": found.user.name, "id": found.user.id, "token": found.token}


@click.command(epilog=examples("hansa admin user add maria"))
@click.argument("name")
@output_option()
def add_user(name: str, *, form: str) -> None:
    """Add a user called NAME, and print the token that signs in; it is shown once."""
    found = open_session().run(api.add_user(name))
    emit_one(found, form, _token_cells, lambda item: item.user.id)
    note("give the user the token and the address of this server: HANSA_TOKEN and HANSA_SERVER")


@click.command(epilog=examples("hansa db upgrade"))
def upgrade() -> None:
    """Bring the database's schema up to this version. The embedded one is copied before."""
    from hansa.server.serve import upgrade_database

    note(upgrade_database(home()))
