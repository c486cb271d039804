"""``doutput`` and ``dinput``: what jobs made, and what they were given, in a directory for each."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from hansa.cli import refs
from hansa.cli.dirac import SETTINGS, all_jobs, named_refs, some_refs, words_of
from hansa.cli.jobs import find_task
from hansa.cli.session import open_session
from hansa.client import fetch, job_api
from hansa.client.errors import TARGET, HansaError
from hansa.client.transport import Transport
from hansa.compat.dirac import jdl, translate
from hansa.jobs.wire import Job, Phase, TaskFile


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "-D", "--OutputDir", "target", default=".", type=click.Path(path_type=Path), help="Where to put it."
            ),
            click.option("-n", "--NoJobDir", "flat", is_flag=True, help="No directory for each job."),
            click.option("-g", "--JobGroup", "group", help="All jobs of a group."),
            click.option("-i", "--input-file", "file", type=click.Path(dir_okay=False), help="A file with ids."),
            click.option("-v", "--verbose", is_flag=True, help="Say what was brought."),
            click.argument("ids", nargs=-1, metavar="[JOB]..."),
        ]
    ):
        function = option(function)
    return function


@click.command("doutput", context_settings=SETTINGS)
@click.option("--Sandbox", "sandbox", is_flag=True, help="Only what is not output data.")
@click.option("--Data", "data", is_flag=True, help="Only output data (OutputData), without std.out and std.err.")
@_options
def doutput(ids: tuple[str, ...], *, target: Path, sandbox: bool, data: bool, flat: bool, group: str | None,
            file: str | None, verbose: bool) -> int:  # fmt: skip
    """Bring the output of jobs into ./JOB/, with std.out and std.err; what is there already is skipped."""
    session = open_session()
    code = 0
    for ref in _chosen(session, ids, group, file, is_final=True):
        job = session.run(job_api.job(ref.number))
        state = job.status.phase if ref.task is None else find_task(session, ref.number, ref.task).phase.value
        if not Phase(state).is_final:
            sys.stderr.write(f"doutput: job {_named(ref)} is {translate.STATUS[state]}: no output yet\n")
            code = 1
            continue

        def bring(folder: Path, ref: refs.Ref = ref, job: Job = job) -> None:
            tasks = [ref.task] if ref.task is not None else list(range(job.first, job.first + job.count))
            for index in tasks:
                place = folder / str(index) if job.array and ref.task is None else folder
                _outputs(session, job, index, place, has_sandbox=not data or sandbox, has_data=not sandbox or data)

        code = _into_folder("doutput", ref, target, bring, is_flat=flat, is_told=verbose) or code
    return code


@click.command("dinput", context_settings=SETTINGS)
@click.option("-j", "--JDL", "as_jdl", is_flag=True, help="Print the JDL, and bring nothing.")
@_options
def dinput(ids: tuple[str, ...], *, target: Path, as_jdl: bool, flat: bool, group: str | None, file: str | None,
           verbose: bool) -> int:  # fmt: skip
    """Bring the input files of jobs into ./JOB/, with the description as JOB.jdl; or print that (-j)."""
    session = open_session()
    code = 0
    for ref in _chosen(session, ids, group, file):
        job = session.run(job_api.job(ref.number))
        found = session.run(job_api.inputs(ref.number, ref.task))
        text = jdl.render(describe(job, [one.path for one in found]))
        if as_jdl:
            click.echo(text, nl=False)
            continue

        def bring(folder: Path, ref: refs.Ref = ref, found: list[Any] = found, text: str = text) -> None:
            for one in found:
                one = TaskFile(0, one.path, one.digest, one.size, one.executable)
                session.run(fetch.bring(_content(one.digest), one, _free(fetch.place(folder, one.path))))
            _free(folder / f"{_named(ref)}.jdl").write_text(text, encoding="utf-8")

        code = _into_folder("dinput", ref, target, bring, is_flat=flat, is_told=verbose) or code
    return code


def describe(job: Job, inputs: Iterable[str]) -> dict[str, jdl.Value]:
    """A job as JDL."""
    needs = job.requirements
    attributes: dict[str, jdl.Value] = {
        "JobID": job.number,
        "JobName": job.name or "",
        "JobGroup": job.group or "",
        "Executable": job.command[0],
        "Arguments": words_of(job.command[1:]),
        "StdOutput": job.labels.get(translate.OUT_LABEL, translate.STDOUT),
        "StdError": job.labels.get(translate.ERR_LABEL, translate.STDERR),
        "InputSandbox": list(inputs),
        "OutputSandbox": list(job.outputs),
        "Priority": job.priority,
        "CPUTime": needs.wall_time_s or 0,
        "NumberOfProcessors": needs.cores or 1,
    }
    return {name: value for name, value in attributes.items() if value not in ("", [])}


def _chosen(
    session: Transport, ids: tuple[str, ...], group: str | None, file: str | None, *, is_final: bool = False
) -> list[refs.Ref]:
    chosen = named_refs(ids, file)
    if group:
        jobs = all_jobs(session, f'group:"{group}"')
        chosen += [refs.Ref(job.number) for job in jobs if not is_final or Phase(job.status.phase).is_final]
    return list(dict.fromkeys(chosen)) if chosen or group else some_refs(ids, file)


def _named(ref: refs.Ref) -> str:
    return str(ref.number) if ref.task is None else f"{ref.number}.{ref.task}"


def _into_folder(
    program: str, ref: refs.Ref, target: Path, bring: Callable[[Path], None], *, is_flat: bool, is_told: bool
) -> int:
    """Bring something into its own directory, which appears when all of it is there; or straight into the target."""
    folder = target if is_flat else target / _named(ref)
    if is_flat:
        target.mkdir(parents=True, exist_ok=True)
        bring(target)
    elif folder.exists():
        sys.stderr.write(f"{program}: {folder} is there already: skipped\n")
        return 0
    else:
        part = target / f".{_named(ref)}.{secrets.token_hex(4)}.part"
        try:
            part.mkdir(parents=True)
            bring(part)
            part.rename(folder)
        except OSError as error:
            raise HansaError(TARGET, f"{folder} cannot be written: {error.strerror}.", hint="Choose -D DIR.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if is_told:
        sys.stderr.write(f"{program}: {folder}\n")
    return 0


def _outputs(session: Transport, job: Job, index: int, place: Path, *, has_sandbox: bool, has_data: bool) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if has_sandbox:
        for stream, name in translate.stream_names(job.labels, index).items():
            with _free(place / name).open("wb") as out:
                session.run(job_api.log(job.number, index, stream, out.write))  # type: ignore[arg-type]
    page = None
    while page is None or page.next is not None:
        page = session.run(job_api.task_files(job.number, index, page.next if page else None, fetch.PAGE))
        for one in page.items:
            if one.index == index and (has_data if translate.is_data(job.labels, one.path) else has_sandbox):
                target = _free(fetch.place(place, one.path))
                session.run(fetch.bring(fetch.output_of(job.number, one), one, target))


def _free(path: Path) -> Path:
    """The path; HansaError where something is there: nothing is written over."""
    if os.path.lexists(path):
        raise HansaError(
            TARGET, f"{path} is there already; it was not written over.", hint="Move it away, or leave out -n."
        )
    return path


def _content(digest: str) -> fetch.Download:
    return lambda sink, restart, start: job_api.content(digest, sink, restart, start)
