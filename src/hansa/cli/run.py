"""``hansa run`` and ``hansa job submit``: the hot path, free of anything that is slow to import."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from hansa.cli import failures, progress
from hansa.cli.options import job_options
from hansa.cli.session import note, open_session
from hansa.client import fetch, job_api, operations
from hansa.client.api import Trying
from hansa.client.draft import Draft, Options, prepare
from hansa.client.results import save_csv
from hansa.client.transport import Transport
from hansa.client.units import show_bytes, show_count, show_time
from hansa.jobs.wire import Job, Phase
from hansa.kernel.errors import Fault

OWN = 125
NOT_FOUND_EXIT = 127
"""As a shell says that there is no such command."""
INTERRUPTED = 130
BROKEN_PIPE = 141
SHOWN_FAILURES = 5
PATIENCE_S = 600.0
"""How long a job is followed while the server is away; HANSA_RECONNECT_S changes it."""
ARRAY_INTERVAL_S = 0.1
SETTINGS = {"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]}


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
  hansa run -- echo hello
  hansa run --memory 2G --time 30m -- python fit.py data.csv
  hansa run --array 0-199 -- python train.py --seed {i}
  hansa run --params sweep.csv --output '*.json' -- python train.py --rate {rate}

The exit code is the job's; 1 for an array with a failed task; 125 if Hansa itself failed.
Ctrl-C leaves the job running and says how to follow or stop it.
""",
)
@job_options
@click.option("-d", "--detach", is_flag=True, help="Submit only, and print the job's number.")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where outputs go. [default: hansa-JOB]",
)
@click.option("--no-fetch", is_flag=True, help="Leave the outputs at the server.")
@click.option("-q", "--quiet", is_flag=True, help="No words but errors.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND...")
def run(
    command: tuple[str, ...],
    options: Options,
    *,
    detach: bool,
    folder: Path | None,
    no_fetch: bool,
    quiet: bool,
) -> int:
    """Run a COMMAND as a job: submit it, follow its output, bring its results, exit as it does.

    Files that the command names go with it; what it writes comes back into ./hansa-JOB/.
    """
    session, job = _submit(command, options, quiet=quiet)
    if detach:
        click.echo(job.number)
        return 0
    try:
        job = follow(session, job, quiet=quiet)
        code = _conclude(session, job, quiet=quiet)
        if code == NOT_FOUND_EXIT and len(command) == 1 and len(command[0].split()) > 1:
            note(f"{command[0]!r} is one word; for a line of a shell say: hansa run -- sh -c {shlex.quote(command[0])}")
        if not no_fetch:
            code = _bring(session, job, folder or Path(f"hansa-{job.number}"), code, quiet=quiet)
        return code
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        note(f"job {job.number} {goes_on(job)}")
        return INTERRUPTED
    except BrokenPipeError:
        note(f"nobody reads the output any more; job {job.number} {goes_on(job)}")
        raise


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
  hansa job submit -- python fit.py data.csv
  hansa job wait $(hansa job submit --array 0-9 -- ./sim {i})
""",
)
@job_options
@click.option("-o", "form", type=click.Choice(["id", "table", "json", "yaml"]), default="id", help="What to print.")
@click.option("-q", "--quiet", is_flag=True, help="No words but errors.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND...")
def submit(command: tuple[str, ...], options: Options, *, form: str, quiet: bool) -> None:
    """Submit a COMMAND as a job and print the job's number. Follow it with: hansa job wait JOB"""
    _, job = _submit(command, options, quiet=quiet)
    if form == "id":
        click.echo(job.number)
    else:
        from hansa.cli import jobs

        jobs.print_job(job, form)


def _submit(command: tuple[str, ...], options: Options, *, quiet: bool) -> tuple[Transport, Job]:
    draft: Draft = prepare(command, options)
    if not quiet:
        for text in draft.notes:
            note(text)
    session = open_session()
    upload = progress.Upload(sys.stderr) if progress.is_live() and not quiet else None
    try:
        job = session.run(operations.submit(draft, upload))
    finally:
        if upload is not None:
            upload.close()
    if not quiet:
        note(progress.describe(job))
    return session, job


