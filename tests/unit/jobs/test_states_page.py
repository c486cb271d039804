"""The page that maps DIRAC's states: it leaves none out, and names nothing that the code does not know."""

from __future__ import annotations

import re
from pathlib import Path

from hansa.jobs.wire import Phase
from hansa.node import protocol

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "explanation" / "job-states.md").read_text()
DIRAC = (
    "Submitting", "Received", "Checking", "Staging", "Scouting", "Waiting", "Matched", "Running", "Stalled",
    "Completing", "Done", "Completed", "Failed", "Deleted", "Killed", "Rescheduled",
)  # fmt: skip
"""DIRAC.WorkloadManagementSystem.Client.JobStatus, as of version 8."""


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_state_of_dirac_is_in_the_table_once() -> None:
    first = [name.strip() for row in rows() if len(row) == 3 for name in row[0].split(",")]
    assert {name: first.count(name) for name in DIRAC} == dict.fromkeys(DIRAC, 1)


def test_every_phase_and_every_way_an_attempt_ends_is_named() -> None:
    said = " ".join(row[1] for row in rows())
    assert [phase for phase in Phase if not re.search(rf"\b{phase}\b", said)] == []
    kinds = [protocol.EXITED, protocol.WALL_TIME, protocol.MEMORY, protocol.KILLED, protocol.NOT_STARTED]
    kinds += [protocol.SETUP, protocol.IMAGE, protocol.INPUT, protocol.OUTPUT, protocol.NODE, protocol.PREEMPTED]
    assert [kind for kind in kinds if f"`{kind}`" not in PAGE] == []


def test_every_reason_on_the_page_is_one_that_the_code_gives() -> None:
    named = set(re.findall(r"`((?:jobs|images)\.[a-z_]+)`", PAGE))
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "hansa").glob("*/*.py"))
    phases = {f"jobs.{phase}" for phase in Phase}
    assert sorted(code for code in named - phases if f'"{code}"' not in source) == []
    assert phases - {"jobs.waiting"} <= named
