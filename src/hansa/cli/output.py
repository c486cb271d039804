"""Data on stdout: as a table for people, JSON or YAML for programs, or ids only, one on a line."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from hansa.client.units import show_time
from hansa.kernel.wire import encode

FORMS = ("table", "json", "yaml", "id")
Cells = Mapping[str, Any]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def output_option(*more: str, default: str = "table") -> Callable[[Any], Any]:
    """The option ``-o`` of every command that prints data."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([*FORMS, *more]),
        default=default,
        show_default=True,
        help="What to print.",
    )


def emit(items: Sequence[Any], form: str, cells: Callable[[Any], Cells], identify: Callable[[Any], object]) -> None:
    """Print a list. ``cells`` makes the row of the table, ``identify`` the id."""
    if form == "table":
        write_table([cells(item) for item in items])
    else:
        _emit_plain([encode(item) for item in items], form, [identify(item) for item in items])


def emit_one(item: Any, form: str, cells: Callable[[Any], Cells], identify: Callable[[Any], object]) -> None:
    """Print one thing; as a table: a line per field."""
    if form == "table":
        rows = {name: value for name, value in cells(item).items() if value not in (None, "")}
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            click.echo(f"{_style(name.ljust(width), BOLD)}  {show(value)}")
    else:
        _emit_plain(encode(item), form, [identify(item)])


def _emit_plain(data: Any, form: str, ids: Iterable[object]) -> None:
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        for one in ids:
            click.echo(one)


def write_table(rows: Sequence[Cells], columns: Sequence[str] | None = None) -> None:
    """Columns as wide as their widest value; numbers to the right. A terminal's lines are cut to fit."""
    names = list(columns or (rows[0] if rows else ()))
    if not names:
        return
    texts = [[show(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[n]) for line in texts)) for n, name in enumerate(names)]
    right = [all(_is_number(row.get(name)) for row in rows) for name in names]
    room = _room()
    click.echo(_style(_line([name.upper() for name in names], widths, right, room), BOLD))
    for line in texts:
        click.echo(_line(line, widths, right, room))


def write_csv(rows: Sequence[Cells]) -> None:
    """The same columns for a spreadsheet: RFC 4180, but lines end as everywhere here."""
    import csv

    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], room: int | None) -> str:
    padded = [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]
    text = "  ".join(padded).rstrip()
    return text if room is None or len(text) <= room else text[: room - 1] + "…"


def show(value: Any) -> str:
    """A value for people. Control characters, which a terminal would obey, are replaced."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub("?", str(value))


def ago(moment: datetime | None) -> str:
    """``3 min ago``."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return f"{show_time(int(seconds))} ago" if seconds >= 1 else "now"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _room() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if _is_terminal() else None


def _style(text: str, style: str) -> str:
    if not _is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{style}{text}{PLAIN}"
