"""Container images of jobs, as the pilot decides about them."""

from __future__ import annotations

from hansa.node.core import IMAGE_AGAIN_S, ImagePhase
from hansa.node.protocol import IMAGE, NODE, Kill
from tests.unit.node.test_core import make, order, reply, running


def test_one_pull_for_a_job_then_setup_then_its_tasks() -> None:
    core = make()
    arrivals = core.accept(reply(order(image="box", setup="make"), count=3), 0.0)
    (job,) = arrivals.pulls
    assert core.startable(0.0) == []
    assert core.accept(reply(order(image="box", setup="make"), first_lease=9), 0.0).pulls == []
    assert core.image_ended(job, "", "", 1.0).refusals == []
    (setup,) = core.startable(1.0)
    assert setup.is_setup
    core.started(setup, 7, 1.0)
    core.ended(setup, 2.0)
    core.setup_ended(job, "")
    assert len(running(core, 2.0)) == 2


def test_an_image_that_is_not_to_be_had_ends_its_tasks_for_a_while_without_asking_again() -> None:
    core = make()
    (job,) = core.accept(reply(order(image="box"), count=2), 0.0).pulls
    refusals = core.image_ended(job, IMAGE, "there is none", 1.0).refusals
    assert [(one.outcome, one.message) for one in refusals] == [(IMAGE, "there is none")] * 2
    later = core.accept(reply(order(image="box"), first_lease=5), 2.0)
    assert (later.pulls, [one.outcome for one in later.refusals]) == ([], [IMAGE])
    assert core.accept(reply(order(image="box"), first_lease=6), 2.0 + IMAGE_AGAIN_S).pulls == [job]


def test_a_fault_of_the_node_is_tried_anew_for_the_next_task() -> None:
    core = make()
    (job,) = core.accept(reply(order(image="box")), 0.0).pulls
    assert core.image_ended(job, NODE, "the disk is full", 1.0).refusals[0].outcome == NODE
    assert job.image is ImagePhase.WANTED
    assert core.accept(reply(order(image="box"), first_lease=2), 2.0).pulls == [job]


def test_a_task_killed_while_its_image_comes_does_not_run() -> None:
    core = make()
    (job,) = core.accept(reply(order(image="box"), count=2), 0.0).pulls
    (refusal,) = core.accept(reply(kill=[Kill(1, 0)]), 1.0).refusals
    assert refusal.task.index == 0
    core.image_ended(job, "", "", 2.0)
    assert [task.index for task in running(core, 2.0)] == [1]
    assert core.owed == {1: 2}
