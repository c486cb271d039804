"""What to do about a pilot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from hansa.jobs.controller import CANCEL, CLEAN, START, Verdict, decide
from hansa.jobs.drivers.base import Life, Seen
from hansa.jobs.model import PilotPhase
from hansa.kernel.reconcile import Act
from hansa.kernel.settings import PilotSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = PilotSettings(silence_s=60, lost_s=1800)


def pilot(phase: str, silent_s: float = 0, stop: str | None = None) -> SimpleNamespace:
    heard = NOW - timedelta(seconds=silent_s)
    return SimpleNamespace(
        phase=phase, last_seen=heard, since=heard, started=heard, stop=stop, reason="pilots.stopped", message=""
    )


@pytest.mark.parametrize(
    ("phase", "silent_s", "stop", "life", "operation"),
    [
        ("starting", 0, None, Life.ABSENT, START),
        ("ended", 0, None, Life.ALIVE, CANCEL),
        ("lost", 0, None, Life.QUEUED, CANCEL),
        ("lost", 0, None, Life.ENDED, CLEAN),
        ("ended", 0, None, Life.ENDED, CLEAN),
        ("running", 1801, None, Life.ALIVE, CANCEL),
        ("running", 61, "now", Life.ALIVE, CANCEL),
    ],
)
def test_what_is_done(phase: str, silent_s: float, stop: str | None, life: Life, operation: str) -> None:
    decision = decide(pilot(phase, silent_s, stop), Seen(life), NOW, SETTINGS)
    assert isinstance(decision, Act)
    assert decision.operation == operation


@pytest.mark.parametrize(
    ("phase", "silent_s", "stop", "life", "becomes"),
    [
        ("starting", 5, None, Life.ALIVE, None),
        ("starting", 9999, None, Life.QUEUED, None),
        ("running", 1799, None, Life.ALIVE, None),
        ("running", 61, "drain", Life.ALIVE, None),
        ("running", 59, "now", Life.ALIVE, None),
        ("starting", 0, None, Life.ENDED, PilotPhase.LOST),
        ("running", 0, None, Life.ENDED, PilotPhase.LOST),
        ("running", 0, None, Life.ABSENT, PilotPhase.LOST),
        ("ended", 0, None, Life.ABSENT, None),
        ("lost", 0, None, Life.ABSENT, None),
    ],
)
def test_what_is_noted(phase: str, silent_s: float, stop: str | None, life: Life, becomes: PilotPhase | None) -> None:
    decision = decide(pilot(phase, silent_s, stop), Seen(life, "a word"), NOW, SETTINGS)
    assert isinstance(decision, Verdict)
    assert decision.phase is becomes
    is_over = PilotPhase(phase).is_final
    assert (decision.due_at is None) == (is_over or becomes is not None)


def test_a_pilot_that_was_never_heard_is_silent_since_its_start() -> None:
    row = SimpleNamespace(
        phase="starting", last_seen=None, since=NOW - timedelta(seconds=1801), started=None, stop=None
    )
    assert isinstance(decide(row, Seen(Life.ALIVE), NOW, SETTINGS), Act)


def test_the_last_words_of_a_pilot_are_told() -> None:
    decision = decide(pilot("running"), Seen(Life.ENDED, "out of memory"), NOW, SETTINGS)
    assert isinstance(decision, Verdict)
    assert "out of memory" in decision.message


def test_who_stopped_a_pilot_that_said_goodbye_is_noted_once() -> None:
    row, seen = pilot("ended"), Seen(Life.ENDED, "Slurm pre-empted it (job 7)", is_blameless=True)
    decision = decide(row, seen, NOW, SETTINGS)
    assert isinstance(decision, Verdict)
    assert (decision.reason, decision.message) == ("pilots.stopped_by_site", "It ended: Slurm pre-empted it (job 7).")
    row.reason = decision.reason
    assert isinstance(decide(row, seen, NOW, SETTINGS), Act)
    we_did = pilot("ended", stop="now")
    assert isinstance(decide(we_did, seen, NOW, SETTINGS), Act)


def test_a_pilot_that_is_queued_again_is_not_waited_for_and_nobodys_fault() -> None:
    row = pilot("running", silent_s=60)
    decision = decide(row, Seen(Life.QUEUED, unborn_s=1.0), NOW, SETTINGS)
    assert isinstance(decision, Act)
    assert (decision.operation, decision.reason) == (CANCEL, "pilots.requeued")
    row.reason, row.message = "pilots.requeued", "The site took its place away."
    decision = decide(row, Seen(Life.ENDED), NOW, SETTINGS)
    assert isinstance(decision, Verdict)
    assert (decision.phase, decision.is_blameless) == (PilotPhase.LOST, True)
    assert decision.message == "The site took its place away."


@pytest.mark.parametrize(
    ("phase", "unborn_s"),
    [
        ("running", None),  # suspended: it goes on later
        ("running", 61.0),  # seen before it began
    ],
)
def test_a_pilot_that_waits_is_waited_for(phase: str, unborn_s: float | None) -> None:
    decision = decide(pilot(phase, silent_s=60), Seen(Life.QUEUED, unborn_s=unborn_s), NOW, SETTINGS)
    assert isinstance(decision, Verdict)
    assert decision.phase is None
