"""What a plan asks and says, without a database."""

from __future__ import annotations

from datetime import UTC, datetime

from hansa.kernel.settings import JobSettings
from hansa.kernel.status import Party, Status
from hansa.placement.authority import without_authority
from hansa.placement.choose import choose, explain_all
from hansa.placement.model import Candidate, Request, Work
from hansa.placement.service import _nearness, _sentence, request_of
from hansa.placement.wire import PlanRequest


def said(request: Request, *candidates: Candidate) -> str:
    verdicts = sorted(explain_all(choose(request, candidates)), key=_nearness)
    return _sentence(verdicts)


def test_a_job_has_the_defaults_of_the_server_and_a_machine_none() -> None:
    settings = JobSettings(cores=3, memory_mib=700, wall_time_s=60)
    job = request_of(PlanRequest(), "vo", settings)
    assert (job.work, job.cores, job.memory_mib, job.wall_time_s, job.vo) == (Work.JOB, 3, 700, 60, "vo")
    machine = request_of(PlanRequest(work="machine", count=4), None, settings)
    assert (machine.work, machine.cores, machine.memory_mib, machine.wall_time_s) == (Work.MACHINE, 1, 0, 0)
    assert machine.count == 4


def test_who_asks_for_a_model_asks_for_a_gpu() -> None:
    assert request_of(PlanRequest(gpu_model="A100"), None, JobSettings()).gpus == 1


def test_the_sentence_names_the_best_place_or_the_nearest() -> None:
    small, large = Candidate("small", cores=2), Candidate("large", cores=64)
    assert said(Request(cores=8), small, large) == "It would run at large."
    assert said(Request(cores=1), small, large) == "It would run at large; it could at 1 more."
    none = said(Request(cores=128, memory_mib=9), small, Candidate("larger", cores=64, memory_mib=1))
    assert none == "It can run nowhere now. Nearest to it is small: 128 cores asked, 2 there. Ask for at most 2 cores."
    assert "hansa site list" in said(Request())


def test_sites_that_nobody_asked_for_come_last() -> None:
    verdicts = explain_all(
        choose(Request(cores=99, sites=("b",)), [Candidate("a", cores=100), Candidate("b", cores=1)])
    )
    assert [one.site for one in sorted(verdicts, key=_nearness)] == ["b", "a"]


def test_without_a_grant_of_authority_a_place_refuses_and_names_the_command() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = Status("waiting", "identity.grant_expired", "The lasting sign-in has ended.", Party.USER, now)
    (verdict,) = explain_all(choose(Request(), [without_authority(Candidate("a"), status)]))
    (finding,) = verdict.findings
    assert (finding.reason, finding.waiting_on) == ("identity.grant_expired", Party.USER)
    assert "hansa login --renew" in finding.remedy
