"""``dsub``, and what all commands with COMDIRAC's words share; the others are in ``dirac_look`` and ``dirac_files``.

What a description means is decided in :mod:`hansa.compat.dirac`; here are options in, text out.
"""

from __future__ import annotations

import configparser
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
from hansa.client.draft import Draft, Options, prepare
from hansa.client.errors import USAGE, HansaError, ServerAway
from hansa.client.transport import Transport
from hansa.compat.dirac import jdl, parametric, translate
from hansa.jobs.wire import Job, Phase
from hansa.kernel.errors import Exit

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
    ("-J", "--JDL", "jdl_text", "JDL file, or JDL text. [default: 'jdl' of ~/.dirac/dcommands.conf]"),
    ("-N", "--JobName", "jobname", "Name of the job."),
    ("-O", "--StdOutput", "stdoutput", "File name of its output. [default: std.out]"),
    ("-E", "--StdError", "stderror", "File name of its errors. [default: std.err]"),
    ("--InputSandbox", "inputsandbox", "Files to send, with commas."),
    ("--OutputSandbox", "outputsandbox", "Files to bring back, with commas."),
    ("--InputData", "inputdata", "Refused: there is no data catalogue yet."),
    ("--OutputData", "outputdata", "Files to bring back as well, with commas; doutput --Data brings only them."),
    ("--OutputPath", "outputpath", "Changes nothing, and says so: there is no storage element."),
    ("--OutputSE", "outputse", "Changes nothing, and says so: there is no storage element."),
    ("--CPUTime", "cputime", "Seconds; the wall time of a task. [default: the site's]"),
    ("--Site", "site", "Sites to run at, with commas."),
    ("--BannedSite", "bannedsites", "Sites not to run at, with commas."),
    ("--Platform", "platform", "Platforms, as in x86_64-el9 or Linux_x86_64_glibc-2.28."),
    ("--Priority", "priority", "0 to 10. [default: 5]"),
    ("--JobGroup", "jobgroup", "A group of jobs."),
    ("--Parametric", "parametric_text", "a,b,c or start:stop[:step[:factor]] (below stop): a task each."),
)


def _sub_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for *names, text in reversed(_SUB):
        function = click.option(*names, help=text)(function)
    return function


@click.command("dsub", context_settings={**SETTINGS, "allow_interspersed_args": False})
@_sub_options
@click.option("--ForceExecUpload", "uploads", is_flag=True, help="Send an executable with an absolute path too.")
@click.option("-v", "--verbose", is_flag=True, help="Print the JDL, on stderr.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[EXECUTABLE [ARGUMENTS]...]")
def dsub(command: tuple[str, ...], jdl_text: str | None, parametric_text: str | None, *, uploads: bool, verbose: bool,
         **options: str | None) -> None:  # fmt: skip
    """Submit a job; prints its id. Without an executable the script comes on stdin.

    Options win over lines '#JDL name = value' of the script, those over -J, and where there is no -J over the 'jdl' of
    ~/.dirac/dcommands.conf. What follows the executable are its arguments.
    """
    attributes = jdl.parse(session_default("jdl")) if jdl_text is None else _read_jdl(jdl_text)
    given: dict[str, jdl.Value] = {name: value for name, value in options.items() if value is not None}
    if parametric_text is not None:
        given["parametric"] = parametric_text
    words = _arguments(command[1:])
    with tempfile.TemporaryDirectory(prefix="dsub-") as folder:
        executable = command[0] if command else str(given.get("executable", attributes.get("executable", "")))
        if not executable:
            script = Path(folder) / "dsub.sh"
            script.write_text(_read_script(), encoding="utf-8")
            attributes = {"jobname": "STDIN"} | attributes | _in_script(script)
            executable, uploads = str(script), True
        elif Path(executable).is_file():
            attributes |= _in_script(Path(executable))
        attributes |= {"executable": executable, **given}
        if words or "arguments" not in attributes:
            attributes["arguments"] = words_of(words)
        loops = attributes.pop("parametric", None)
        if loops is not None:
            attributes |= parametric.parametric(",".join(map(str, loops)) if isinstance(loops, list) else str(loops))
        if verbose:
            names = {name.lower(): name for name in translate.NAMES}
            sys.stderr.write("JDL:\n" + jdl.render({names.get(key, key): value for key, value in attributes.items()}))
        found = translate.translate(attributes, lambda path: Path(path).is_file(), uploads=uploads, is_text=_is_text)
        for note in found.notes:
            sys.stderr.write(f"dsub: {note}\n")
        job = _submit(found)
    ids = [str(job.number)]
    if job.array:
        ids = [f"{job.number}.{index}" for index in range(job.first, job.first + job.count)]
    if verbose:
        sys.stderr.write("JobID:\n")
    click.echo(",".join(ids))


