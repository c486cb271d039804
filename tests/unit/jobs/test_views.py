"""Rows as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from hansa.jobs.settle import counts_of
from hansa.jobs.views import job_view, pilot_view, result_view, waiting_view
from hansa.jobs.wire import Counts, Phase
from hansa.kernel.status import Party

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(**more: Any) -> SimpleNamespace:
    spec = {
        "command": ["true"],
        "array": True,
        "names": ["x"],
        "retries": 1,
        "setup": None,
        "outputs": ["**"],
        "requirements": {"cores": 1, "memory_mib": 10, "gpus": 0, "wall_time_s": 5, "site": None},
    }
    values: dict[str, Any] = {
        "number": 7,
        "id": "job_1",
        "name": None,
        "owner_name": "ada",
        "vo": None,
        "spec": spec,
        "rank": 3,
        "first": 0,
        "count": 10,
        "done": 3,
        "failed": 1,
        "killed": 1,
        "killed_from": None,
        "phase": "running",
        "reason": "jobs.running",
        "message": "It runs.",
        "waiting_on": "nobody",
        "since": NOW,
        "input_files": 0,
        "input_bytes": 0,
        "created": NOW,
        "version": 4,
        "started": NOW,
        "ended": None,
        "held": False,
        "deadline": None,
        "group_name": None,
        "vo_group": None,
        "labels": {"a": "b"},
        "comment": None,
        "sites": None,
        "exit_code": None,
        "files_gone": None,
        "logs_gone": None,
    }
    return SimpleNamespace(**(values | more))


def test_a_job() -> None:
    view = job_view(row(), 2)
    assert view.counts == Counts(waiting=3, running=2, done=3, failed=1, killed=1)
    assert view.priority == 7
    assert view.status.waiting_on is Party.NOBODY
    assert view.requirements.memory_mib == 10


def test_counts_never_show_more_running_tasks_than_are_left() -> None:
    assert counts_of(row(done=8), 5) == Counts(0, 0, 8, 1, 1)


def test_a_task_that_waits_runs_or_was_never_given_out() -> None:
    pilot = SimpleNamespace(site="here", node={"hostname": "wn1"})
    again = SimpleNamespace(attempt=3)
    values = {"x": "1"}
    assert waiting_view(row(), 5, values, None, None).phase is Phase.WAITING
    assert "attempt 3" in waiting_view(row(), 5, values, None, again).message
    running = waiting_view(row(), 5, values, pilot, again)
    assert (running.phase, running.site, running.node, running.attempt) == (Phase.RUNNING, "here", "wn1", 3)
    killed = waiting_view(row(killed_from=5), 5, values, None, None)
    assert (killed.phase, killed.attempt) == (Phase.KILLED, 0)
    assert waiting_view(row(killed_from=6), 5, values, None, None).phase is Phase.WAITING


def test_a_task_that_ended() -> None:
    ended = SimpleNamespace(
        job=7,
        index=2,
        phase="failed",
        attempt=2,
        outcome="exited",
        exit_code=3,
        signal=None,
        message="",
        site=None,
        node=None,
        ended=NOW,
        wall_s=1.0,
        cpu_s=0.5,
        memory_mib=2.0,
        fields={"score": 1},
    )
    view = result_view(ended, {"x": "1"})
    assert (view.phase, view.exit_code, view.node, view.fields) == (Phase.FAILED, 3, None, {"score": 1})


def test_a_pilot() -> None:
    values: dict[str, Any] = {"id": "pilot_1", "site": "here", "cores": 2, "memory_mib": 9, "created": NOW}
    values |= {"phase": "running", "reason": "r", "message": "m", "waiting_on": "nobody", "since": NOW}
    values |= {"nodes": 1, "batch_id": None, "vo": None, "job": None}
    found = SimpleNamespace(**values, node=None, last_seen=None, running=[[1, 2], [1, 3]])
    assert pilot_view(found).tasks == 2
    found.node = {"hostname": "wn1", "isolation": "namespaces"}
    assert (pilot_view(found).node, pilot_view(found).isolation) == ("wn1", "namespaces")
