"""Python functions as tasks: function and values travel as pickles, results and exceptions come back so.

Values go in packs, so that a thousand small ones are a few files. The worker needs the same Python and
cloudpickle; it does not need Hansa: :data:`RUNNER` travels along.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hansa.client import job_api
from hansa.client.arrays import Array
from hansa.client.draft import Draft, Options, prepare
from hansa.client.effects import Operation
from hansa.client.errors import FUNCTION, HansaError
from hansa.client.files import Source, source
from hansa.jobs.wire import Job, Phase, Task

PACK_BYTES = 256 * 1024
FOLDER = "_hansa"
RESULT = f"{FOLDER}/result.pkl"

RUNNER = '''"""Runs one call of a mapped function: reads function and value, writes the result or error."""

import pickle
import sys
import traceback

WANTED = (@VERSION@)


def write(outcome, dump):
    with open("_hansa/result.pkl", "wb") as file:
        dump(outcome, file)


def refuse(text):
    write((None, text, ""), pickle.dump)
    return 1


def main(index):
    here = "%d.%d" % sys.version_info[:2]
    if sys.version_info[:2] != WANTED:
        return refuse("it was sent by Python %d.%d, and runs on Python %s (%s)" % (*WANTED, here, sys.executable))
    try:
        import cloudpickle
    except ImportError:
        return refuse("the Python there (" + sys.executable + ", " + here + ") has no cloudpickle")
    with open("_hansa/function.pkl", "rb") as file:
        function = pickle.load(file)
    with open("_hansa/values.pkl", "rb") as file:
        value = pickle.loads(pickle.load(file)[index])
    try:
        outcome = (True, function(value), "")
    except Exception as error:
        text = traceback.format_exc()
        sys.stderr.write(text)
        try:
            cloudpickle.loads(cloudpickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        outcome = (False, error, text)
    try:
        write(outcome, cloudpickle.dump)
    except Exception as error:
        return refuse(f"what it returned cannot be sent back: {error}")
    return 0 if outcome[0] else 1


sys.exit(main(int(sys.argv[1])))
'''


class Calls:
    """The files of a mapped function, in a temporary folder of their own. Close it when they are sent."""

    def __init__(self, function: Callable[[Any], Any], values: Iterable[Any]) -> None:
        import cloudpickle

        self._folder = tempfile.TemporaryDirectory(prefix="hansa-map-")
        root = Path(self._folder.name)
        try:
            version = f"{sys.version_info[0]}, {sys.version_info[1]}"
            (root / "run.py").write_text(RUNNER.replace("@VERSION@", version), encoding="utf-8")
            (root / "function.pkl").write_bytes(cloudpickle.dumps(function))
            self._packs = self._pack(root, values, cloudpickle.dumps)
        except Exception as error:
            self._folder.cleanup()
            raise HansaError(
                FUNCTION,
                f"The function or one of its values cannot be sent: {error}.",
                hint="Open files, connections and locks cannot travel; make them inside the function.",
            ) from error
        self.count = sum(len(pack) for _, pack in self._packs)

    def draft(self, options: Options) -> Draft:
        """The job that makes the calls: an array with a task per value."""
        if not self.count:
            raise HansaError(FUNCTION, "There is no value to call the function with.")
        root = Path(self._folder.name)
        python = "python3" if options.image else sys.executable  # an image has its own
        command = [python, f"{FOLDER}/run.py", "{i}"]
        draft = prepare(command, replace(options, array=Array(self.count), outputs=[RESULT], scan=False), Path.cwd())
        draft.shared += [source(root / name, f"{FOLDER}/{name}") for name in ("run.py", "function.pkl")]
        own: list[list[Source]] = draft.per_task or [[] for _ in range(self.count)]
        for path, indices in self._packs:
            pack = source(path, f"{FOLDER}/values.pkl")
            for index in indices:
                own[index].append(pack)
        draft.per_task = own
        return draft

    def close(self) -> None:
        self._folder.cleanup()

    def _pack(self, root: Path, values: Iterable[Any], dump: Callable[[Any], bytes]) -> list[tuple[Path, list[int]]]:
        packs: list[tuple[Path, list[int]]] = []
        pack: dict[int, bytes] = {}
        size = 0

        def close() -> None:
            path = root / f"values-{len(packs)}.pkl"
            path.write_bytes(pickle.dumps(pack))
            packs.append((path, list(pack)))

        for index, value in enumerate(values):
            data = dump(value)
            if pack and size + len(data) > PACK_BYTES:
                close()
                pack, size = {}, 0
            pack[index] = data
            size += len(data)
        if pack:
            close()
        return packs


class RemoteTraceback(Exception):
    """The traceback of an exception where it happened; the cause of the exception that is raised here."""

    def __str__(self) -> str:
        return "\n" + "".join(self.args)


def returned(job: Job) -> Operation[list[Any]]:
    """What the calls returned, in order. Raises the exception of the first call that raised one."""
    tasks: list[Task] = []
    after = None
    while True:
        page = yield from job_api.tasks(job.number, after, 1_000)
        tasks += page.items
        after = page.next
        if after is None:
            break
    results = []
    for task in sorted(tasks, key=lambda one: one.index):
        result = yield from one_returned(job, task)
        results.append(result)
    return results


def one_returned(job: Job, task: Task) -> Operation[Any]:
    """What one call returned; raises what it raised."""
    if task.phase != Phase.DONE and (task.exit_code != 1 or task.outcome not in (None, "exited")):
        raise _broken(job, task)
    pieces: list[bytes] = []
    try:
        yield from job_api.download(job.number, task.index, RESULT, pieces.append, pieces.clear)
    except HansaError as error:
        if task.phase == Phase.DONE:
            raise
        raise _broken(job, task) from error
    is_good, value, text = pickle.loads(b"".join(pieces))  # noqa: S301 - written by the caller's own function
    if is_good is None:
        raise HansaError(
            FUNCTION,
            f"The call with value {task.index} was not made: {value}.",
            hint="Functions need the same Python (3.11 and 3.12 differ) with cloudpickle where they run: choose sites "
            "or an image that have it, or run this program with their Python.",
        )
    if not is_good:
        raise value from RemoteTraceback(text)
    return value


def _broken(job: Job, task: Task) -> HansaError:
    return HansaError(
        FUNCTION,
        f"The call with value {task.index} did not end: {task.message or f'exit code {task.exit_code}'}.",
        hint=f"Look at: hansa job logs {job.number}.{task.index}",
    )


def rows_of(values: Sequence[Any]) -> Array:
    """An array with a row per value: mappings give names, others are ``{}`` (named ``value``)."""
    if not values:
        raise HansaError(FUNCTION, "There is no value to run the command with.")
    if isinstance(values[0], dict):
        names = [str(name) for name in values[0]]
        if any(not isinstance(value, dict) or list(map(str, value)) != names for value in values):
            raise HansaError(FUNCTION, "The values have different names.", hint=f"The first: {names}")
        return Array(len(values), 0, names, [[str(item) for item in value.values()] for value in values])
    return Array(len(values), 0, ["value"], [[str(value)] for value in values])
