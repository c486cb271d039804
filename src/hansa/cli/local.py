"""``hansa up``, ``down``, ``status``, ``doctor``, ``server``: the embedded server of HANSA_HOME."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option, show
from hansa.cli.session import home, note
from hansa.client import api, job_api, site_api
from hansa.client.connect import configured, running
from hansa.client.operations import collect
from hansa.client.transport import Transport
from hansa.client.units import show_count
from hansa.jobs.wire import Phase
from hansa.kernel.errors import Exit
from hansa.sites.wire import Site

COUNTED = 200
"""Jobs of a phase are counted up to here; more are shown as 200+."""


@dataclass
class ServerView:
    """What ``hansa status`` says."""

    url: str
    running: bool
    version: str | None = None
    database: str | None = None
    started: datetime | None = None
    pid: int | None = None
    home: str | None = None
    sites: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)


@click.command(epilog=examples("hansa up", "HANSA_HOME=~/other hansa up"))
@output_option(default="id")
def up(*, form: str) -> None:
    """Start the embedded server of HANSA_HOME, unless it runs, and print its URL."""
    from hansa.server.launch import ensure_server

    place = home()
    info = ensure_server(place)
    note(f"the server of {place} {'has started' if info.started else 'runs already'}; hansa down stops it")
    view = ServerView(info.url, running=True, pid=info.pid, home=str(place))
    emit_one(view, form, _cells, lambda item: item.url)


@click.command(epilog=examples("hansa down"))
def down() -> None:
    """Stop the embedded server of HANSA_HOME and its pilots. Jobs go on when it is up again."""
    from hansa.server.launch import stop_server

    report = stop_server(home())
    pilots = f" and {show_count(report.pilots, 'pilot')}" if report.pilots else ""
    note(f"stopped the server{pilots} of {home()}" if report.server else f"no server of {home()} was running")


@click.command(epilog=examples("hansa status", "hansa status -o json"))
@output_option()
def status(*, form: str) -> int:
    """Show the server, its sites, and jobs by phase. The exit code is 0 if it runs, else 6."""
    place = home()
    remote = configured(None, None, None, os.environ)
    endpoint = remote or running(place)
    if endpoint is None:
        emit_one(ServerView("", running=False, home=str(place)), form, _cells, lambda item: item.url)
        note("the server is not running; start it with: hansa up")
        return Exit.AWAY
    view = _look(Transport(endpoint), None if remote else str(place))
    emit_one(view, form, _cells, lambda item: item.url)
    return 0


def _look(session: Transport, place: str | None) -> ServerView:
    found = session.run(api.health())
    sites: list[Site] = session.run(collect(site_api.sites))
    jobs = {}
    for phase in Phase:
        page = session.run(job_api.jobs(phase.value, limit=COUNTED))
        if page.items:
            jobs[phase.value] = f"{len(page.items)}{'+' if page.next else ''}"
    return ServerView(
        session.endpoint.url,
        running=True,
        version=found.get("version"),
        database=found.get("database"),
        started=_moment(session.endpoint.since),
        pid=session.endpoint.pid,
        home=place,
        sites=[f"{s.name} ({s.status.phase}, {s.capacity.cores} cores, {s.running} running)" for s in sites],
        jobs=jobs,
    )


def _moment(since: float | None) -> datetime | None:
    return None if since is None else datetime.fromtimestamp(since, UTC)


def _cells(view: ServerView) -> dict[str, Any]:
    return {
        "server": view.url or "not running",
        "pid": view.pid,
        "up since": view.started,
        "version": view.version,
        "database": view.database,
        "home": view.home,
        "sites": ", ".join(view.sites),
        "jobs": ", ".join(f"{number} {phase}" for phase, number in view.jobs.items())
        or ("none" if view.running and view.version else None),
    }


@click.command(epilog=examples("hansa doctor", "hansa doctor -o json"))
@output_option()
def doctor(*, form: str) -> int:
    """Look for what may be wrong here, and say what to do. The exit code is 1 if something fails."""
    from hansa.server.doctor import checks

    found = list(checks(home()))
    if form == "table":
        _print_checks(found)
    else:
        emit(found, form, lambda _: {}, lambda check: check.name)
    return Exit.FAILED if any(str(check.state) == "fail" for check in found) else 0


def _print_checks(found: Iterable[Any]) -> None:
    for check in found:
        click.echo(f"{check.state!s:4}  {check.name}: {show(check.message)}")
        if check.hint and str(check.state) != "ok":
            click.echo(f"      {show(check.hint)}")


@click.command(
    epilog=examples("hansa server", "hansa server --host 0.0.0.0 --port 8443 --tls-certificate c.pem --tls-key k.pem")
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port. [default: chosen once and kept]")
@click.option("--url", metavar="URL", help="The URL that clients and pilots use. [default: of host and port]")
@click.option("--tls-certificate", metavar="FILE", help="PEM file of the certificate chain.")
@click.option("--tls-key", metavar="FILE", help="PEM file of its private key.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
def server(*, log_level: str | None, **flags: Any) -> None:
    """Run a server in the foreground, for a service manager or a container."""
    from hansa.server.serve import serve

    # A flag is the strongest setting, and the environment is the strongest that is read below.
    given = {f"HANSA_SERVER__{name.upper()}": value for name, value in flags.items()}
    given["HANSA_LOG__LEVEL"] = log_level
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    serve(home())
