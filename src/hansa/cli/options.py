"""The options that say what a job is: the same for ``hansa run`` and ``hansa job submit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hansa.cli import completion
from hansa.client.draft import Options, parse_env

DECORATORS = (
    click.option("--name", metavar="NAME", help="A name for people."),
    click.option(
        "--array",
        metavar="TASKS",
        help="Run a task for each index: 0-199, 1,5,9 or 0-100:10. {i} is the index.",
    ),
    click.option(
        "--params",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Run a task for each row of a .csv, .tsv or .jsonl file. {NAME} is the value of column NAME.",
    ),
    click.option("--cores", type=int, metavar="N", help="Cores of each task. [default: 1]"),
    click.option("--memory", metavar="SIZE", help="Memory of each task: 512M, 2G, 1024 (MiB). [default: 1G]"),
    click.option(
        "--time",
        "wall_time",
        metavar="TIME",
        help="Wall time of each task: 30m, 2h, 1-00:00:00. [default: 1h]",
    ),
    click.option("--gpus", type=int, default=0, metavar="N", help="GPUs of each task."),
    click.option(
        "--site",
        metavar="SITE",
        shell_complete=completion.sites,
        help="Run only there. [default: Hansa chooses]",
    ),
    click.option("--vo", metavar="VO", help="Virtual organisation to run for. [default: the only one]"),
    click.option(
        "--env",
        "env",
        multiple=True,
        metavar="K[=V]",
        help="A variable for the tasks. K alone: with its value here.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SRC[=DEST]",
        help="Send a file or directory; {i} and {NAME}: one per task. Files in the command go anyway.",
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="GLOB",
        help="Bring back these files. [default: all new or changed]",
    ),
    click.option(
        "--workdir",
        metavar="DIR",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Send a whole directory; .hansaignore says what stays here.",
    ),
    click.option(
        "--setup",
        metavar="CMD",
        help="A shell command, run once per node before the tasks; {node} is its directory.",
    ),
    click.option(
        "--image",
        metavar="IMAGE",
        help="Run in a container of this image: docker://python:3.12-slim, any OCI or Docker registry.",
    ),
    click.option("--retries", type=int, default=0, metavar="N", help="Run a failed task again, so often."),
    click.option(
        "--priority",
        type=int,
        default=5,
        metavar="0-10",
        help="Among your own jobs; more is earlier. [default: 5]",
    ),
)


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a job; it gets them as one ``options``."""

    @functools.wraps(function)
    def wrapper(env: tuple[str, ...], **kwargs: Any) -> Any:
        names = {name: kwargs.pop(name) for name in _NAMES}
        return function(options=Options(env=parse_env(env), **names), **kwargs)

    wrapped: Callable[..., Any] = wrapper
    for decorator in reversed(DECORATORS):
        wrapped = decorator(wrapped)
    return wrapped


_NAMES = (
    "name",
    "array",
    "params",
    "cores",
    "memory",
    "wall_time",
    "gpus",
    "site",
    "vo",
    "inputs",
    "outputs",
    "workdir",
    "setup",
    "image",
    "retries",
    "priority",
)
