"""``hansa job usage``, ``hansa machine usage``: what a task or a machine uses over its time, and how tasks differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import click

from hansa.cli import output, refs
from hansa.cli.jobs import examples, job_argument
from hansa.cli.machines import name_argument
from hansa.cli.output import emit_one, output_option
from hansa.cli.session import open_session
from hansa.client import job_api, machines
from hansa.client.units import show_time
from hansa.jobs.wire import JobUsage, TaskUsage, UsageSpread
from hansa.machines.wire import MachineUsage

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
_CURVES = (
    ("cores", "busy cores", "", "cores_asked"),
    ("memory_mib", "memory", " MiB", "memory_asked_mib"),
    ("written_mib_s", "written", " MiB/s", None),
    ("read_mib_s", "read", " MiB/s", None),
    ("gpus", "busy GPUs", "", "gpus_asked"),
    ("gpu_memory_mib", "GPU memory", " MiB", None),
)
_SPREADS = {"wall_s": ("wall time", " s"), "cores": ("busy cores", ""), "memory_mib": ("memory at most", " MiB")}


@click.command(
    epilog=examples(
        "hansa job usage 12",
        "hansa job usage 12.17 -o csv > use.csv",
        "hansa job usage last.0 --attempt 1",
    )
)
@job_argument(name="JOB[.TASK]")
@click.option("--attempt", type=click.IntRange(1), help="Of a task that ran more than once.  [default: the last one]")
@output_option("csv")
def show(job: str, *, attempt: int | None, form: str) -> None:
    """Show what a task uses over its time: cores, memory, disks, GPUs; of an array, how its tasks differ.

    A task is seen while it runs, some seconds late, and after. Of tasks that ran for less than two seconds only sums
    are kept: hansa job results.
    """
    session = open_session()
    ref = refs.one(session, job)
    found = session.run(job_api.job(ref.number))
    if found.array and ref.task is None and attempt is None:
        _print_job(session.run(job_api.job_usage(ref.number)), form)
    else:
        index = found.first if ref.task is None else ref.task
        _print_task(session.run(job_api.task_usage(ref.number, index, attempt)), form)


def _print_task(usage: TaskUsage, form: str) -> None:
    if form == "csv":
        output.write_csv(task_rows(usage))
    elif form == "table":
        for line in task_lines(usage):
            click.echo(line)
    else:
        emit_one(usage, form, lambda _: {}, lambda one: f"{one.job}.{one.index}")


def _print_job(usage: JobUsage, form: str) -> None:
    if form == "csv":
        output.write_csv([_bin_row(spread, one) for spread in usage.spreads for one in spread.bins])
    elif form == "table":
        for line in job_lines(usage):
            click.echo(line)
    else:
        emit_one(usage, form, lambda _: {}, lambda one: one.job)


def _bin_row(spread: UsageSpread, one: Any) -> dict[str, Any]:
    return {"what": spread.name, "from": one.low, "to": one.high, "tasks": one.tasks}


def task_rows(usage: TaskUsage) -> list[dict[str, Any]]:
    """A row for each stretch: when it ends, in seconds from the task's start, and what was used in it. Pure."""
    names = [name for name, *_ in _CURVES if getattr(usage, name)]
    return [
        {
            "until_s": min(usage.span_s, (place + 1) * usage.every_s),
            **{name: getattr(usage, name)[place] for name in names},
        }
        for place in range(len(usage.cores))
    ]


def task_lines(usage: TaskUsage) -> list[str]:
    """A line for each thing: a picture of it over time, and its numbers. Pure."""
    what = f"task {usage.job}.{usage.index}"
    if usage.attempt:
        what += f", attempt {usage.attempt}" if len(usage.attempts) > 1 else ""
    if usage.message:
        return [f"{what} {usage.phase.value}: {usage.message}"]
    lines = [f"{what} {usage.phase.value}: {show_time(usage.span_s)} in stretches of {show_time(usage.every_s)}"]
    return lines + _curve_lines(usage, len(usage.cores))


def _curve_lines(usage: TaskUsage | MachineUsage, count: int) -> list[str]:
    lines = []
    for name, title, unit, asked_name in _CURVES:
        values: list[float] = (getattr(usage, name, None) or [])[-count:]
        asked = getattr(usage, asked_name, 0) if asked_name else 0
        if values:
            said = f"at most {_number(max(values))}{unit}" + (f", asked for {_number(asked)}{unit}" if asked else "")
            lines.append(f"  {title.ljust(10)}  {sparkline(values)}  {said}")
    return lines


def job_lines(usage: JobUsage) -> list[str]:
    """A line for each thing in which tasks differ. Pure."""
    if not usage.spreads:
        return [f"job {usage.job}: none of its tasks has ended after running"]
    lines = [f"job {usage.job}: {usage.sampled:,} of {usage.ended:,} tasks that ended"]
    for spread in usage.spreads:
        title, unit = _SPREADS[spread.name]
        picture = sparkline([float(one.tasks) for one in spread.bins])
        numbers = (
            f"{_number(spread.least)} to {_number(spread.most)}{unit}, half below {_number(spread.half)}, "
            f"nine of ten below {_number(spread.nine_of_ten)}; asked for {_number(spread.asked)}"
        )
        lines.append(f"  {title.ljust(14)}  {picture}  {numbers}")
    if usage.with_series:
        lines.append(f"over its time, one task: hansa job usage {usage.job}.{usage.with_series[0]}")
    return lines


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Values as bars of eight heights, the highest full; of more than ``width`` the highest of each few. Pure.

    >>> sparkline([0, 1, 2, 4])
    '▁▃▅█'
    """
    if len(values) > width:
        edges = [number * len(values) // width for number in range(width + 1)]
        values = [max(values[start:end]) for start, end in itertools.pairwise(edges)]
    top = max(values, default=0.0)
    return "".join(BARS[int(value / top * (len(BARS) - 1) + 0.5) if top else 0] for value in values)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


@click.command(epilog=examples("hansa machine usage web", "hansa machine usage web -o csv > use.csv"))
@name_argument
@output_option("csv")
def machine(machine: str, *, form: str) -> None:
    """Show what MACHINE uses over its time: processors, memory, disks; where its provider tells that."""
    usage = open_session().run(machines.usage(machine))
    if form == "csv":
        output.write_csv(machine_rows(usage))
    elif form == "table":
        for line in machine_lines(usage):
            click.echo(line)
    else:
        emit_one(usage, form, lambda _: {}, lambda one: one.machine)


def machine_rows(usage: MachineUsage) -> list[dict[str, Any]]:
    """A row for each stretch. Pure."""
    names = [name for name, *_ in _CURVES if getattr(usage, name, None)]
    return [
        {"until_s": end, **{name: getattr(usage, name)[place] for name in names}}
        for place, end in enumerate(usage.ends_s)
    ]


def machine_lines(usage: MachineUsage) -> list[str]:
    """A line for each thing, of its newest stretches. Pure."""
    if usage.message:
        return [f"machine {usage.machine}: {usage.message}"]
    count = min(len(usage.ends_s), WIDTH)
    before = usage.ends_s[-count - 1] if len(usage.ends_s) > count else 0.0
    return [
        f"machine {usage.machine}: the last {show_time(round(usage.ends_s[-1] - before))}",
        *_curve_lines(usage, count),
    ]
