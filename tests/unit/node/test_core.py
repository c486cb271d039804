"""The pilot's decisions."""

from __future__ import annotations

from typing import Any

from hansa.node.core import Core, Phase, SetupPhase, Task
from hansa.node.protocol import ExchangeReply, File, JobOrder, Kill, Lease

FILE = File("a", "sha256:" + "0" * 64, 1)


def order(number: int = 1, cores: int = 1, memory_mib: int = 100, wall_time_s: int = 60, **more: Any) -> JobOrder:
    return JobOrder(number, ["true"], cores, memory_mib, wall_time_s, **more)


def reply(*orders: JobOrder, count: int = 1, first_lease: int = 1, **more: Any) -> ExchangeReply:
    leases = [Lease(first_lease + n, one.number, 0, count - 1, 1) for n, one in enumerate(orders)]
    return ExchangeReply(leases=leases, jobs=list(orders), **more)


def make(cores: int = 2, **more: Any) -> Core:
    return Core(range(cores), 1000, **more)


def running(core: Core, now: float = 0.0) -> list[Task]:
    tasks = core.startable(now)
    for task in tasks:
        core.started(task, 100 + task.serial, now)
    return tasks


def test_tasks_start_while_there_is_room_and_get_cores_of_their_own() -> None:
    core = make()
    core.accept(reply(order(), count=3), 0.0)
    first, second = running(core)
    assert {first.cores, second.cores} == {(0,), (1,)}
    assert core.startable(0.0) == []
    core.ended(first, 1.0)
    (third,) = core.startable(1.0)
    assert third.cores == first.cores
    assert core.owed == {1: 3}


def test_of_several_kinds_of_gpus_a_task_gets_the_one_that_it_asked_for() -> None:
    core = make(cores=4, gpus=["0", "1", "2"])
    core.accept(reply(order(1, gpus=1, gpus_like=["2"]), order(2, gpus=1, gpus_like=["2"]), order(3, gpus=1)), 0.0)
    tasks = running(core)
    assert [(task.job.order.number, task.gpus) for task in tasks] == [(1, ("2",)), (3, ("0",))]
    core.ended(tasks[0], 1.0)
    (second,) = core.startable(1.0)
    assert (second.job.order.number, second.gpus) == (2, ("2",))


def test_memory_and_gpus_bound_what_starts() -> None:
    core = Core(range(4), 1000, ["g0"])
    core.accept(reply(order(1, memory_mib=600), order(2, gpus=1), order(3, gpus=1), order(4)), 0.0)
    assert [task.job.order.number for task in running(core)] == [1, 2, 4]


def test_a_task_that_does_not_fit_lets_others_pass_only_for_a_while() -> None:
    core = make()
    core.accept(reply(order(1)), 0.0)
    (small,) = running(core)
    core.accept(reply(order(2, cores=2), order(3), order(4), first_lease=2), 0.0)
    (third,) = running(core, 1.0)
    assert third.job.order.number == 3
    core.ended(third, 10.0)
    assert core.startable(10.0) == []
    core.ended(small, 11.0)
    assert [task.job.order.number for task in core.startable(11.0)] == [2]


def test_what_can_never_run_here_is_said_so() -> None:
    arrivals = make().accept(reply(order(cores=3)), 0.0)
    assert arrivals.refusals[0].outcome == "node"
    assert "2 cores" in arrivals.refusals[0].message


def test_repeated_lease_is_taken_once() -> None:
    core = make()
    core.accept(reply(order(), count=2), 0.0)
    core.accept(reply(order(), count=2), 0.0)
    assert len(core.tasks) == 2


def test_inputs_then_setup_then_start() -> None:
    core = make()
    arrivals = core.accept(reply(order(setup="make", inputs=[FILE]), count=2), 0.0)
    assert core.startable(0.0) == []
    core.fetched(arrivals.fetch[0])
    (setup,) = running(core)
    assert setup.is_setup
    core.fetched(arrivals.fetch[1])
    assert core.startable(0.0) == []
    core.ended(setup, 1.0)
    assert core.setup_ended(setup.job, "") == []
    assert len(core.startable(1.0)) == 2
    assert setup.job.setup is SetupPhase.DONE


def test_failed_setup_ends_all_its_tasks_also_later_ones() -> None:
    core = make()
    core.accept(reply(order(setup="make"), count=2), 0.0)
    (setup,) = running(core)
    core.ended(setup, 1.0)
    assert [refusal.outcome for refusal in core.setup_ended(setup.job, "no")] == ["setup", "setup"]
    late = core.accept(reply(order(setup="make"), first_lease=2), 2.0)
    assert [refusal.message for refusal in late.refusals] == ["no"]
    assert core.is_idle