def _arguments(words: Sequence[str]) -> list[str]:
    """What follows the executable, without the first ``--``; says so where it looks like an option of dsub."""
    if "--" in words:
        at = list(words).index("--")
        return [*words[:at], *words[at + 1 :]]
    names = {name for *each, _ in _SUB for name in each if name.startswith("-")}
    for word in words:
        if word.partition("=")[0] in names:
            sys.stderr.write(f"dsub: {word} goes to the executable; options of dsub stand before it\n")
    return list(words)


def session_default(name: str) -> str:
    """A default of COMDIRAC's own file: of its default profile, else of [global]. Empty where there is none."""
    folder = os.environ.get("DCOMMANDS_CONFIG_DIR")
    path = (Path(folder) if folder else Path.home() / ".dirac") / "dcommands.conf"
    found = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        found.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise HansaError(USAGE, f"{path} cannot be read: {error}.", hint="Mend it, or move it away.") from error
    profile = found.get("global", "default_profile", fallback="") or ""
    return found.get(profile, name, fallback=None) or found.get("global", name, fallback=None) or ""


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
    """``#JDL name = value`` lines of a script. A value without quotes may have spaces."""
    lines = path.read_bytes()[:1_000_000].decode(errors="replace").splitlines()
    return {match[1].lower(): _value(match[2]) for line in lines if (match := _IN_SCRIPT.match(line))}


def _value(text: str) -> jdl.Value:
    if not text.startswith(('"', "{")):
        return text
    return jdl.parse(f"v = {text};")["v"]


def _is_text(path: str) -> bool:
    """Whether a file is a script without a ``#!`` line; DIRAC's wrapper has a shell run such."""
    with Path(path).open("rb") as file:
        start = file.read(4096)
    return b"\0" not in start and not start.startswith(b"#!")


def _submit(found: translate.Submission) -> Job:
    options = Options(inputs=found.inputs, outputs=found.outputs, scan=False, **found.options)  # type: ignore[arg-type]
    if found.rows is not None:
        names = list(found.rows[0])
        rows = [[row[name] for name in names] for row in found.rows]
        options = replace(options, array=Array(len(rows), 0, names, rows))
    draft = _executable(prepare(found.command, options), found.program)
    return open_session().run(operations.submit(draft))


def _executable(draft: Draft, program: str | None) -> Draft:
    """The program may be executed where it runs, whatever its mode is here."""
    draft.shared = [replace(one, executable=True) if one.dest == program else one for one in draft.shared]
    return draft


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


def each(program: str, chosen: Iterable[refs.Ref], work: Callable[[refs.Ref], int | None]) -> int:
    """Do it for each; what cannot be done is told, the rest is done. The exit code of the last that failed."""
    code = 0
    for ref in chosen:
        try:
            code = work(ref) or code
        except ServerAway:
            raise
        except HansaError as error:
            name = ref.number if ref.task is None else f"{ref.number}.{ref.task}"
            sys.stderr.write(f"{program}: {name}: {error.detail}\n")
            sys.stderr.write(f"  {error.hint}\n" if error.hint else "")
            code = int(error.code.exit_code)
    return code


def equal(field: str, value: str | None) -> list[str]:
    """A term of a query that is equal to a text."""
    if value is None:
        return []
    if '"' in value:
        raise HansaError(
            USAGE, f"{value!r} has a quote in it, which no query can say.", hint="hansa job list names all."
        )
    return [f'{field}:"{value}"']


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


def dsub_main() -> int:
    return start(dsub)


def dstat_main() -> int:
    from hansa.cli.dirac_look import dstat

    return start(dstat)


def doutput_main() -> int:
    from hansa.cli.dirac_files import doutput

    return start(doutput)


def dinput_main() -> int:
    from hansa.cli.dirac_files import dinput

    return start(dinput)


def dkill_main() -> int:
    from hansa.cli.dirac_look import dkill

    return start(dkill)


def dlogging_main() -> int:
    from hansa.cli.dirac_look import dlogging

    return start(dlogging)


def dpeek_main() -> int:
    from hansa.cli.dirac_look import dpeek

    return start(dpeek)
