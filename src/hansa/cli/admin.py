"""``hansa admin …`` and ``hansa db …``: for who runs a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import home, note, open_session
from hansa.client import people_api
from hansa.client.operations import collect
from hansa.identity.wire import Client, NewClient, NewUserToken, User

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
    found = open_session().run(people_api.add_user(name))
    emit_one(found, form, _token_cells, lambda item: item.user.id)
    note("give the user the token and the address of this server: HANSA_TOKEN and HANSA_SERVER")


def _user_cells(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "state": "suspended" if user.suspended else "active",
        "operator": user.operator,
        "id": user.id,
    }


@click.command(epilog=examples("hansa admin user list"))
@output_option()
def list_users(*, form: str) -> None:
    """List the users of this server."""
    emit(open_session().run(collect(people_api.users)), form, _user_cells, lambda user: user.id)


@click.command(epilog=examples("hansa admin user invite maria"))
@click.argument("name")
@output_option()
def invite_user(name: str, *, form: str) -> None:
    """Make a link with which the user called NAME, new or not, sets a password. Earlier links are void."""
    from hansa.cli.vos import show_invitation

    show_invitation(open_session().run(people_api.invite_user(name)), form)
    note("send it to this person only; then they can sign in: hansa login SERVER")


@click.command(epilog=examples("hansa admin user suspend maria"))
@click.argument("name")
@output_option()
def suspend_user(name: str, *, form: str) -> None:
    """Let the user NAME in no more, from the next request on. Nothing of theirs is deleted."""
    emit_one(open_session().run(people_api.suspend_user(name, suspended=True)), form, _user_cells, lambda user: user.id)


@click.command(epilog=examples("hansa admin user resume maria"))
@click.argument("name")
@output_option()
def resume_user(name: str, *, form: str) -> None:
    """Let the user NAME in again."""
    emit_one(
        open_session().run(people_api.suspend_user(name, suspended=False)), form, _user_cells, lambda user: user.id
    )


def _client_cells(client: Client) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "kind": "confidential" if client.confidential else "public",
        "secret": client.secret,
        "redirects": ", ".join(client.redirect_uris),
        "audiences": ", ".join(client.audiences),
        "api": client.api,
        "trusted": client.trusted,
        "introspects": client.introspects,
    }


@click.command(
    epilog=examples(
        "hansa admin client add hub --confidential --redirect https://hub.example.org/oauth_callback --api",
        "hansa admin client add site-a --confidential --introspect",
    )
)
@click.argument("client")
@click.option("--name", default="", help="A name for people.")
@click.option("--redirect", "redirects", multiple=True, metavar="URI", help="Where it may be answered; exactly this.")
@click.option("--logout-redirect", "logouts", multiple=True, metavar="URI", help="Where to go after signing out.")
@click.option("--audience", "audiences", multiple=True, metavar="NAME", help="Whom its access tokens are for.")
@click.option("--confidential", is_flag=True, help="It can keep a secret; the secret is shown once.")
@click.option("--api", "for_api", is_flag=True, help="Its access tokens are good for this server's API.")
@click.option("--trusted", is_flag=True, help="Users are not asked for consent.")
@click.option("--introspect", is_flag=True, help="It may introspect tokens that were given to others.")
@output_option()
def add_client(
    client: str,
    name: str,
    redirects: tuple[str, ...],
    logouts: tuple[str, ...],
    audiences: tuple[str, ...],
    *,
    confidential: bool,
    for_api: bool,
    trusted: bool,
    introspect: bool,
    form: str,
) -> None:
    """Add the OpenID client CLIENT: an application that people sign in to with their account here."""
    new = NewClient(
        client,
        name,
        list(redirects),
        list(logouts),
        list(audiences),
        confidential=confidential,
        api=for_api,
        trusted=trusted,
        introspects=introspect,
    )
    emit_one(open_session().run(people_api.add_client(new)), form, _client_cells, lambda item: item.id)


@click.command(epilog=examples("hansa admin client list"))
@output_option()
def list_clients(*, form: str) -> None:
    """List the OpenID clients that were added."""
    emit(open_session().run(collect(people_api.clients)), form, _client_cells, lambda item: item.id)


@click.command(epilog=examples("hansa admin client remove hub"))
@click.argument("client")
def remove_client(client: str) -> None:
    """Remove the OpenID client CLIENT; all sign-ins at it end."""
    open_session().run(people_api.remove_client(client))
    note(f"removed {client}")


@click.command(epilog=examples("hansa admin key rotate"))
def rotate_key() -> None:
    """Sign tokens with a new key. Those of the old one stay valid until they expire."""
    click.echo(open_session().run(people_api.rotate_key()).id)


@click.command(epilog=examples("hansa admin key master"))
def rotate_master() -> None:
    """Make a new master key, and put the server's secrets under it. The server must be down.

    The old key is of no use after that; older backups have the key that opens them.
    """
    from hansa.server.rekey import rotate_master_key

    note(rotate_master_key(home()))


@click.command(epilog=examples("hansa db upgrade"))
def upgrade() -> None:
    """Bring the database's schema up to this version. The embedded one is copied before."""
    from hansa.server.serve import upgrade_database

    note(upgrade_database(home()))


@click.command(
    epilog=examples(
        "hansa admin nspawn-helper | sudo install -D -m 755 /dev/stdin /usr/local/libexec/hansa-nspawn",
    )
)
def nspawn_helper() -> None:
    """Print the program that runs machines in containers with root's rights, to be installed where sudo may run it.

    It has a fixed set of verbs, and needs nothing but Python 3.9. An administrator installs it, and allows it:
    USER ALL=(root) NOPASSWD: /usr/local/libexec/hansa-nspawn
    """
    from hansa.machines.drivers.nspawn.root import pack

    sys.stdout.buffer.write(pack())