def test_a_signal_before_the_wall_time_is_over_comes_once() -> None:
    core = make()
    core.accept(reply(order(wall_time_s=100, signal=10, signal_before_s=60)), 0.0)
    (task,) = running(core)
    assert core.due(39.0) == []
    assert core.due(40.0) == [(task, 10)]
    assert core.due(41.0) == []
    assert task.stop_outcome is None


def test_wall_time_is_a_term_and_ten_seconds_later_a_kill() -> None:
    core = make()
    core.accept(reply(order(wall_time_s=5)), 0.0)
    (task,) = running(core)
    assert core.due(4.9) == []
    assert [signal.number for signal in core.due(5.0)] == [15]
    assert core.due(14.9) == []
    assert [signal.number for signal in core.due(15.0)] == [9]
    assert task.stop_outcome == "wall_time"


def test_memory_is_a_kill_at_once_with_numbers() -> None:
    core = make()
    core.accept(reply(order()), 0.0)
    (task,) = running(core)
    assert core.over_memory(task, 100, 1.0) == []
    assert [signal.number for signal in core.over_memory(task, 2100.4, 2.0)] == [9]
    assert (task.stop_outcome, task.stop_message) == ("memory", "used 2,100 MiB, asked for 100 MiB")


def test_kill_of_waiting_starting_and_running_tasks() -> None:
    core = make(cores=3)
    core.accept(reply(order(), count=4), 0.0)
    one, two, three = core.startable(0.0)
    core.started(one, 11, 0.0)
    arrivals = core.accept(ExchangeReply(kill=[Kill(1)]), 1.0)
    assert [signal.task for signal in arrivals.signals] == [one]
    assert [refusal.task.index for refusal in arrivals.refusals] == [3]
    signal = core.started(two, 12, 1.0)
    assert signal is not None
    assert signal.number == 9
    assert three.stop_outcome == "killed"
    for task in (one, two, three):
        core.ended(task, 2.0)
    assert core.is_idle


def test_dropped_lease_is_not_owed() -> None:
    core = make()
    core.accept(reply(order(), count=3), 0.0)
    running(core)
    arrivals = core.accept(ExchangeReply(dropped=[1, 99]), 1.0)
    assert arrivals.dropped == [1]
    assert core.owed == {}
    assert all(task.drop for task in core.active.values())


def test_acknowledgements_end_a_lease() -> None:
    core = make()
    core.accept(reply(order(), count=2), 0.0)
    core.acknowledged(1)
    assert core.owed == {1: 1}
    core.acknowledged(1)
    assert core.owed == {}


def test_wants_nothing_when_draining_or_out_of_time() -> None:
    core = make(ends_at=100.0)
    assert core.want(0.0) == 4
    assert core.want(100.0) == 0
    core.accept(ExchangeReply(stop="drain"), 0.0)
    assert core.want(0.0) == 0


def test_what_has_not_started_is_given_back_when_draining_and_nobody_is_to_blame() -> None:
    core = make()
    core.accept(reply(order(), count=2), 0.0)
    refusals = core.accept(ExchangeReply(stop="drain"), 0.0).refusals
    assert [one.outcome for one in refusals] == ["preempted", "preempted"]
    assert core.is_idle


def test_takes_only_what_fits_into_its_wall_time() -> None:
    core = make(ends_at=100.0)
    core.accept(reply(order(wall_time_s=60)), 50.0)
    assert core.startable(50.0) == []
    assert core.has_no_time(50.0)
    assert core.remaining_s(50.0) == 50.0


def test_room_is_given_back_in_every_way_a_task_can_end() -> None:
    core = make()
    core.accept(reply(order(1), order(2, inputs=[FILE]), order(3, setup="x"), count=3), 0.0)
    for task in [*running(core), *list(core.tasks.values())]:
        core.stop(task, "killed", "", 1.0)
        if task.phase is not Phase.ENDED:
            core.ended(task, 1.0)
    assert core.is_idle
    assert len(core.free_cores) == 2
    assert core.free_memory_mib == 1000
    assert core.want(1000.0) == 4


def test_jobs_of_which_nothing_is_here_are_forgotten_but_for_their_setups() -> None:
    core = make()
    core.accept(reply(order(1), order(2, setup="x"), order(3)), 0.0)
    task = core.tasks[1, 0]
    assert core.prune() == []
    for one in list(core.tasks.values())[:2]:
        core.stop(one, "killed", "", 0.0)
    assert task.phase is Phase.ENDED
    assert core.prune() == [1]
    assert sorted(core.jobs) == [2, 3]


def test_time_in_which_all_was_suspended_counts_for_no_limit() -> None:
    core = make(ends_at=1000.0)
    core.accept(reply(order(wall_time_s=60)), 0.0)
    (task,) = running(core, 10.0)
    core.stood_still(3600.0)
    assert core.due(3660.0) == []
    assert core.remaining_s(3660.0) == 940.0
    (signal,) = core.due(3671.0)
    assert signal.task is task
