"""``dsub, dstat, doutput, dinput, dkill, dlogging, dpeek``: COMDIRAC's words for people who know them.

What a description means is decided in :mod:`hansa.compat.dirac`; here are options in, text out.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from hansa.cli import failures, refs
from hansa.cli.session import open_session
from hansa.client import api, fetch, operations
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
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
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
    ("--InputData", "inputdata", "Logical files (there is no data catalogue yet)."),
    ("--OutputData", "outputdata", "Files to bring back as well."),
    ("--OutputPath", "outputpath", "Understood; changes nothing."),
    ("--OutputSE", "outputse", "Understood; changes nothing."),
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


@click.command("dsub", context_settings={**_SETTINGS, "allow_interspersed_args": False})
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
            script.write_text(sys.stdin.read(), encoding="utf-8")
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


@click.command("dstat", context_settings=_SETTINGS)
@click.option("-u", "--User", "user", help="Only jobs of this owner.")
@click.option("-S", "--Status", "status", help="Only these states, with commas.")
@click.option("-a", "--All", "every", is_flag=True, help="Jobs that have ended, too.")
@click.option("-g", "--JobGroup", "group", help="Only this group.")
@click.option("-n", "--JobName", "name", help="Only this name.")
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "csv", "json"]), default="pretty")
@click.option("-D", "--JobDate", "days", type=int, default=10, help="Submitted in the last days. [default: 10]")
@click.option("-F", "--Fields", "fields", help=f"Of {', '.join(FIELDS)}.")
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def dstat(ids: tuple[str, ...], *, user: str | None, status: str | None, every: bool, group: str | None,
          name: str | None, form: str, days: int, fields: str | None, file: str | None) -> None:  # fmt: skip
    """List jobs: those that have not ended, unless asked for more."""
    session = open_session()
    wanted = {one.strip().lower() for one in status.split(",")} if status else set()
    chosen = _named(ids, file)
    if chosen:
        jobs = [session.run(api.job(number)) for number in dict.fromkeys(ref.number for ref in chosen)]
    else:
        query = [f"created<{days}d", *([f'group:"{group}"'] if group else []), *([f'name:"{name}"'] if name else [])]
        jobs = _all_jobs(session, " ".join(query))
        if not every and not wanted:
            jobs = [job for job in jobs if not Phase(job.status.phase).is_final]
    rows = [row_of(job) for job in jobs if user in (None, job.owner)]
    rows = [row for row in rows if not wanted or row["Status"].lower() in wanted]
    show_rows(rows, [one.strip() for one in fields.split(",")] if fields else list(SHOWN), form)


def _all_jobs(session: Transport, query: str) -> list[Job]:
    jobs: list[Job] = []
    after = None
    while len(jobs) < LIMIT:
        page = session.run(api.jobs(limit=500, after=after, query=query))
        jobs += page.items
        after = page.next
        if after is None:
            break
    return jobs


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


def show_rows(rows: list[dict[str, str]], fields: list[str], form: str) -> None:
    """As a table, CSV or JSON."""
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise HansaError(USAGE, f"There is no field {unknown[0]}.", hint=f"There are {', '.join(FIELDS)}.")
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


def _named(ids: Iterable[str], file: str | None = None) -> list[refs.Ref]:
    words = [word for text in ids for word in text.split(",") if word]
    if file is not None:
        words += Path(file).read_text(encoding="utf-8").replace(",", " ").split()
    return [ref for word in words for ref in refs.parse(word)]


def _some(ids: Iterable[str], file: str | None = None) -> list[refs.Ref]:
    found = _named(ids, file)
    if not found:
        raise HansaError(USAGE, "Say which jobs.", hint="As in 12 or 12,13 or 12.3; dstat -a lists them.")
    return found


@click.command("doutput", context_settings=_SETTINGS)
@click.option("-D", "--OutputDir", "target", default=".", type=click.Path(path_type=Path), help="Where to put it.")
@click.option("--Sandbox", "sandbox", is_flag=True, help="Understood: all output comes in the sandbox.")
@click.option("--Data", "data", is_flag=True, help="Understood: all output comes in the sandbox.")
@click.option("-n", "--NoJobDir", "flat", is_flag=True, help="No directory for each job.")
@click.option("-g", "--JobGroup", "group", help="All ended jobs of a group.")
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.option("-v", "--verbose", is_flag=True)
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def doutput(ids: tuple[str, ...], *, target: Path, sandbox: bool, data: bool, flat: bool, group: str | None,  # noqa: ARG001
            file: str | None, verbose: bool) -> int:  # fmt: skip
    """Bring the output of jobs into ./JOB/, with std.out and std.err; what is there already is skipped."""
    session = open_session()
    chosen = _named(ids, file)
    if group:
        jobs = _all_jobs(session, f'group:"{group}"')
        chosen += [refs.Ref(job.number) for job in jobs if Phase(job.status.phase).is_final]
    code = 0
    for ref in chosen or _some(ids, file):
        job = session.run(api.job(ref.number))
        folder = target if flat else target / (f"{ref.number}" if ref.task is None else f"{ref.number}.{ref.task}")
        if not flat and folder.exists():
            sys.stderr.write(f"doutput: {folder} is there already: skipped\n")
            continue
        if not Phase(job.status.phase).is_final:
            sys.stderr.write(f"doutput: job {ref.number} is {translate.STATUS[job.status.phase]}: no output yet\n")
            code = 1
            continue
        _bring(session, job, ref, folder)
        if verbose:
            sys.stderr.write(f"doutput: {folder}\n")
    return code


def _bring(session: Transport, job: Job, ref: refs.Ref, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [ref.task] if ref.task is not None else list(range(job.first, job.first + job.count))
    for index in tasks:
        place = folder / str(index) if job.array and ref.task is None else folder
        place.mkdir(exist_ok=True)
        for stream, name in (("stdout", translate.STDOUT), ("stderr", translate.STDERR)):
            with (place / name).open("wb") as out:
                session.run(api.log(job.number, index, stream, _into(out)))
        page = None
        while page is None or page.next is not None:
            page = session.run(api.task_files(job.number, index, page.next if page else None, fetch.PAGE))
            for one in page.items:
                if one.index == index:
                    _bring_file(session, job.number, index, one.path, fetch.place(place, one.path))


def _bring_file(session: Transport, number: int, index: int, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:

        def restart() -> None:
            out.seek(0)
            out.truncate()

        session.run(api.download(number, index, path, _into(out), restart))


def _into(out: BinaryIO) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        out.write(piece)

    return write


@click.command("dinput", context_settings=_SETTINGS)
@click.option("-j", "--JDL", "as_jdl", is_flag=True, help="Print the JDL (the default here).")
@click.argument("ids", nargs=-1, metavar="JOB...")
def dinput(ids: tuple[str, ...], *, as_jdl: bool) -> None:  # noqa: ARG001
    """Print what was submitted, as JDL."""
    session = open_session()
    for ref in _some(ids):
        job = session.run(api.job(ref.number))
        needs = job.requirements
        attributes: dict[str, jdl.Value] = {
            "JobID": job.number,
            "JobName": job.name or "",
            "Executable": job.command[0],
            "Arguments": words_of(job.command[1:]),
            "OutputSandbox": list(job.outputs),
            "Priority": job.priority,
            "CPUTime": needs.wall_time_s or 0,
            "NumberOfProcessors": needs.cores or 1,
        }
        click.echo(jdl.render(attributes), nl=False)


@click.command("dkill", context_settings=_SETTINGS)
@click.option("-D", "--delete", is_flag=True, help="Understood; jobs are kept for their history.")
@click.option("-a", "--all", "every", is_flag=True, help="All jobs that have not ended.")
@click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids.")
@click.option("-v", "--verbose", is_flag=True)
@click.argument("ids", nargs=-1, metavar="[JOB]...")
def dkill(ids: tuple[str, ...], *, delete: bool, every: bool, file: str | None, verbose: bool) -> None:  # noqa: ARG001
    """Stop jobs."""
    session = open_session()
    if every:
        jobs = [job for job in _all_jobs(session, "") if not Phase(job.status.phase).is_final]
        chosen: dict[int, list[int] | None] = {job.number: None for job in jobs}
    else:
        chosen = refs.by_job(_some(ids, file))
    for number, tasks in chosen.items():
        session.run(api.kill(number, tasks))
        if verbose:
            sys.stderr.write(f"dkill: {number}\n")


@click.command("dlogging", context_settings=_SETTINGS)
@click.option("-f", "--Fmt", "form", type=click.Choice(["pretty", "json"]), default="pretty")
@click.argument("ids", nargs=-1, metavar="JOB...")
def dlogging(ids: tuple[str, ...], *, form: str) -> None:
    """Why jobs are where they are, and what has happened to them."""
    session = open_session()
    found = [session.run(api.explain(ref.number, ref.task)) for ref in _some(ids)]
    if form == "json":
        plain = [
            {"JobID": one.subject.partition("/")[2], "Status": translate.STATUS.get(one.status.phase, one.status.phase),
             "MinorStatus": one.status.message, "History": one.lines} for one in found
        ]  # fmt: skip
        click.echo(json.dumps(plain, indent=2))
        return
    for one in found:
        status = translate.STATUS.get(one.status.phase, one.status.phase)
        click.echo(f"{one.subject.partition('/')[2]}  {status}  {one.status.message}")
        for line in one.lines:
            click.echo(f"    {line}")


@click.command("dpeek", context_settings=_SETTINGS)
@click.argument("ids", nargs=-1, metavar="JOB...")
def dpeek(ids: tuple[str, ...]) -> None:
    """The output of jobs so far, also while they run."""
    session = open_session()
    for ref in _some(ids):
        session.run(api.log(ref.number, ref.task, "stdout", lambda piece: click.echo(piece, nl=False)))


def dsub_main() -> int:
    return start(dsub)


def dstat_main() -> int:
    return start(dstat)


def doutput_main() -> int:
    return start(doutput)


def dinput_main() -> int:
    return start(dinput)


def dkill_main() -> int:
    return start(dkill)


def dlogging_main() -> int:
    return start(dlogging)


def dpeek_main() -> int:
    return start(dpeek)
