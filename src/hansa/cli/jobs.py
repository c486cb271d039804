"""``hansa job …``: look at jobs, get what is theirs, stop them, run them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from hansa.cli import completion, output, refs, run
from hansa.cli.output import ago, emit, emit_one, output_option
from hansa.cli.progress import describe, ended, tally
from hansa.cli.session import note, open_session
from hansa.client import fetch, job_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.results import Spool, walk, write_csv
from hansa.client.transport import Transport
from hansa.client.units import parse_time, show_bytes, show_count, show_time
from hansa.jobs.wire import Explanation, Job, Phase, PilotView, Task
from hansa.kernel.errors import NOT_FOUND, Exit

PHASES = click.Choice([phase.value for phase in Phase])
LIST_LIMIT = 20
WHY_WIDTH = 100
"""Characters of a reason in a list; hansa job explain says all of it."""
BATCH_JOBS_SHOWN = 5


def examples(*lines: str) -> str:
    """An epilog of examples."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def job_argument(*, many: bool = False, name: str = "JOB") -> Callable[[Any], Any]:
    metavar = f"{name}..." if many else name
    return click.argument(
        "jobs" if many else "job",
        nargs=-1 if many else 1,
        required=True,
        metavar=metavar,
        shell_complete=completion.jobs,
    )


def job_cells(job: Job) -> dict[str, Any]:
    return {
        "job": job.number,
        "name": job.name or " ".join(job.command)[:30],
        "phase": job.status.phase,
        "tasks": f"{ended(job.counts):,}/{job.count:,}",
        "failed": job.counts.failed,
        "submitted": ago(job.created),
        "why": shorten(job.status.message, WHY_WIDTH, placeholder=" …"),
    }


def _job_details(job: Job) -> dict[str, Any]:
    took = (job.ended - job.started).total_seconds() if job.started and job.ended else None
    return {
        "job": job.number,
        "name": job.name,
        "phase": job.status.phase,
        "why": job.status.message,
        "waits for": None if job.status.waiting_on == "nobody" else job.status.waiting_on,
        "tasks": tally(job.counts) if job.array else None,
        "exit code": job.exit_code,
        "command": " ".join(job.command),
        "needs": describe(job).partition(": ")[2],
        "parameters": ", ".join(job.names),
        "container image": job.image,
        "setup": job.setup,
        "inputs": f"{show_count(job.input_files, 'file')}, {show_bytes(job.input_bytes)}" if job.input_files else None,
        "outputs": ", ".join(job.outputs),
        "owner": job.owner,
        "vo": job.vo,
        "group": job.group,
        "labels": " ".join(f"{name}={value}" if value else name for name, value in job.labels.items()) or None,
        "comment": job.comment,
        "after": ", ".join(f"{one.job} ({one.how})" for one in job.after) or None,
        "deadline": job.deadline,
        "sites": ", ".join(job.sites) or None,
        "submitted": job.created,
        "started": job.started,
        "ended": job.ended,
        "took": show_time(took) if took is not None else None,
        "files kept until": job.files_gone,
        "output kept until": job.logs_gone,
    }


def task_cells(task: Task) -> dict[str, Any]:
    return {
        "task": f"{task.job}.{task.index}",
        **task.values,
        "phase": task.phase.value,
        "exit": task.exit_code,
        "cpu_s": task.cpu_s,
        "memory_mib": task.memory_mib,
        "wall_s": task.wall_s,
        "site": task.site,
        "node": task.node,
        "message": task.message,
    }


def print_job(job: Job, form: str) -> None:
    emit_one(job, form, _job_details, lambda item: item.number)


