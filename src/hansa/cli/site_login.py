"""``hansa site login`` and ``probe``: a person signs in by SSH, once; commands share that connection."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.session import home, note, open_session
from hansa.client import site_api
from hansa.client.errors import USAGE, HansaError
from hansa.sites import errors
from hansa.sites.wire import Site

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def add_own(host: str, name: str | None, config: Path | None) -> Site:
    """Add a host of one's own; where it wants a password or a code, ask for it here and try once more."""
    session = open_session()
    file = str(config.absolute()) if config else None
    try:
        return session.run(site_api.add_own_site(host, name, file))
    except HansaError as error:
        if error.code.code != errors.LOGIN.code or not sys.stdin.isatty():
            raise
    note(f"{host} wants you to sign in")
    sign_in(host, _own(host, config))
    return session.run(site_api.add_own_site(host, name, file))


def _own(host: str, config: Path | None) -> dict[str, object]:
    settings: dict[str, object] = {"host": host, "own_config": True}
    return settings | ({"config": str(config.absolute())} if config else {})


def sign_in(host: str, settings: dict[str, object]) -> None:
    """Open the connection that the server's commands share. Raises HansaError where that fails."""
    from hansa.engines.ssh import OpensshShell
    from hansa.sites.kinds.base import parse_settings
    from hansa.sites.kinds.ssh import own_options

    options = own_options(parse_settings("ssh", settings))
    command = OpensshShell(host, home() / "run" / "ssh", options).login()
    # The connection outlives this terminal, and so must the processes to its jump hosts, which stay in its session.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGHUP, before)
    if status != 0:
        raise HansaError(errors.LOGIN, f"The login at {host} failed.", hint=f"Try it with: ssh {host}")


@click.command(epilog=examples("hansa site login mycluster"))
@click.argument("site", required=False, shell_complete=completion.sites)
@click.option("--host", metavar="HOST", help="A host that is no site yet.")
@click.option("--ssh-config", type=_FILE, help="With --host: another file than ~/.ssh/config.")
def login(site: str | None, host: str | None, ssh_config: Path | None) -> None:
    """Sign in anew at SITE, a computer or cluster of your own: password and one-time code are asked here."""
    if host is not None:
        sign_in(host, _own(host, ssh_config))
        return
    if site is None:
        raise HansaError(USAGE, "Say where: a site of yours, or --host HOST.")
    session = open_session()
    own = [one for one in session.run(site_api.site(site)).endpoints if (one.settings or {}).get("own_config")]
    if not own:
        raise HansaError(USAGE, f"{site} is not signed in to by your own SSH.", hint=f"hansa site show {site}")
    known = ("host", "port", "user", "jump", "own_config", "config")
    for one in own:
        settings = {name: value for name, value in (one.settings or {}).items() if name in known}
        sign_in(str(settings["host"]), settings)
    session.run(site_api.probe_site(site))
    note(f"signed in at {site}")


@click.command(epilog=examples("hansa site probe NEBULA"))
@click.argument("site", shell_complete=completion.sites)
def probe(site: str) -> None:
    """Look at all endpoints of SITE now."""
    open_session().run(site_api.probe_site(site))
    note(f"{site} is looked at; see hansa site health {site}")
