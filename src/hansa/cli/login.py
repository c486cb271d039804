"""``hansa login``, ``hansa logout`` and ``hansa token``."""

from __future__ import annotations

import os
import sys
import time

import click

from hansa.cli.jobs import examples
from hansa.cli.session import note, open_session
from hansa.client import logins, oidc, people_api
from hansa.client.connect import Endpoint, configured, default_home, running
from hansa.client.errors import NO_LOGIN, USAGE, HansaError
from hansa.client.openstack import SCOPE as SITE_SCOPE
from hansa.client.transport import Transport

_OTHER_SOURCES = ("HANSA_TOKEN", "HANSA_TOKEN_FILE", "HANSA_OIDC_AGENT")
_RENEW_EVERY_S = 2.0
_RENEW_TRIES = 300


@click.command(epilog=examples("hansa login https://hansa.example.org", "hansa login --renew"))
@click.argument("server", required=False)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--renew", is_flag=True, help="Renew what Hansa may do while you are away.")
def login(server: str | None, *, no_browser: bool, renew: bool) -> None:
    """Sign in at SERVER in a browser, here or on any other device. Commands go to that server from then on.

    The sign-in is kept in the system's keyring, or in a file that only you can read.
    """
    if renew:
        return _renew(open_browser=not no_browser)
    if server is None:
        raise click.UsageError("Say where: hansa login SERVER")
    url = _url(server)
    ca_file = os.environ.get("HANSA_CA_FILE") or None
    issuer = oidc.discover(url, ca_file)
    code = oidc.start_device(issuer, ca_file)
    note(f"open {code.url} and enter the code {code.user_code}")
    if not no_browser and has_display():
        import webbrowser

        webbrowser.open(code.complete_url)
    tokens = oidc.await_device(issuer, code, ca_file)
    if tokens.refresh is None:
        raise HansaError(NO_LOGIN, f"{url} gave no lasting sign-in.")
    stored = logins.Stored(
        url, issuer.token_endpoint, issuer.revocation_endpoint, tokens.access, tokens.expires, ca_file=ca_file
    )
    where = logins.save(stored, tokens.refresh, os.environ)
    name = Transport(Endpoint(url, tokens.access, ca_file=ca_file)).run(people_api.whoami()).name
    note(f"signed in at {url} as {name}; the sign-in is kept in {where}")
    return None


def _renew(*, open_browser: bool) -> None:
    """Lead to the page with the button, and wait until a grant is newer than this moment."""
    session = open_session()
    before = {one.id for one in session.run(people_api.authority()).items}
    url = f"{session.endpoint.url}{oidc.REALM}/renew"
    note(f"open {url} and say that Hansa may go on while you are away")
    if open_browser and has_display():
        import webbrowser

        webbrowser.open(url)
    for _ in range(_RENEW_TRIES):
        time.sleep(_RENEW_EVERY_S)
        fresh = [
            one for one in session.run(people_api.authority()).items if one.phase == "active" and one.id not in before
        ]
        if fresh:
            return note(f"renewed: {fresh[0].message}")
    raise HansaError(NO_LOGIN, "Nothing was renewed in ten minutes.", hint="Try again: hansa login --renew")


@click.command(epilog=examples("hansa logout"))
@click.argument("server", required=False)
def logout(server: str | None) -> None:
    """Sign out of SERVER, or of the one that commands go to."""
    found = _login(server)
    found.end()
    note(f"signed out of {found.url}")


@click.command(epilog=examples("hansa token --header | curl -H @- https://hansa.example.org/api/v1/jobs"))
@click.argument("server", required=False)
@click.option("--for-sites", is_flag=True, help="One that says who you are, and is not good for Hansa itself.")
@click.option("--header", is_flag=True, help="As the header of HTTP, for a pipe: other users can read arguments.")
def token(server: str | None, *, for_sites: bool, header: bool) -> None:
    """Print a fresh access token, and nothing else. Whoever has it may do what you may, for up to an hour.

    Where you signed in nowhere: the token of the server of this computer, which lasts.
    """
    fresh = None if server or for_sites else _token_at_hand()
    if fresh is None:
        found = _login(server)
        fresh = found.token()
        if for_sites:
            fresh = oidc.narrowed(found.token_endpoint, fresh, SITE_SCOPE, found.ca_file)
    if sys.stdout.isatty():
        note("this is a secret")
    click.echo(f"Authorization: Bearer {fresh}" if header else fresh)


def _token_at_hand() -> str | None:
    """Of the server of this computer, where commands go to it."""
    if configured(None, None, None, os.environ) is not None:
        return None
    found = running(default_home(os.environ))
    return None if found is None else found.token


def _login(server: str | None) -> logins.Login:
    url = _url(server) if server else None
    environ = {name: value for name, value in os.environ.items() if name not in _OTHER_SOURCES}
    endpoint = configured(url, None, None, environ)
    if endpoint is None or not isinstance(endpoint.login, logins.Login):
        where = f" at {endpoint.url}" if endpoint else ""
        raise HansaError(NO_LOGIN, f"You are not signed in{where}.", hint="Sign in: hansa login SERVER")
    return endpoint.login


def _url(server: str) -> str:
    url = server if "://" in server else f"https://{server}"
    if not url.startswith(("https://", "http://")):
        raise HansaError(
            USAGE, f"The address of the server is not a URL: {server}.", hint="As in: https://hansa.example.org"
        )
    return url.rstrip("/")


def has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
