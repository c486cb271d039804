"""The table of results, as Markdown: it can be read as it is and pasted into a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Better, Row

HEAD = ("work", "Hansa", "peers in the same run", "Hansa is better by", "budget", "met")


def render(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """A line about the machine, then the table."""
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = [_line(HEAD, widths), _line(tuple("-" * width for width in widths), widths)]
    text += [_line(line, widths) for line in lines[1:]]
    place = (
        f"{machine['time']}, Hansa {machine['hansa']} ({machine['commit']}), {machine['cores']} cores "
        f"({machine['processor']}), {machine['memory_mib']:,} MiB, {machine['system']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}"
    )
    return "\n".join([place, "", *text])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cells(row: Row) -> tuple[str, ...]:
    peers = ", ".join(f"{name} {_number(value)}" for name, value in row.peers.items())
    ratios = ", ".join(f"{row.ratio(name):.2f}×" for name in row.peers)
    budget = ""
    if row.budget is not None:
        budget = f"{'at least' if row.better == Better.HIGHER else 'at most'} {_number(row.budget)}"
    met = {None: "", True: "yes", False: "NO"}[row.is_met]
    return row.work, f"{_number(row.hansa)} {row.unit}", peers or "–", ratios or "–", budget or "–", met or "–"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
