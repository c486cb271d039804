"""``hansa site …`` and ``hansa pilot …``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import ago, emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import job_api, site_api
from hansa.client.operations import collect
from hansa.jobs.wire import PilotView
from hansa.sites.wire import Site


def _site_cells(site: Site) -> dict[str, Any]:
    return {
        "site": site.name,
        "kind": site.kind,
        "phase": site.status.phase,
        "cores": site.capacity.cores,
        "memory_mib": site.capacity.memory_mib,
        "gpus": len(site.capacity.gpus),
        "pilots": site.pilots,
        "running": site.running,
        "why": site.status.message,
    }


def show_span(starts: datetime, ends: datetime) -> str:
    """``2026-11-25 08:00 to 12:00``, in this computer's time."""
    first, last = starts.astimezone(), ends.astimezone()
    form = "%H:%M" if first.date() == last.date() else "%Y-%m-%d %H:%M"
    return f"{first:%Y-%m-%d %H:%M} to {last.strftime(form)}"


def site_details(site: Site) -> dict[str, Any]:
    return _site_cells(site) | {
        "gpus": ", ".join(site.capacity.gpus),
        "containers": ", ".join(site.capacity.container_runtimes),
        "owner": site.owner,
        "visible to": site.visibility,
        "vos": ", ".join(site.vos),
        "endpoints": "; ".join(f"{e.name} ({e.kind}, {e.health.phase}) {e.url or ''}".strip() for e in site.endpoints),
        "contacts": ", ".join(c.email or c.name for c in site.contacts),
        "country": site.country,
        "description": site.description,
        "downtimes": "; ".join(
            f"{d.severity} {d.starts:%Y-%m-%d %H:%M} to {d.ends:%Y-%m-%d %H:%M}" for d in site.downtimes
        ),
        "my roles": ", ".join(site.my_roles),
        "since": site.status.since,
    }


@click.command(epilog=examples("hansa site list", "hansa site list -o json"))
@output_option()
def list_sites(*, form: str) -> None:
    """List sites: where jobs can run."""
    emit(open_session().run(collect(site_api.sites)), form, _site_cells, lambda site: site.name)


@click.command(epilog=examples("hansa site show local"))
@click.argument("site", shell_complete=completion.sites)
@output_option()
def show(site: str, *, form: str) -> None:
    """Show a SITE."""
    emit_one(open_session().run(site_api.site(site)), form, site_details, lambda found: found.name)


def _pilot_cells(pilot: PilotView) -> dict[str, Any]:
    return {
        "pilot": pilot.id,
        "site": pilot.site,
        "phase": pilot.status.phase,
        "tasks": pilot.tasks,
        "cores": pilot.cores,
        "memory_mib": pilot.memory_mib,
        "node": pilot.node,
        "batch job": pilot.batch_id,
        "seen": ago(pilot.last_seen),
        "why": pilot.status.message,
    }


@click.command(epilog=examples("hansa pilot list"))
@output_option()
def list_pilots(*, form: str) -> None:
    """List pilots: the programs that run the tasks at a site."""
    found = open_session().run(collect(lambda after: job_api.pilots(after=after)))
    emit(found, form, _pilot_cells, lambda pilot: pilot.id)
    if not found:
        note("there is no pilot now; they start when jobs wait")
