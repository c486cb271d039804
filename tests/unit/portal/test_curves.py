"""Use over time as pictures and tables: both say the same."""

from __future__ import annotations

import doctest
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.cli import usage as cli
from hansa.jobs.usage import spread_of
from hansa.jobs.wire import JobUsage, Phase, TaskUsage
from hansa.machines.wire import MachineUsage
from hansa.portal import curves
from hansa.portal.curves import curve, curves_of, curves_of_machine, height, histogram

USAGE = TaskUsage(
    7, 3, 1, [1], Phase.DONE, 2, 100, 0, 60, 2.0, 5.0, [1.0, 2.0, 0.5], [10.0, 50.0, 50.0], [0.0] * 3, [0.0, 1.0, 0.0]
)
amounts = st.lists(st.floats(0, 1e6), min_size=1, max_size=120)


def test_what_was_asked_for_is_a_line_in_the_picture_and_quiet_disks_are_left_out() -> None:
    found = curves_of(USAGE)
    assert found.ends == (2.0, 4.0, 5.0)
    assert [one.name for one in found.drawn] == ["cores", "memory", "written"]
    cores, memory, written = found.drawn
    assert (cores.line, cores.asked, cores.top, cores.most) == (height(2, 2), "2", "2", "2")
    assert cores.mean == "1.30"  # of unequal stretches
    assert (memory.line, memory.values) == (height(100, 100), ("10", "50", "50"))
    assert (written.line, written.asked) == (None, "")


@given(amounts, st.floats(0, 1e6))
def test_the_area_lies_within_the_picture_and_has_a_step_for_each_stretch(values: list[float], asked: float) -> None:
    ends = [float(place + 1) for place in range(len(values))]
    drawn = curve("cores", "", values, ends, asked)
    numbers = [float(word) for word in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", drawn.area)]
    assert all(0 <= number <= 100 for number in numbers)
    assert drawn.area.count("H") == len(drawn.values) == len(values)
    assert drawn.line is None or curves.CEILING <= drawn.line <= curves.FLOOR


def test_nothing_is_drawn_of_nothing() -> None:
    assert curves_of(replace(USAGE, cores=[], memory_mib=[], read_mib_s=None, written_mib_s=None)).drawn == ()
    assert [one.drawn for one in curves_of_machine(MachineUsage("web", 1, 512, message="None."))] == [(), ()]


def test_a_machine_has_its_last_hour_and_all_its_time() -> None:
    ends = [36_000.0, 72_000.0, *(72_000.0 + 30 * place for place in range(1, 121))]
    usage = MachineUsage("web", 2, 512, None, ends, [1.0] * 122, [100.0] * 122)
    late, whole = curves_of_machine(usage)
    assert (len(late.ends), late.ends[0], late.ends[-1]) == (120, 30.0, 3600.0)
    assert whole.ends[-1] == 75_600.0
    young = replace(usage, ends_s=[30.0, 60.0], cores=[1.0, 0.5], memory_mib=[1.0, 1.0])
    late, whole = curves_of_machine(young)
    assert (late.ends, whole.drawn) == ((30.0, 60.0), ())


@given(amounts)
def test_bars_lie_within_the_picture_and_hold_every_task(values: list[float]) -> None:
    drawn = histogram(spread_of("memory_mib", 1000.0, values))
    assert sum(bar.tasks for bar in drawn.bars) == len(values)
    assert all(0 <= bar.x <= 100.1 and bar.x + bar.width <= 100.2 and 0 <= bar.height <= 100 for bar in drawn.bars)
    assert drawn.line is None or 0 <= drawn.line <= 100


def test_numbers_have_as_many_digits_as_say_something() -> None:
    assert doctest.testmod(curves).failed == 0
    assert [curves.number(value) for value in (0.0, 0.00001, 0.0042, 0.5, 99.95)] == [
        "0",
        "0",
        "0.004",
        "0.50",
        "100.0",
    ]


def test_lines_for_a_terminal() -> None:
    assert doctest.testmod(cli).failed == 0
    lines = cli.task_lines(USAGE)
    assert lines[0] == "task 7.3 done: 5 s in stretches of 2 s"
    assert lines[1].split() == ["busy", "cores", "▅█▃", "at", "most", "2,", "asked", "for", "2"]
    waits = replace(USAGE, cores=[], message="It has not started yet.", phase=Phase.WAITING)
    assert cli.task_lines(waits) == ["task 7.3 waiting: It has not started yet."]
    rows = cli.task_rows(USAGE)
    assert [row["until_s"] for row in rows] == [2.0, 4.0, 5.0]
    assert rows[1] == {"until_s": 4.0, "cores": 2.0, "memory_mib": 50.0, "read_mib_s": 0.0, "written_mib_s": 1.0}
    many = cli.sparkline([float(number) for number in range(1000)])
    assert (len(many), many[-1]) == (cli.WIDTH, "█")


def test_lines_of_a_job_and_of_a_machine() -> None:
    spread = spread_of("wall_s", 60.0, [1.0, 2.0, 3.0])
    lines = cli.job_lines(JobUsage(7, 3, 3, [spread], [2]))
    assert lines[0] == "job 7: 3 of 3 tasks that ended"
    assert lines[1].endswith("1 to 3 s, half below 2, nine of ten below 3; asked for 60")
    assert lines[2] == "over its time, one task: hansa job usage 7.2"
    assert cli.job_lines(JobUsage(7, 0, 0, [], [])) == ["job 7: none of its tasks has ended after running"]
    usage = MachineUsage("web", 2, 512, None, [30.0, 60.0], [1.0, 2.0], [100.0, 100.0])
    assert cli.machine_lines(usage)[0] == "machine web: the last 1 min"
    assert cli.machine_rows(usage)[1] == {"until_s": 60.0, "cores": 2.0, "memory_mib": 100.0}
    assert cli.machine_lines(MachineUsage("web", 1, 1, message="No."))[0] == "machine web: No."


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0]])
def test_tasks_that_do_not_differ_are_one_bar(values: list[float]) -> None:
    drawn = histogram(spread_of("cores", 1.0, values))
    assert [bar.tasks for bar in drawn.bars] == [len(values)]
