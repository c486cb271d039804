"""``hansa site health``: how a site is and was."""

from __future__ import annotations

from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.output import emit_one, output_option, write_table
from hansa.cli.session import open_session
from hansa.cli.sites import show_span
from hansa.client import site_api
from hansa.sites.wire import HealthReport, Period


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f} %"


def _period_cells(one: Period) -> dict[str, Any]:
    return {
        "period": one.label,
        "availability": _percent(one.availability),
        "reliability": _percent(one.reliability),
        "down_h": round(one.down_s / 3600, 1),
        "downtime_h": round(one.downtime_s / 3600, 1),
        "unknown_h": round(one.unknown_s / 3600, 1),
    }


@click.command(epilog=examples("hansa site health NEBULA", "hansa site health NEBULA --days 90 -o json"))
@click.argument("site", shell_complete=completion.sites)
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far to look back.")
@output_option()
def site_health(site: str, days: int, *, form: str) -> None:
    """Show how SITE is and was: endpoints, history, availability and reliability by day and month.

    Availability is the part of the known time that it was up; reliability leaves out planned downtime as well.
    """
    found = open_session().run(site_api.site_health(site, days))
    if form == "table":
        _write(found)
    else:
        emit_one(found, form, lambda one: {"site": one.site}, lambda one: one.site)


def _write(found: HealthReport) -> None:
    click.echo(f"{found.site} is {found.status.phase}: {found.status.message}\n")
    rows = [
        {
            "endpoint": f"{one.name} ({one.kind})",
            "is": one.health.phase,
            **_period_cells(one.total),
            "why": one.health.message,
        }
        for one in found.endpoints
    ]
    write_table([{name: value for name, value in row.items() if name != "period"} for row in rows])
    click.echo()
    write_table([_period_cells(one) for one in [*found.months, *found.days]])
    spans = [
        {
            "endpoint": one.name,
            "when": show_span(span.begins, span.ends),
            "answer": span.answer,
            "probes": span.probes,
            "took_ms": span.took_ms,
            "message": span.message,
        }
        for one in found.endpoints
        for span in one.spans[:10]
    ]
    canaries = [
        {"canary at": one.name, "sent": show_span(each.sent, each.ended), "it": each.state, "message": each.message}
        for one in found.endpoints
        for each in one.canaries[:5]
    ]
    if canaries:
        click.echo()
        write_table(canaries)
    if spans:
        click.echo()
        write_table(spans)
