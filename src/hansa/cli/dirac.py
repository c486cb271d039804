"""``dsub, dstat, dkill, dlogging, dpeek``: COMDIRAC's words for people who know them.

What a description means is decided in :mod:`hansa.compat.dirac`; here are options in, text out.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hansa.cli import failures, refs
from hansa.cli.session import open_session
from hansa.client import job_api, operations
from hansa.client.arrays import Array
from hansa.client.draft import Options, prepare
from hansa.client.errors import USAGE, HansaError
from hansa.client.transport import Transport
from hansa.compat.dirac import jdl, translate
from hansa.jobs.wire import Job, Phase
from hansa.kernel.errors import Exit

FIELDS = ("JobID", "Status", "MinorStatus", "Owner", "JobName", "JobGroup", "SubmissionTime", "EndExecTime")
SHOWN = ("JobID", "JobName", "Status", "MinorStatus", "SubmissionTime")
LIMIT = 10_000
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
_IN_SCRIPT = re.compile(r"^#JDL\s+(\w[\w.]*)\s*=\s*(.*?)\s*;?\s*$")


def start(command: click.Command) -> int:
    """Run one of the commands as a program; its exit code."""
    try:
        result = command.main(sys.argv[1:], prog_name=command.name, standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except jdl.JdlError as error:
        sys.stderr.write(f"{command.name}: {error}\n")
        return Exit.USAGE
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        return failures.report(error, sys.stderr, os.environ)


_SUB = (
    ("-J", "--JDL", "jdl_text", "JDL file, or JDL text."),
    ("-N", "--JobName", "jobname", "Name of the job."),
    ("-O", "--StdOutput", "stdoutput", "File name of its output. [default: std.out]"),
    ("-E", "--StdError", "stderror", "File name of its errors. [default: std.err]"),
    ("--InputSandbox", "inputsandbox", "Files to send, with commas."),
    ("--OutputSandbox", "outputsandbox", "Files to bring back, with commas."),
    ("--InputData", "inputdata", "Refused: there is no data catalogue yet."),
    ("--OutputData", "outputdata", "Files to bring back as well, with commas; doutput --Data brings only them."),
    ("--OutputPath", "outputpath", "Changes nothing, and says so: there is no storage element."),
    ("--OutputSE", "outputse", "Changes nothing, and says so: there is no storage element."),
    ("--CPUTime", "cputime", "Seconds; the wall time of a task."),
    ("--Site", "site", "Sites to run at, with commas."),
    ("--BannedSite", "bannedsites", "Sites not to run at, with commas."),
    ("--Platform", "platform", "Platform."),
    ("--Priority", "priority", "0 to 10."),
    ("--JobGroup", "jobgroup", "A group of jobs."),
    ("--Parametric", "parametric", "a,b,c or start:stop[:step[:factor]]: a task each."),
)


def _sub_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for *names, text in reversed(_SUB):
        function = click.option(*names, help=text)(function)
    return function


@click.command("dsub", context_settings={**SETTINGS, "allow_interspersed_args": False})
@_sub_options
@click.option("--ForceExecUpload", "uploads", is_flag=True, help="Send an executable with an absolute path too.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is submitted.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[EXECUTABLE [ARGUMENTS]...]")
def dsub(command: tuple[str, ...], jdl_text: str | None, parametric: str | None, *, uploads: bool, verbose: bool,
         **options: str | None) -> None:  # fmt: skip
    """Submit a job; prints its id. Without an executable the script comes on stdin."""
    attributes = _read_jdl(jdl_text)
    with tempfile.TemporaryDirectory(prefix="dsub-") as folder:
        if command:
            attributes |= _in_script(Path(command[0])) if Path(command[0]).is_file() else {}
            attributes["executable"], words = command[0], list(command[1:])
            if words or "arguments" not in attributes:
                attributes["arguments"] = words_of(words)
        elif "executable" not in attributes:
            script = Path(folder) / "dsub.sh"
            script.write_text(_read_script(), encoding="utf-8")
            script.chmod(0o700)
            attributes |= _in_script(script)
            attributes["executable"], uploads = str(script), True
        attributes |= {name: value for name, value in options.items() if value is not None}
        if parametric is not None:
            attributes |= translate.parametric(parametric)
        found = translate.translate(attributes, lambda path: Path(path).is_file(), uploads=uploads)
        for note in found.notes:
            sys.stderr.write(f"dsub: {note}\n")
        job = _submit(found)
    ids = [str(job.number)]
    if job.array:
        ids = [f"{job.number}.{index}" for index in range(job.first, job.first + job.count)]
    if verbose:
        sys.stderr.write(f"dsub: {' '.join(found.command)}\n")
    click.echo(",".join(ids))


def _read_script() -> str:
    """The script on stdin. Raises JdlError where nothing comes."""
    if sys.stdin.isatty():
        sys.stderr.write("dsub: no executable: type the script, and ^D at its end\n")
    text = sys.stdin.read()
    if not text.strip():
        raise jdl.JdlError("there is no Executable, and no script came on stdin")
    return text


def words_of(words: Iterable[str]) -> str:
    """Words as one text that is split into the same words again."""
    import shlex

    return shlex.join(words)


def _read_jdl(text: str | None) -> dict[str, jdl.Value]:
    if text is None:
        return {}
    if "=" not in text or Path(text).is_file():
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise HansaError(USAGE, f"The JDL file {text} cannot be read: {error.strerror}.") from error
    return jdl.parse(text)


def _in_script(path: Path) -> dict[str, jdl.Value]:
    """``#JDL name = value`` lines of a script."""
    lines = path.read_bytes()[:1_000_000].decode(errors="replace").splitlines()
    found = [match for line in lines if (match := _IN_SCRIPT.match(line))]
    return {match[1].lower(): jdl.parse(f"v = {match[2]};")["v"] for match in found}


