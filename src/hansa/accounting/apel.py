"""Usage records as APEL's summary job messages, which accounting portals of the grid understand. Pure.

The format is the text form of the OGF usage record's summaries, as the APEL server reads it: a header, then records
of ``Key: value`` lines, each ended by ``%%``. docs/how-to/account-for-usage.md says what becomes what.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

HEADER = "APEL-summary-job-message: v0.2"
END = "%%"


def summary(rows: Iterable[Any], issuer: str) -> str:
    """One message of sums by month, site, VO, group and user; ``issuer`` says whose users they are."""
    records = [_record(row, issuer) for row in rows if row.tasks > 0]
    return "\n".join([HEADER, *records]) + "\n"


def _record(row: Any, issuer: str) -> str:
    year, month = (int(part) for part in row.month.split("-"))
    first, last = _ends(year, month)
    fields: list[tuple[str, object]] = [
        ("Site", row.site),
        ("Month", month),
        ("Year", year),
        ("GlobalUserName", f"{row.user}@{issuer}"),
        ("VO", row.vo or "None"),
        ("VOGroup", f"/{row.vo}/{row.group.replace(':', '/')}" if row.group else "None"),
        ("VORole", "None"),
        ("SubmitHost", issuer),
        ("InfrastructureType", "grid"),
        ("ServiceLevelType", "custom"),
        ("ServiceLevel", 1.0),
        ("NodeCount", 0),
        ("Processors", max(1, round(row.core_s / row.wall_s)) if row.wall_s else 1),
        ("EarliestEndTime", first),
        ("LatestEndTime", last),
        ("WallDuration", round(row.wall_s)),
        ("CpuDuration", round(row.cpu_s)),
        ("NumberOfJobs", int(row.tasks)),
    ]
    return "\n".join([*(f"{name}: {_one_line(value)}" for name, value in fields), END])


def _ends(year: int, month: int) -> tuple[int, int]:
    """The first and the last second of a month: the days of the ends are known, their hours are not."""
    days = calendar.monthrange(year, month)[1]
    first = datetime(year, month, 1, tzinfo=UTC)
    last = datetime(year, month, days, 23, 59, 59, tzinfo=UTC)
    return int(first.timestamp()), int(last.timestamp())


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
