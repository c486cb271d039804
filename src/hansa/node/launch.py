"""From a leased task to a command for the spawner: directory, arguments, environment."""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .config import Places
from .core import Job, Task
from .files import Cache, lay_out
from .images import Shelf
from .logs import Stream
from .outbox import Speaker
from .protocol import File, JobOrder, PilotConfig
from .spawner import MARK
from .template import Template, values_of
from .workers import is_clean

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_MIB = 1 << 20
_CLEAN_LIMIT = 256
_RUN_SHELL = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hansa.node.shell import main; sys.exit(main(sys.argv[2:]))"
)
_RUN_IMAGE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hansa.node.containers.task import main;"
    " sys.exit(main(sys.argv[2:]))"
)


class Recipe(NamedTuple):
    """What all tasks of a job share, prepared once."""

    command: List[Template]
    fixed_env: Dict[str, str]
    job_env: List[Tuple[str, Template]]
    names: List[str]
    is_constant: bool  # command and environment are the same for every task


def user_env(environ: Mapping[str, str], keep: Sequence[str] = ()) -> Dict[str, str]:
    """The little of the pilot's environment that tasks get; of ``keep`` all that begins so."""
    try:
        entry: Optional[pwd.struct_passwd] = pwd.getpwuid(os.getuid())
    except KeyError:
        entry = None
    kept = {name: value for name, value in environ.items() if any(name.startswith(word) for word in keep)}
    return {
        **kept,
        "PATH": environ.get("PATH") or DEFAULT_PATH,
        "HOME": environ.get("HOME") or (entry.pw_dir if entry else "/"),
        "USER": entry.pw_name if entry else str(os.getuid()),
        "LANG": environ.get("LANG") or "C.UTF-8",
        "SHELL": "/bin/sh",
    }