def _submit(found: translate.Submission) -> Job:
    options = Options(inputs=found.inputs, outputs=found.outputs, scan=False, **found.options)  # type: ignore[arg-type]
    if found.rows is not None:
        names = list(found.rows[0])
        rows = [[row[name] for name in names] for row in found.rows]
        options = replace(options, array=Array(len(rows), 0, names, rows))
    draft = prepare(found.command, options)
    return open_session().run(operations.submit(draft))


@click.command("dstat", context_settings=SETTINGS)
@click.option("-u", "--User", "user", help="Only jobs of this owner.")
@click.option("-S", "--Status", "status", help="Only these states, with commas.")
@click.option("-a", "--All", "every", is_flag=True, help="Jobs that have ended, too.")
@click.option("-g", "--JobGroup", "group", help="Only this group.")
@click.option("-n", "--JobName", "name", help="Only this name.")
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "csv", "json"]), default="pretty")
@click.option(
    "-D", "--JobDate", "days", type=click.IntRange(1), default=10, help="Submitted in the last days. [default: 10]"
)
@click.option("-F", "--Fields", "fields", help=f"Of {', '.join(FIELDS)}.")
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def dstat(ids: tuple[str, ...], *, user: str | None, status: str | None, every: bool, group: str | None,
          name: str | None, form: str, days: int, fields: str | None, file: str | None) -> None:  # fmt: skip
    """List jobs: those that have not ended, unless asked for more."""
    session = open_session()
    wanted = {one.strip().lower() for one in status.split(",")} if status else set()
    chosen = named_refs(ids, file)
    if chosen:
        jobs = [session.run(job_api.job(number)) for number in dict.fromkeys(ref.number for ref in chosen)]
    else:
        query = [f"created<{days}d", *([f'group:"{group}"'] if group else []), *([f'name:"{name}"'] if name else [])]
        jobs = all_jobs(session, " ".join(query))
        if not every and not wanted:
            jobs = [job for job in jobs if not Phase(job.status.phase).is_final]
    rows = [row_of(job) for job in jobs if user in (None, job.owner)]
    rows = [row for row in rows if not wanted or row["Status"].lower() in wanted]
    show_rows(rows, [one.strip() for one in fields.split(",")] if fields else list(SHOWN), form)


def all_jobs(session: Transport, query: str, *, is_open: bool = False) -> list[Job]:
    """The newest jobs that the query is about; says so where there are more than are looked at."""
    jobs: list[Job] = []
    after = None
    while len(jobs) < LIMIT:
        page = session.run(job_api.jobs(limit=500, after=after, query=query))
        jobs += page.items
        after = page.next
        if after is None:
            break
    else:
        sys.stderr.write(f"only the newest {len(jobs):,} jobs were looked at\n")
    return [job for job in jobs if not (is_open and Phase(job.status.phase).is_final)]


