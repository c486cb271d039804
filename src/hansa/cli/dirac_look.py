"""``dstat, dkill, dlogging, dpeek``: where jobs are, in COMDIRAC's words and columns."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence

import click

from hansa.cli import refs
from hansa.cli.dirac import SETTINGS, all_jobs, each, equal, named_refs, session_default, some_refs
from hansa.cli.session import open_session
from hansa.client import job_api
from hansa.client.errors import USAGE, HansaError
from hansa.compat.dirac.words import STATUS, wanted_states
from hansa.jobs.wire import Job, Phase

SHOWN = ("Owner", "JobName", "OwnerGroup", "JobGroup", "Site", "Status", "MinorStatus", "SubmissionTime")
FIELDS = ("JobID", *SHOWN, "JobType", "ApplicationStatus", "StartExecTime", "EndExecTime", "CPUTime")
HISTORY = ("JobID", "Status", "MinorStatus", "ApplicationStatus", "Time", "Source")


@click.command("dstat", context_settings=SETTINGS)
@click.option("-u", "--User", "user", help="Only jobs of this owner; only your own can be seen. [default: you]")
@click.option("-S", "--Status", "status", help="Only these states, with commas; all for every one.")
@click.option("-a", "--StatusAll", "--All", "every", is_flag=True, help="Jobs that have ended, too.")
@click.option("-g", "--JobGroup", "group", help="Only this group.")
@click.option("-n", "--JobName", "name", help="Only this name.")
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "csv", "json"]), default="pretty")
@click.option(
    "-D", "--JobDate", "days", type=click.IntRange(1), default=10, help="Submitted in the last days. [default: 10]"
)
@click.option(
    "-F",
    "--Fields",
    "fields",
    help=f"Columns after JobID, of {', '.join(FIELDS)}. "
    "[default: dstat_fields of ~/.dirac/dcommands.conf, else from Owner to SubmissionTime]",
)
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def dstat(ids: tuple[str, ...], *, user: str | None, status: str | None, every: bool, group: str | None,
          name: str | None, form: str, days: int, fields: str | None, file: str | None) -> int:  # fmt: skip
    """List jobs: those that have not ended, unless asked for more. Jobs that are named are shown in any state."""
    wanted, never = wanted_states(status) if status is not None else (set[str](), list[str]())
    if never:
        sys.stderr.write(f"dstat: no job is ever {' or '.join(never)} here; see Status and MinorStatus of dstat -a\n")
    session = open_session()
    code = 0
    chosen = named_refs(ids, file)
    if chosen:
        jobs: list[Job] = []
        numbers = dict.fromkeys(refs.Ref(ref.number) for ref in chosen)
        code = each("dstat", numbers, lambda ref: jobs.append(session.run(job_api.job(ref.number))))
    else:
        query = [f"created<{days}d", *equal("group", group), *equal("name", name)]
        jobs = all_jobs(session, " ".join(query))
        if not every and not wanted:
            jobs = [job for job in jobs if not Phase(job.status.phase).is_final]
    if user not in (None, "*", "__all__") and any(job.owner != user for job in jobs):
        sys.stderr.write(f"dstat: you are {jobs[0].owner}; of {user} no jobs can be seen\n")
    jobs.sort(key=lambda job: job.number)
    rows = [row_of(job) for job in jobs if user in (None, "*", "__all__", job.owner)]
    rows = [row for row in rows if not wanted or row["Status"].lower() in wanted]
    named = fields if fields is not None else session_default("dstat_fields")
    shown = [one.strip() for one in named.split(",") if one.strip()] or list(SHOWN)
    show_rows(rows, ["JobID", *(one for one in shown if one != "JobID")], form)
    return code


def row_of(job: Job) -> dict[str, str]:
    """A job in DIRAC's words."""
    needs = job.requirements
    moment = "%Y-%m-%d %H:%M:%S"
    return {
        "JobID": str(job.number),
        "Status": STATUS.get(job.status.phase, job.status.phase),
        "MinorStatus": job.status.message,
        "ApplicationStatus": "Unknown" if job.exit_code is None else f"exit code {job.exit_code}",
        "Owner": job.owner,
        "OwnerGroup": "/".join(one for one in (job.vo, job.vo_group) if one),
        "JobName": job.name or job.command[0].rpartition("/")[2],
        "JobGroup": job.group or "",
        "JobType": "User",
        "Site": ",".join(job.sites) or needs.site or ",".join(needs.sites) or "ANY",
        "SubmissionTime": f"{job.created:{moment}}",
        "StartExecTime": f"{job.started:{moment}}" if job.started else "",
        "EndExecTime": f"{job.ended:{moment}}" if job.ended else "",
        "CPUTime": str(needs.wall_time_s or 0),
    }


