"""``hansa login``, ``hansa logout`` and ``hansa token``."""

from __future__ import annotations

import os
import sys

import click

from hansa.cli.jobs import examples
from hansa.cli.session import note
from hansa.client import api, logins, oidc
from hansa.client.connect import Endpoint, configured
from hansa.client.errors import NO_LOGIN, USAGE, HansaError
from hansa.client.openstack import SCOPE as SITE_SCOPE
from hansa.client.transport import Transport


@click.command(epilog=examples("hansa login https://hansa.example.org"))
@click.argument("server")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def login(server: str, *, no_browser: bool) -> None:
    """Sign in at SERVER in a browser, here or on any other device. Commands go to that server from then on.

    The sign-in is kept in the system's keyring, or in a file that only you can read.
    """
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
    name = Transport(Endpoint(url, tokens.access, ca_file=ca_file)).run(api.whoami()).name
    note(f"signed in at {url} as {name}; the sign-in is kept in {where}")


@click.command(epilog=examples("hansa logout"))
@click.argument("server", required=False)
def logout(server: str | None) -> None:
    """Sign out of SERVER, or of the one that commands go to."""
    found = _login(server)
    found.end()
    note(f"signed out of {found.url}")


@click.command(epilog=examples('curl -H "Authorization: Bearer $(hansa token)" https://hansa.example.org/api/v1/jobs'))
@click.argument("server", required=False)
@click.option("--for-sites", is_flag=True, help="One that says who you are, and is not good for Hansa itself.")
def token(server: str | None, *, for_sites: bool) -> None:
    """Print a fresh access token, and nothing else. Whoever has it may do what you may, for up to an hour."""
    found = _login(server)
    fresh = found.token()
    if for_sites:
        fresh = oidc.narrowed(found.token_endpoint, fresh, SITE_SCOPE, found.ca_file)
    if sys.stdout.isatty():
        note("this is a secret")
    click.echo(fresh)


def _login(server: str | None) -> logins.Login:
    url = _url(server) if server else None
    environ = {name: value for name, value in os.environ.items() if name not in ("HANSA_TOKEN", "HANSA_TOKEN_FILE")}
    endpoint = configured(url, None, None, environ)
    if endpoint is None or endpoint.login is None:
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