def follow(session: Transport, job: Job, *, quiet: bool, logs: bool = True, timeout_s: float | None = None) -> Job:
    """Follow to the end. Output of a single job goes to stdout and stderr as it is."""
    view = progress.view_of(job, note, quiet=quiet)
    patience_s = float(os.environ.get("HANSA_RECONNECT_S") or PATIENCE_S)
    follower = operations.Follower(
        piece=Output() if logs and not job.array else None,
        job=view.job,
        poll_s=(1.0 if progress.is_live() else progress.LINE_EVERY_S) if job.array else operations.POLL_S,
        interval_s=ARRAY_INTERVAL_S if job.array else 0.0,
        trying=Trying(patience_s, note),
    )
    try:
        return session.run(operations.follow(job.number, follower, timeout_s=timeout_s))
    finally:
        view.close()


class Output:
    """The output of a single job, byte for byte; what a setup command says goes to stderr."""

    def __init__(self) -> None:
        self._attempt = 1

    def __call__(self, index: int, attempt: int, stream: str, data: bytes) -> None:  # noqa: ARG002
        if attempt != self._attempt:
            self._attempt = attempt
            note(f"attempt {attempt} begins")
        out = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
        out.write(data)
        out.flush()


def _bring(session: Transport, job: Job, folder: Path, code: int, *, quiet: bool) -> int:
    """Outputs into the folder, and for an array the table of results beside them. The exit code of it all."""
    try:
        text = bring(session, job, folder)
    except Fault as error:
        if code == 0:
            raise
        failures.report(error, sys.stderr, os.environ)  # that the job failed is the greater news
        return code
    if text and not quiet:
        note(text)
    return code


def bring(session: Transport, job: Job, folder: Path) -> str:
    """Fetch a job's outputs; what to say of it, or nothing where there was none."""
    got = session.run(fetch.fetch(job, folder, session.endpoint.url))
    parts = []
    if got.files or got.kept:
        parts.append(f"{show_count(got.files + got.kept, 'file')} ({show_bytes(got.size)})")
    if job.array:
        fetch.claim(folder, job, session.endpoint.url)
        session.run(save_csv(job, folder / "results.csv"))
        parts.append("results.csv")
    return f"{' and '.join(parts)} in {folder}/" if parts else ""


def _conclude(session: Transport, job: Job, *, quiet: bool) -> int:
    """Say how it ended; the exit code."""
    if job.array:
        if not quiet:
            took = show_time((job.ended - job.created).total_seconds()) if job.ended else ""
            note(f"job {job.number}: {progress.tally(job.counts)}{' in ' + took if took else ''}")
            name_failures(session, job)
        return 0 if job.status.phase == Phase.DONE else 1
    if job.status.phase != Phase.DONE:
        note(f"job {job.number}: {job.status.message}")
    if job.exit_code is not None:
        return job.exit_code
    return 0 if job.status.phase == Phase.DONE else OWN


def name_failures(session: Transport, job: Job) -> None:
    if not job.counts.failed:
        return
    page = session.run(job_api.tasks(job.number, limit=SHOWN_FAILURES, phase="failed"))
    for task in page.items[:SHOWN_FAILURES]:
        values = " ".join(f"{name}={value}" for name, value in task.values.items())
        how = task.message or f"exit code {task.exit_code}"
        note(f"  {job.number}.{task.index}{' ' + values if values else ''}: {how}")
    if job.counts.failed > SHOWN_FAILURES:
        note(f"  and {job.counts.failed - SHOWN_FAILURES:,} more: hansa job show {job.number} --failed")
    first = f" {job.number}.{page.items[0].index}" if page.items else ""
    note(f"  see why: hansa job logs{first}; run them again: hansa job retry {job.number}")


def goes_on(job: Job) -> str:
    if Phase(job.status.phase).is_final:
        return f"has ended: hansa job fetch {job.number}"
    return f"goes on: hansa job wait {job.number}, or stop it: hansa job kill {job.number}"