def show_rows(rows: list[dict[str, str]], fields: list[str], form: str, known: Sequence[str] = FIELDS) -> None:
    """As a table, CSV or JSON."""
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise HansaError(USAGE, f"There is no field {unknown[0]}.", hint=f"There are {', '.join(known)}.")
    if form == "json":
        click.echo(json.dumps([{name: row[name] for name in fields} for row in rows], indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([row[name] for name in fields] for row in rows)
    else:
        lines = [fields, *([row[name] for name in fields] for row in rows)]
        widths = [max(len(line[at]) for line in lines) for at in range(len(fields))]
        lines.insert(1, ["=" * width for width in widths])
        for line in lines:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command("dkill", context_settings=SETTINGS)
@click.option("-D", "--delete", is_flag=True, help="Refused: jobs stay for their history; files go by retention.")
@click.option("-a", "--all", "every", is_flag=True, help="All jobs that have not ended.")
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is stopped.")
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def dkill(ids: tuple[str, ...], *, delete: bool, every: bool, file: str | None, verbose: bool) -> int:
    """Stop jobs, or single tasks of them. What has ended already is left as it is."""
    if delete:
        raise HansaError(
            USAGE,
            "Jobs are not deleted here: they stay for their history. Nothing was stopped.",
            hint="Leave -D out to stop them. dstat shows only what has not ended; files and logs are deleted some "
            "time after the end (the operator's settings [retention]).",
        )
    session = open_session()
    if every:
        chosen: dict[int, list[int] | None] = {job.number: None for job in all_jobs(session, "", is_open=True)}
    else:
        chosen = refs.by_job(some_refs(ids, file))
    code = 0
    for number, tasks in chosen.items():
        try:
            session.run(job_api.kill(number, tasks))
        except HansaError as error:
            sys.stderr.write(f"dkill: {number}: {error.detail}\n")
            code = int(error.code.exit_code)
            continue
        if verbose:
            sys.stderr.write(f"killed job {number}\n")
    return code


@click.command("dlogging", context_settings=SETTINGS)
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "csv", "json"]), default="pretty")
@click.argument("ids", nargs=-1, metavar="JOB...")
def dlogging(ids: tuple[str, ...], *, form: str) -> int:
    """The history of jobs: when which state came, and why; at the end why it is where it is."""
    session = open_session()
    rows: list[dict[str, str]] = []
    why: list[str] = []

    def look(ref: refs.Ref) -> None:
        rows.extend(
            {
                "JobID": str(ref.number),
                "Status": STATUS.get(one.phase, one.phase),
                "MinorStatus": one.message,
                "ApplicationStatus": one.reason,
                "Time": f"{one.time:%Y-%m-%d %H:%M:%S}",
                "Source": one.actor,
            }
            for one in session.run(job_api.history(ref.number))
        )
        found = session.run(job_api.explain(ref.number, ref.task))
        status = STATUS.get(found.status.phase, found.status.phase)
        why.append(f"{found.subject.partition('/')[2] or found.subject}  {status}  {found.status.message}")
        why.extend(f"    {line}" for line in found.lines)

    code = each("dlogging", some_refs(ids), look)
    show_rows(rows, list(HISTORY), form, known=HISTORY)
    for line in why if form == "pretty" else []:
        click.echo(line)
    return code


@click.command("dpeek", context_settings=SETTINGS)
@click.argument("ids", nargs=-1, metavar="JOB...")
def dpeek(ids: tuple[str, ...]) -> int:
    """The output of jobs so far, also while they run."""
    session = open_session()

    def peek(ref: refs.Ref) -> None:
        job = session.run(job_api.job(ref.number))
        if job.array and ref.task is None:
            raise HansaError(
                USAGE,
                f"Job {ref.number} has {job.count:,} tasks: whose output?",
                hint=f"dpeek {ref.number}.{job.first}",
            )
        seen: list[int] = []

        def show(piece: bytes) -> None:
            seen.append(len(piece))
            click.echo(piece, nl=False)

        session.run(job_api.log(ref.number, ref.task, "stdout", show))
        if not seen:
            status = STATUS.get(job.status.phase, job.status.phase)
            sys.stderr.write(f"dpeek: job {ref.number} has written nothing so far ({status}: {job.status.message})\n")

    return each("dpeek", some_refs(ids), peek)
