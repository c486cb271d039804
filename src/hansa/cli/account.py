"""``hansa whoami`` and ``hansa usage``."""

from __future__ import annotations

from typing import Any

import click

from hansa.accounting.wire import UsageRow
from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import api
from hansa.client.operations import collect
from hansa.identity.wire import User


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
    emit_one(open_session().run(api.whoami()), form, _user_cells, lambda user: user.id)


def _usage_cells(row: UsageRow) -> dict[str, Any]:
    return {
        "owner": row.owner,
        "vo": row.vo,
        "site": row.site,
        "tasks": row.tasks,
        "core_h": round(row.core_s / 3600, 3),
        "cpu_h": round(row.cpu_s / 3600, 3),
        "wall_h": round(row.wall_s / 3600, 3),
    }


@click.command(epilog=examples("hansa usage", "hansa usage -o json"))
@output_option()
def usage(*, form: str) -> None:
    """Show what was used, by owner, virtual organisation and site."""
    found = open_session().run(collect(api.usage))
    emit(found, form, _usage_cells, lambda row: f"{row.owner}/{row.vo or '-'}/{row.site}")
    if not found:
        note("nothing was used yet")
