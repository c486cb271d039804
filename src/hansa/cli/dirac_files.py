"""``doutput`` and ``dinput``: what jobs made, and what they were given, in a directory for each."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hansa.cli import refs
from hansa.cli.dirac import SETTINGS, all_jobs, each, equal, named_refs, some_refs, words_of
from hansa.cli.jobs import find_task
from hansa.cli.session import open_session
from hansa.client import fetch, job_api
from hansa.client.errors import TARGET, HansaError
from hansa.client.results import walk
from hansa.client.transport import Transport
from hansa.compat.dirac import jdl, parametric, translate
from hansa.compat.dirac.words import STATUS
from hansa.jobs.wire import Job, Phase, Task, TaskFile
from hansa.node.template import render, values_of


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "-D", "--OutputDir", "target", default=".", type=click.Path(path_type=Path), help="Where to put it."
            ),
            click.option("-n", "--NoJobDir", "flat", is_flag=True, help="No directory for each job."),
            click.option("-g", "--JobGroup", "groups", multiple=True, help="All jobs of a group; may come again."),
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
def doutput(ids: tuple[str, ...], *, target: Path, sandbox: bool, data: bool, flat: bool,
            groups: tuple[str, ...], file: str | None, verbose: bool) -> int:  # fmt: skip
    """Bring the output of jobs into ./JOB/, with std.out and std.err; what is there already is skipped."""
    session = open_session()

    def one(ref: refs.Ref) -> int:
        job = session.run(job_api.job(ref.number))
        state = job.status.phase if ref.task is None else find_task(session, ref.number, ref.task).phase.value
        if not Phase(state).is_final:
            sys.stderr.write(f"doutput: job {_named(ref)} is {STATUS[state]}: no output yet\n")
            return 1

        def bring(folder: Path) -> None:
            tasks = [ref.task] if ref.task is not None else list(range(job.first, job.first + job.count))
            for index in tasks:
                place = folder / str(index) if job.array and ref.task is None else folder
                _outputs(session, job, index, place, has_sandbox=not data or sandbox, has_data=not sandbox or data)

        folder = target if flat else target / _named(ref)
        return _into_folder("doutput", folder, bring, is_flat=flat, is_told=verbose)

    return each("doutput", _chosen(session, ids, groups, file, is_final=True), one)


@click.command("dinput", context_settings=SETTINGS)
@click.option("-j", "--JDL", "as_jdl", is_flag=True, help="Print the JDL, and bring nothing.")
@click.option("--Sandbox", "sandbox", is_flag=True, help="Bring the input files, even with -j.")
@_options
def dinput(ids: tuple[str, ...], *, target: Path, as_jdl: bool, sandbox: bool, flat: bool,
           groups: tuple[str, ...], file: str | None, verbose: bool) -> int:  # fmt: skip
    """Bring the input files of jobs into ./InputSandboxJOB/, with the description as JOB.jdl; or print that (-j)."""
    session = open_session()

    def one(ref: refs.Ref) -> int:
        job = session.run(job_api.job(ref.number))
        found = session.run(job_api.inputs(ref.number, ref.task))
        text = jdl.render(_described(session, job, ref, [one.path for one in found]))
        if as_jdl:
            click.echo(text, nl=False)
        if as_jdl and not sandbox:
            return 0

        def bring(folder: Path) -> None:
            for item in found:
                into = _free(fetch.place(folder, item.path))
                whole = TaskFile(0, item.path, item.digest, item.size, item.executable)
                session.run(fetch.bring(_content(item.digest), whole, into))
            _free(folder / f"{_named(ref)}.jdl").write_text(text, encoding="utf-8")

        folder = target if flat else target / f"InputSandbox{_named(ref)}"
        return _into_folder("dinput", folder, bring, is_flat=flat, is_told=verbose)

    return each("dinput", _chosen(session, ids, groups, file), one)


def _described(session: Transport, job: Job, ref: refs.Ref, inputs: list[str]) -> dict[str, jdl.Value]:
    """A job as JDL; of one task what it is in particular, of an array with parameters all of them."""
    if ref.task is not None and job.array:
        task = find_task(session, ref.number, ref.task)
        known = values_of(job=job.number, index=ref.task, names=list(task.values), row=list(task.values.values()))
        index = parametric.padded(ref.task - job.first, job.count)
        shown = replace(
            job,
            command=[render(word, known) for word in job.command],
            outputs=[render(word, known) for word in job.outputs],
            labels={name: parametric.fill(text, job.number, index, task.values) for name, text in job.labels.items()},
        )
        return describe(shown, inputs) | {"ParameterNumber": ref.task - job.first}
    if not job.array:
        return describe(job, inputs)
    names = frozenset(job.names)
    shown = replace(
        job,
        command=[parametric.collapse(word, names) for word in job.command],
        outputs=[parametric.collapse(word, names) for word in job.outputs],
    )
    return describe(shown, inputs) | _parameters(session, job)


def _parameters(session: Transport, job: Job) -> dict[str, jdl.Value]:
    """``Parameters`` of an array."""
    names = [name for name in job.names if name != parametric.PADDED]
    if not names:
        return {"Parameters": job.count}
    columns: dict[str, list[jdl.Scalar]] = {name: [] for name in names}

    def hear(task: Task) -> None:
        for name in names:
            columns[name].append(task.values[name])

    session.run(walk(job, hear))
    return {"Parameters" if name == "value" else f"Parameters.{name}": found for name, found in columns.items()}


def describe(job: Job, inputs: Iterable[str]) -> dict[str, jdl.Value]:
    """A job as JDL."""
    needs = job.requirements
    data = job.labels.get(translate.DATA_LABEL, "")
    attributes: dict[str, jdl.Value] = {
        "JobID": job.number,
        "JobName": job.name or "",
        "JobGroup": job.group or "",
        "Executable": job.command[0],
        "Arguments": words_of(job.command[1:]),
        "StdOutput": job.labels.get(translate.OUT_LABEL, translate.STDOUT),
        "StdError": job.labels.get(translate.ERR_LABEL, translate.STDERR),
        "InputSandbox": list(inputs),
        "OutputSandbox": [one for one in job.outputs if not translate.is_data(job.labels, one)],
        "OutputData": [one for one in data.split(",") if one],
        "Site": list(needs.sites) or ([needs.site] if needs.site else []),
        "BannedSites": list(needs.banned_sites),
        "Tags": list(needs.tags),
        "Platform": [
            *filter(None, (needs.arch, needs.os, needs.glibc and f"glibc={needs.glibc}")),
            *needs.cpu_features,
        ],
        "Priority": job.priority,
        "CPUTime": needs.wall_time_s or 0,
        "NumberOfProcessors": needs.cores or 1,
        "VO": job.vo or "",
    }
    return {name: value for name, value in attributes.items() if value not in ("", [])}


def _chosen(
    session: Transport, ids: tuple[str, ...], groups: tuple[str, ...], file: str | None, *, is_final: bool = False
) -> list[refs.Ref]:
    chosen = named_refs(ids, file)
    for group in groups:
        jobs = all_jobs(session, " ".join(equal("group", group)))
        chosen += [refs.Ref(job.number) for job in jobs if not is_final or Phase(job.status.phase).is_final]
    return list(dict.fromkeys(chosen)) if chosen or groups else some_refs(ids, file)


def _named(ref: refs.Ref) -> str:
    return str(ref.number) if ref.task is None else f"{ref.number}.{ref.task}"


def _into_folder(program: str, folder: Path, bring: Callable[[Path], None], *, is_flat: bool, is_told: bool) -> int:
    """Bring something into its own directory, which appears when all of it is there; or straight into a shared one."""
    if is_flat:
        folder.mkdir(parents=True, exist_ok=True)
        bring(folder)
    elif folder.exists():
        sys.stderr.write(f"{program}: {folder} is there already: skipped\n")
        return 0
    else:
        part = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.part"
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
        for stream, name in _stream_names(session, job, index).items():
            with _free(place / name).open("wb") as out:
                session.run(job_api.log(job.number, index, stream, out.write))  # type: ignore[arg-type]
    page = None
    while page is None or page.next is not None:
        page = session.run(job_api.task_files(job.number, index, page.next if page else None, fetch.PAGE))
        for one in page.items:
            if one.index == index and (has_data if translate.is_data(job.labels, one.path) else has_sandbox):
                target = _free(fetch.place(place, one.path))
                session.run(fetch.bring(fetch.output_of(job.number, one), one, target))


def _stream_names(session: Transport, job: Job, index: int) -> dict[str, str]:
    names = job.labels.get(translate.OUT_LABEL, "") + job.labels.get(translate.ERR_LABEL, "")
    values = find_task(session, job.number, index).values if job.names and "s" in names and "%" in names else {}
    return translate.stream_names(job.labels, job.number, parametric.padded(index - job.first, job.count), values)


def _free(path: Path) -> Path:
    """The path; HansaError where something is there: nothing is written over."""
    if os.path.lexists(path):
        raise HansaError(
            TARGET, f"{path} is there already; it was not written over.", hint="Move it away, or leave out -n."
        )
    return path


def _content(digest: str) -> fetch.Download:
    return lambda sink, restart, start: job_api.content(digest, sink, restart, start)
