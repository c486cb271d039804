"""``hansa site …`` and ``hansa pilot …``."""

from __future__ import annotations

from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import ago, emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import api
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


def _site_details(site: Site) -> dict[str, Any]:
    return _site_cells(site) | {
        "gpus": ", ".join(site.capacity.gpus),
        "containers": ", ".join(site.capacity.container_runtimes),
        "owner": site.owner,
        "since": site.status.since,
    }


@click.command(epilog=examples("hansa site list", "hansa site list -o json"))
@output_option()
def list_sites(*, form: str) -> None:
    """List sites: where jobs can run."""
    emit(open_session().run(collect(api.sites)), form, _site_cells, lambda site: site.name)


@click.command(epilog=examples("hansa site show local"))
@click.argument("site", shell_complete=completion.sites)
@output_option()
def show(site: str, *, form: str) -> None:
    """Show a SITE."""
    emit_one(open_session().run(api.site(site)), form, _site_details, lambda found: found.name)


def _pilot_cells(pilot: PilotView) -> dict[str, Any]:
    return {
        "pilot": pilot.id,
        "site": pilot.site,
        "phase": pilot.status.phase,
        "tasks": pilot.tasks,
        "cores": pilot.cores,
        "memory_mib": pilot.memory_mib,
        "node": pilot.node,
        "seen": ago(pilot.last_seen),
        "why": pilot.status.message,
    }


@click.command(epilog=examples("hansa pilot list"))
@output_option()
def list_pilots(*, form: str) -> None:
    """List pilots: the programs that run the tasks at a site."""
    found = open_session().run(collect(lambda after: api.pilots(after=after)))
    emit(found, form, _pilot_cells, lambda pilot: pilot.id)
    if not found:
        note("there is no pilot now; they start when jobs wait")
