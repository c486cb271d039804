"""``hansa explain THING``: why a job, a task or a machine is where it is."""

from __future__ import annotations

import re

import click

from hansa.cli import jobs, machines
from hansa.cli.jobs import examples
from hansa.cli.output import output_option

_JOB = re.compile(r"(job/)?(\d+(\.\d+)?|last)")


@click.command(epilog=examples("hansa explain 12", "hansa explain 12.17", "hansa explain web"))
@click.argument("thing")
@output_option()
@click.pass_context
def explain(ctx: click.Context, thing: str, *, form: str) -> None:
    """Say why THING, a job (12), a task (12.17) or a machine (its name), is where it is, and who must act."""
    job = _JOB.fullmatch(thing)
    if job is not None:
        ctx.invoke(jobs.explain, job=job[2], form=form)
    else:
        ctx.invoke(machines.explain, machine=thing.removeprefix("machine/"), form=form)
