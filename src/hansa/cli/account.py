"""``hansa whoami`` and ``hansa usage``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from hansa.accounting.wire import WORDS, UsageRow
from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option, write_csv, write_table
from hansa.cli.session import note, open_session
from hansa.client import people_api, site_api
from hansa.identity.wire import User

DAY = click.DateTime(["%Y-%m-%d"])


def _user_cells(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "id": user.id,
        "issuer": user.issuer,
        "subject": user.sub,
        "operator": user.operator,
        "organisations": ", ".join(user.vos),
    }


@click.command(epilog=examples("hansa whoami"))
@output_option()
def whoami(*, form: str) -> None:
    """Show who you are to the server."""
    emit_one(open_session().run(people_api.whoami()), form, _user_cells, lambda user: user.id)


def _usage_cells(row: UsageRow) -> dict[str, Any]:
    keys = {"owner": row.owner or None, "vo": row.vo, "group": row.group, "site": row.site}
    keys |= {"kind": row.kind, "month": row.month, "day": row.day}
    return {
        **keys,
        "tasks": row.tasks,
        "core_h": round(row.core_s / 3600, 3),
        "cpu_h": round(row.cpu_s / 3600, 3),
        "wall_h": round(row.wall_s / 3600, 3),
        "gpu_h": round(row.gpu_s / 3600, 3),
        "idle_h": round(row.idle_core_s / 3600, 3),
        "price": None if row.price is None else round(row.price, 2),
    }


def _identify_usage(row: UsageRow) -> str:
    return "/".join(
        str(word or "-") for word in (row.owner, row.vo, row.site, row.month or row.day) if word is not None
    )


@click.command(
    epilog=examples(
        "hansa usage", "hansa usage --by vo,user,month --everybody --since 2026-01-01 -o csv", "hansa usage -o apel"
    )
)
@click.option("--by", metavar="WORDS", help="Sum up by vo, group, user, site, kind, day, month. [default: vo,site]")
@click.option("--since", type=DAY, metavar="DAY", help="The first day.")
@click.option("--until", type=DAY, metavar="DAY", help="The last day.")
@click.option("--vo", metavar="VO", help="Of this virtual organisation only.")
@click.option("--site", metavar="SITE", help="At this site only.")
@click.option("--user", metavar="USER", help="Of this user only, among those whom you may see.")
@click.option("--everybody", is_flag=True, help="All that you may see: of your VO as a manager, at your site.")
@output_option("csv", "apel")
def usage(
    by: str | None,
    since: datetime | None,
    until: datetime | None,
    vo: str | None,
    site: str | None,
    user: str | None,
    *,
    everybody: bool,
    form: str,
) -> None:
    """Show what was used: by you, or by all whom you may see."""
    if unknown := sorted(set((by or "").split(",")) - {*WORDS, ""}):
        raise click.UsageError(f"Usage is not summed up by {unknown[0]}. By one or some of: {','.join(WORDS)}.")
    if since and until and since > until:
        raise click.UsageError(f"The first day, {since:%Y-%m-%d}, is after the last, {until:%Y-%m-%d}.")
    first, last = (day.date().isoformat() if day else None for day in (since, until))
    session = open_session()
    if form == "apel":
        click.echo(session.run(site_api.usage_apel(first, last, site)), nl=False)
        return
    everybody = everybody or user is not None
    asked = {"since": first, "until": last, "vo": vo, "site": site, "user": user, "everybody": everybody}
    found = session.run(site_api.usage(by, **asked)).items
    cells = [_usage_cells(row) for row in found]
    used = [name for name in (cells[0] if cells else ()) if any(row[name] is not None for row in cells)]
    if form == "csv":
        write_csv([{name: row[name] for name in used} for row in cells])
    elif form == "table":
        write_table(cells, used)
    else:
        emit(found, form, _usage_cells, _identify_usage)
    if not found:
        note("nothing was used, of what you ask for" if any(asked.values()) else "nothing was used yet")