@click.command(
    epilog=examples(
        "hansa job list",
        "hansa job list state:failed site:garching 'created<2d'",
        "hansa job list -o json label:campaign=k2 name~sim -- -group:test",
    )
)
@click.argument("query", nargs=-1, metavar="[QUERY]...")
@click.option("--phase", type=PHASES, help="Only jobs in this phase.")
@click.option("--name", metavar="NAME", help="Only jobs with this name.")
@click.option("--limit", type=click.IntRange(1), default=LIST_LIMIT, show_default=True, help="How many.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@output_option()
def list_jobs(
    query: tuple[str, ...], *, phase: str | None, name: str | None, limit: int, every: bool, form: str
) -> None:
    """List jobs, the newest first: all, or those that a QUERY is about.

    Words of a query: FIELD:VALUE, FIELD~TEXT, FIELD<VALUE, and (behind --) -WORD for not. Fields: state, name,
    command, group, label, site, vo, comment, reason, created, started, ended, tasks, failed, exit, priority, job.
    """
    session = open_session()
    items: list[Job] = []
    after = None
    while every or len(items) < limit:
        page = session.run(job_api.jobs(phase, name, 500 if every else limit - len(items), after, " ".join(query)))
        items += page.items
        after = page.next
        if after is None:
            break
    emit(items, form, job_cells, lambda job: job.number)
    if not items:
        note("there is no such job" if phase or name or query else "there is no job yet; try: hansa run -- echo hello")
    elif after is not None:
        note(f"these are the newest {len(items)}; there are more (--all)")


@click.command(epilog=examples("hansa job show 12", "hansa job show 12.17", "hansa job show last --failed"))
@job_argument(name="JOB[.TASK]")
@click.option("--tasks", is_flag=True, help="List the job's tasks.")
@click.option("--failed", is_flag=True, help="List the tasks that failed.")
@click.option("--phase", type=PHASES, help="List the tasks in this phase.")
@click.option("--script", is_flag=True, help="Print the scripts that batch systems were given for it.")
@output_option()
def show(job: str, *, tasks: bool, failed: bool, phase: str | None, script: bool, form: str) -> None:
    """Show a job, one of its tasks, or a list of them; with the numbers of its batch jobs and their script."""
    session = open_session()
    ref = refs.one(session, job)
    if ref.task is not None:
        task = find_task(session, ref.number, ref.task)
        emit_one(task, form, task_cells, lambda item: f"{item.job}.{item.index}")
    elif tasks or failed or phase:
        found = session.run(job_api.job(ref.number))
        items: list[Task] = []
        session.run(walk(found, items.append, "failed" if failed else phase))
        emit(items, form, task_cells, lambda item: f"{item.job}.{item.index}")
    elif script:
        pilots = session.run(job_api.pilots_of(ref.number)).items
        emit([one for one in pilots if one.script], form, _script_cells, lambda one: one.batch_id)
    else:
        found = session.run(job_api.job(ref.number))
        print_job(found, form)
        if form == "table":
            _print_batch_jobs(session.run(job_api.pilots_of(ref.number, BATCH_JOBS_SHOWN + 1)).items)


def _script_cells(pilot: PilotView) -> dict[str, Any]:
    return {"site": pilot.site, "batch job": pilot.batch_id, "phase": pilot.status.phase, "script": pilot.script}


def _print_batch_jobs(pilots: Sequence[PilotView]) -> None:
    """What of a job is at batch systems: their numbers for each pilot, and of a single one its script."""
    sent = [one for one in pilots if one.batch_id or one.script]
    for one in sent[:BATCH_JOBS_SHOWN]:
        where = f" on {one.node}" if one.node else ""
        click.echo(f"batch job {one.batch_id} at {one.site}{where}: {output.show(one.status.message)}")
    if len(sent) > BATCH_JOBS_SHOWN:
        click.echo("… and more: hansa job show JOB --script -o json")
    if len(sent) == 1 and sent[0].script:
        click.echo("\n".join(f"  {output.show(line)}" for line in sent[0].script.splitlines()))


def find_task(session: Transport, number: int, index: int) -> Task:
    """One task of a job. Raises HansaError where there is none."""
    after = None
    while True:
        page = session.run(job_api.tasks(number, after, task=index))
        for task in page.items:
            if task.index == index:
                return task
        after = page.next
        if after is None:
            raise HansaError(
                NOT_FOUND, f"Job {number} has no task {index}.", hint=f"See: hansa job show {number} --tasks"
            )


@click.command(epilog=examples("hansa job wait 12", "hansa job wait 12 13 --timeout 2h"))
@job_argument(many=True)
@click.option("--timeout", metavar="TIME", help="Give up after this time, as in 30m; the job goes on.")
@click.option("-q", "--quiet", is_flag=True, help="No words but errors.")
def wait(jobs: tuple[str, ...], *, timeout: str | None, quiet: bool) -> int:
    """Wait for jobs to end. The exit code is 0 if all are done, else 1."""
    session = open_session()
    timeout_s = parse_time(timeout) if timeout else None
    code = 0
    for ref in refs.resolve(session, jobs):
        job = session.run(job_api.job(ref.number))
        try:
            job = run.follow(session, job, quiet=quiet, logs=False, timeout_s=timeout_s)
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            note(f"job {job.number} {run.goes_on(job)}")
            return run.INTERRUPTED
        if not quiet:
            note(f"job {job.number} {job.status.phase}: {job.status.message}")
        if job.status.phase != Phase.DONE:
            code = Exit.FAILED
    return code


@click.command("fetch", epilog=examples("hansa job fetch 12", "hansa job fetch 12.17 --to best"))
@job_argument(many=True, name="JOB[.TASK]")
@click.option("--to", "folder", metavar="DIR", type=click.Path(path_type=Path), help="[default: hansa-JOB]")
def fetch_files(jobs: tuple[str, ...], *, folder: Path | None) -> None:
    """Bring the output files here, and print the folder. Files that are there already are kept."""
    session = open_session()
    found = refs.resolve(session, jobs)
    if folder is not None and len({ref.number for ref in found}) > 1:
        raise HansaError(USAGE, "--to takes one job at a time.", hint="Leave it out: each job gets its own folder.")
    for ref in found:
        job = session.run(job_api.job(ref.number))
        target = folder or Path(f"hansa-{ref.number}")
        if ref.task is None:
            text = run.bring(session, job, target)
        else:
            got = session.run(fetch.fetch(job, target, session.endpoint.url, ref.task))
            text = f"{got.files + got.kept} files in {target}/" if got.folder else ""
        note(text or f"job {ref.number} has no output files")
        if text:
            click.echo(target)


@click.command(epilog=examples("hansa job results 12", "hansa job results 12 -o csv > sweep.csv"))
@job_argument()
@click.option("--phase", type=PHASES, help="Only tasks in this phase.")
@output_option("csv")
def results(job: str, *, phase: str | None, form: str) -> None:
    """Print a row per task: parameters, state, exit code, resources used, fields of its result.json."""
    session = open_session()
    found = session.run(job_api.job(refs.one(session, job).number))
    spool = Spool(found.names)
    try:
        session.run(walk(found, spool.add, phase))
        _print_results(spool, form)
    finally:
        spool.close()


def _print_results(spool: Spool, form: str) -> None:
    columns = spool.table.columns
    if form == "csv":
        write_csv(columns, spool.rows(), sys.stdout)
    elif form == "id":
        for row in spool.rows():
            click.echo(f"{row['job']}.{row['task']}")
    elif form == "table":
        output.write_table(list(spool.rows()), columns)
    elif form == "yaml":
        import yaml

        for row in spool.rows():
            click.echo(yaml.safe_dump([row], sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo("[", nl=False)
        for number, row in enumerate(spool.rows()):
            click.echo(("," if number else "") + "\n" + json.dumps(row, ensure_ascii=False), nl=False)
        click.echo("\n]")


@click.command(epilog=examples("hansa job explain 12", "hansa job explain 12.17"))
@job_argument(name="JOB[.TASK]")
@output_option()
def explain(job: str, *, form: str) -> None:
    """Say why a job or task is where it is, and who must act."""
    session = open_session()
    ref = refs.one(session, job)
    found = session.run(job_api.explain(ref.number, ref.task))
    if form == "table":
        print_explanation(found)
    else:
        emit_one(found, form, lambda _: {}, lambda item: item.subject)


def print_explanation(found: Explanation) -> None:
    status = found.status
    click.echo(f"{output.show(found.subject)} {status.phase}: {output.show(status.message)}")
    if status.waiting_on != "nobody":
        click.echo(f"  it waits for: {status.waiting_on} (since {ago(status.since)}, {status.reason})")
    for line in found.lines:
        click.echo(f"  {output.show(line)}")


@click.command(epilog=examples("hansa job kill 12", "hansa job kill 12.17 12.18"))
@job_argument(many=True, name="JOB[.TASK]")
@output_option(default="id")
def kill(jobs: tuple[str, ...], *, form: str) -> None:
    """Stop jobs, or single tasks of them."""
    _act(jobs, form, job_api.kill)


@click.command(epilog=examples("hansa job retry 12", "hansa job retry 12.17"))
@job_argument(many=True, name="JOB[.TASK]")
@output_option(default="id")
def retry(jobs: tuple[str, ...], *, form: str) -> None:
    """Run failed and killed tasks again: all of a job, or those named."""
    _act(jobs, form, job_api.retry)


@click.command(epilog=examples("hansa job hold 12"))
@job_argument(many=True)
@output_option(default="id")
def hold(jobs: tuple[str, ...], *, form: str) -> None:
    """Give out no more tasks of jobs until they are released. What runs goes on."""
    _act(jobs, form, lambda number, _: job_api.hold(number))


@click.command(epilog=examples("hansa job release 12"))
@job_argument(many=True)
@output_option(default="id")
def release(jobs: tuple[str, ...], *, form: str) -> None:
    """Let held jobs go on."""
    _act(jobs, form, lambda number, _: job_api.release(number))


def _act(jobs: Sequence[str], form: str, act: Callable[[int, list[int] | None], Any]) -> None:
    session = open_session()
    done: list[Job] = []
    for number, tasks in refs.by_job(refs.resolve(session, jobs)).items():
        job = session.run(act(number, tasks))
        done.append(job)
        note(f"job {number} is {job.status.phase}: {job.status.message}")
    emit(done, form, job_cells, lambda job: job.number)