class Launcher:
    """Prepares tasks. ``cpus``: the numbers of the cores that tasks are bound to, None where they are not."""

    def __init__(
        self,
        config: PilotConfig,
        places: Places,
        cache: Cache,
        base_env: Mapping[str, str],
        shelf: Shelf,
        *,
        is_bound: bool,
    ) -> None:
        self._pilot = config.pilot
        self._has_gpus = bool(config.gpus)
        self._places = places
        self._shelf = shelf
        self._cache = cache
        self._base_env = dict(base_env)
        self._is_bound = is_bound
        self._recipes: Dict[int, Recipe] = {}
        self._clean: List[str] = []

    def forget(self, job: int) -> None:
        """The job's node directory has changed."""
        self._recipes.pop(job, None)

    def command(self, task: Task) -> Tuple[Any, ...]:
        """The spawner's command for a task whose directory is made."""
        order = task.job.order
        argv, env = self._words(task)
        if order.image:
            argv, env = self._contained(task, argv, env, task.base)
        cpus = task.cores if self._is_bound else None
        return ("run", task.serial, argv, env, task.base, task.base + "/work", cpus, data_limit_bytes(order))

    def beside(self, task: Task, serial: int, base: str, words: List[str]) -> Tuple[Any, ...]:
        """The spawner's command for a shell in a task's directory and environment, in its image. ``words``: see
        shell.py; ``base`` is a directory of the shell's own. OSError: disk."""
        order = task.job.order
        _, env = self._words(task)
        env[MARK] = str(serial)
        door, rows, columns, term, *argv = words
        if order.image:
            argv, env = self._contained(task, argv, {**env, **({} if term == "-" else {"TERM": term})}, base)
        shell = [sys.executable, "-I", "-S", "-c", _RUN_SHELL, self._places.runtime, door, rows, columns, term, *argv]
        cpus = task.cores if self._is_bound else None
        return ("run", serial, shell, env, base, task.base + "/work", cpus, data_limit_bytes(order))

    def _words(self, task: Task) -> Tuple[List[str], Dict[str, str]]:
        """Arguments and environment of a task."""
        order = task.job.order
        recipe = self._recipes.get(order.number)
        if recipe is None:
            recipe = self._recipes[order.number] = self._recipe(task.job)
        env = {
            **recipe.fixed_env,
            "TMPDIR": task.base + "/tmp",
            "HANSA_TASK": str(task.index),
            "HANSA_ATTEMPT": str(task.attempt),
            MARK: str(task.serial),
        }
        if order.checkpoint is not None and not task.is_setup:
            env["HANSA_CHECKPOINT"] = f"{task.base}/work/{order.checkpoint}"
        if task.is_setup:
            del env["HANSA_TASK"], env["HANSA_ATTEMPT"]
        if self._has_gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(task.gpus)
        if recipe.is_constant:
            argv = [part.text for part in recipe.command]
            env.update((name, value.text) for name, value in recipe.job_env)
        else:
            values = self.values(task)
            argv = [part.render(values) for part in recipe.command]
            env.update((name, value.render(values)) for name, value in recipe.job_env)
        if task.is_setup:
            argv = ["/bin/sh", "-c", "exec 2>&1\n" + (order.setup or "")]
        return argv, env

    def _recipe(self, job: Job) -> Recipe:
        order = job.order
        threads = str(order.cores)
        fixed = {
            **(self._base_env if order.image is None else self._image_env(order.image)),
            **dict.fromkeys(_THREADS, threads),
            "HANSA_PILOT": self._pilot,
            "HANSA_JOB": str(order.number),
            "HANSA_CORES": threads,
            "HANSA_MEMORY_MIB": str(order.memory_mib),
        }
        if job.setup_dir is not None:
            fixed["HANSA_NODE_DIR"] = job.setup_dir
        command = [Template(part) for part in order.command]
        env = [(name, Template(value)) for name, value in order.env.items()]
        is_constant = all(part.is_constant for part in command) and all(value.is_constant for _, value in env)
        return Recipe(command, fixed, env, order.names, is_constant)

    def _image_env(self, image: str) -> Dict[str, str]:
        """The image's variables in the place of the host's."""
        ready = self._shelf.ready(image)
        return {"LANG": "C.UTF-8", **(ready.info["env"] if ready is not None else {})}

    def _contained(
        self, task: Task, argv: List[str], env: Dict[str, str], place: str
    ) -> Tuple[List[str], Dict[str, str]]:
        """The command that runs ``argv`` in the job's image, set up in the directory ``place``. OSError: disk.

        The task's own directories are in the container where they are outside, so that all paths mean the same;
        but /tmp is the task's.
        """
        image = task.job.order.image or ""
        ready = self._shelf.ready(image)
        if ready is None:
            raise OSError(2, f"the container image {image} is not here any more")
        base, info = task.base, ready.info
        container, home = place + "/container", base + "/home"
        os.mkdir(container, 0o700)
        os.makedirs(home, mode=0o700, exist_ok=True)
        work = base + "/work"
        binds = [*info["binds"], [base + "/tmp", "/tmp", False, False]]  # first: the others may lie below /tmp
        binds += [[path, path, False, False] for path in (work, home)]
        binds += [[path, path, False, False] for path in task.job.order.mounts]
        if task.job.setup_dir is not None and not task.is_setup:
            binds.append([task.job.setup_dir, task.job.setup_dir, False, False])
        order = {
            "layers": info["layers"],
            "argv": argv,
            "env": {"HOME": home, **env, "TMPDIR": "/tmp"},
            "cwd": work,
            "uid": info["uid"],
            "gid": info["gid"],
            "groups": info["groups"],
            "files": info["files"],
            "binds": binds,
            "has_gpu": bool(task.gpus),
            "engines": self._places.engines,
        }
        spec = container + "/spec.json"
        with os.fdopen(os.open(spec, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(order, stream)
        words = [sys.executable, "-I", "-S", "-c", _RUN_IMAGE, self._places.runtime, spec]
        outside: Dict[str, str] = {name: self._base_env[name] for name in ("PATH", "HOME") if name in self._base_env}
        if "CUDA_VISIBLE_DEVICES" in env:
            outside["CUDA_VISIBLE_DEVICES"] = env["CUDA_VISIBLE_DEVICES"]
        return words, {**outside, MARK: env[MARK]}

    def values(self, task: Task) -> Dict[str, str]:
        """What the placeholders stand for."""
        order = task.job.order
        return values_of(
            job=order.number,
            index=task.index if order.array and not task.is_setup else None,
            names=order.names,
            row=task.row.values if task.row is not None else (),
            node_dir=task.job.setup_dir,
        )

    def make_directory(self, task: Task) -> None:
        """A fresh private directory: ``work`` (where it runs), ``tmp``, and beside them its logs. OSError:
        disk."""
        if self._clean:
            task.base = self._clean.pop()
        else:
            task.base = f"{self._places.tasks}/{task.serial}"
            os.mkdir(task.base, 0o700)
            os.mkdir(task.base + "/work", 0o700)
            os.mkdir(task.base + "/tmp", 0o700)
        if task.job.order.checkpoint is not None and not task.is_setup:
            os.makedirs(f"{task.base}/work/{task.job.order.checkpoint}", mode=0o700)

    def reuse(self, base: str) -> bool:
        """Keep the directory of a task that has ended for another one, if it is clean. Else it is to be
        removed."""
        if len(self._clean) >= _CLEAN_LIMIT or not is_clean(base):
            return False
        self._clean.append(base)
        return True

    def lay_inputs(self, task: Task) -> None:
        """Put the inputs into its directory. InputError or OSError."""
        task.inputs = lay_out(self._cache, inputs_of(task), task.base + "/work")

    def open_streams(self, task: Task) -> None:
        """Begin to follow a task's logs."""
        limit = task.job.order.log_limit_bytes
        streams = [Stream(name, f"{task.base}/{name}", limit) for name in ("stdout", "stderr")]
        if task.speaker is None:
            task.speaker = Speaker(task.lease, task.index, streams)
        else:
            task.speaker.streams.extend(streams)

    def open_setup_stream(self, setup: Task, speaker: Task) -> None:
        """Follow a setup's log, told in the name of a task that waits for it."""
        stream = Stream("setup", setup.base + "/stdout", setup.job.order.log_limit_bytes)
        if speaker.speaker is None:
            speaker.speaker = Speaker(speaker.lease, speaker.index, [])
        speaker.speaker.streams.append(stream)


def inputs_of(task: Task) -> List[File]:
    """The job's inputs and, unless it is a setup, the task's own."""
    own = task.row.inputs if task.row is not None else []
    return [*task.job.order.inputs, *own]


def data_limit_bytes(order: JobOrder) -> int:
    """RLIMIT_DATA: a backstop for what grows faster than memory is sampled. Address space, so with ample
    room."""
    return 2 * order.memory_mib * _MIB + 1024 * _MIB