def row_of(job: Job) -> dict[str, str]:
    """A job in DIRAC's words."""
    return {
        "JobID": str(job.number),
        "Status": translate.STATUS.get(job.status.phase, job.status.phase),
        "MinorStatus": job.status.message,
        "Owner": job.owner,
        "JobName": job.name or job.command[0].rpartition("/")[2],
        "JobGroup": job.group or "",
        "SubmissionTime": f"{job.created:%Y-%m-%d %H:%M:%S}",
        "EndExecTime": f"{job.ended:%Y-%m-%d %H:%M:%S}" if job.ended else "",
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


def named_refs(ids: Iterable[str], file: str | None = None) -> list[refs.Ref]:
    words = [word for text in ids for word in text.split(",") if word]
    if file is not None:
        words += Path(file).read_text(encoding="utf-8").replace(",", " ").split()
    return [ref for word in words for ref in refs.parse(word)]


def some_refs(ids: Iterable[str], file: str | None = None) -> list[refs.Ref]:
    found = named_refs(ids, file)
    if not found:
        raise HansaError(USAGE, "Say which jobs.", hint="As in 12 or 12,13 or 12.3; dstat -a lists them.")
    return found


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
            sys.stderr.write(f"dkill: {number}\n")
    return code


@click.command("dlogging", context_settings=SETTINGS)
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "csv", "json"]), default="pretty")
@click.argument("ids", nargs=-1, metavar="JOB...")
def dlogging(ids: tuple[str, ...], *, form: str) -> None:
    """The history of jobs: when which state came, and why; at the end why it is where it is."""
    session = open_session()
    rows: list[dict[str, str]] = []
    for ref in some_refs(ids):
        rows += [
            {
                "JobID": str(ref.number),
                "Status": translate.STATUS.get(one.phase, one.phase),
                "MinorStatus": one.message,
                "StatusTime": f"{one.time:%Y-%m-%d %H:%M:%S}",
                "Source": one.actor,
            }
            for one in session.run(job_api.history(ref.number))
        ]
    fields = ["JobID", "StatusTime", "Status", "Source", "MinorStatus"]
    show_rows(rows, fields, form, known=fields)
    if form == "pretty":
        for ref in some_refs(ids):
            found = session.run(job_api.explain(ref.number, ref.task))
            status = translate.STATUS.get(found.status.phase, found.status.phase)
            click.echo(f"{found.subject.partition('/')[2] or found.subject}  {status}  {found.status.message}")
            for line in found.lines:
                click.echo(f"    {line}")


@click.command("dpeek", context_settings=SETTINGS)
@click.argument("ids", nargs=-1, metavar="JOB...")
def dpeek(ids: tuple[str, ...]) -> None:
    """The output of jobs so far, also while they run."""
    session = open_session()
    for ref in some_refs(ids):
        job = session.run(job_api.job(ref.number))
        if job.array and ref.task is None:
            raise HansaError(
                USAGE,
                f"Job {ref.number} has {job.count:,} tasks: whose output?",
                hint=f"dpeek {ref.number}.{job.first}",
            )
        seen: list[int] = []

        def show(piece: bytes, seen: list[int] = seen) -> None:
            seen.append(len(piece))
            click.echo(piece, nl=False)

        session.run(job_api.log(ref.number, ref.task, "stdout", show))
        if not seen:
            status = translate.STATUS.get(job.status.phase, job.status.phase)
            sys.stderr.write(f"dpeek: job {ref.number} has written nothing so far ({status}: {job.status.message})\n")


def dsub_main() -> int:
    return start(dsub)


def dstat_main() -> int:
    return start(dstat)


def doutput_main() -> int:
    from hansa.cli.dirac_files import doutput

    return start(doutput)


def dinput_main() -> int:
    from hansa.cli.dirac_files import dinput

    return start(dinput)


def dkill_main() -> int:
    return start(dkill)


def dlogging_main() -> int:
    return start(dlogging)


def dpeek_main() -> int:
    return start(dpeek)
