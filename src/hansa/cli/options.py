"""The options that say what a job is: the same for ``hansa run`` and ``hansa job submit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hansa.cli import completion
from hansa.client.draft import Options, parse_env

prefer_site = click.option(
    "--prefer-site",
    "preferred_sites",
    multiple=True,
    metavar="SITE",
    shell_complete=completion.sites,
    help="Rather there; the first one most.",
)
near_data = click.option(
    "--near-data", multiple=True, metavar="NAME", help="A data set that is better at the site, or in its country."
)
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
    click.option("--per-file", metavar="GLOB", help="Run a task for each file that matches; {file} is its path."),
    click.option("--cores", type=int, metavar="N", help="Cores of each task. [default: 1]"),
    click.option("--memory", metavar="SIZE", help="Memory of each task: 512M, 2G, 1024 (MiB). [default: 1G]"),
    click.option(
        "--time",
        "wall_time",
        metavar="TIME",
        help="Wall time of each task: 30m, 2h, 1-00:00:00. [default: 1h]",
    ),
    click.option("--gpus", type=int, default=0, metavar="N", help="GPUs of each task."),
    click.option("--gpu-model", metavar="NAME", help="Part of the name of the GPUs: A100."),
    click.option("--gpu-memory", metavar="SIZE", help="Memory of each GPU: 40G."),
    click.option("--disk", metavar="SIZE", help="Free disk that the node must have: 20G."),
    click.option("--whole-node", is_flag=True, help="Each task has a node, or a pilot, to itself."),
    click.option(
        "--site",
        "sites",
        multiple=True,
        metavar="SITE",
        shell_complete=completion.sites,
        help="Run only there; several: at one of them. [default: Hansa chooses]",
    ),
    click.option(
        "--ban-site", "banned_sites", multiple=True, metavar="SITE", shell_complete=completion.sites, help="Not there."
    ),
    prefer_site,
    click.option(
        "--nodes", type=int, default=1, metavar="N", help="Nodes of each task, as for MPI; the rest is of each."
    ),
    click.option(
        "--batch",
        "batch",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="An option for the batch system: partition=long, account=physics, qos=high, constraint=ib.",
    ),
    click.option(
        "--mount",
        "mounts",
        multiple=True,
        metavar="SITE:PATH",
        help="Use a path of a site, as mycluster:/scratch/x; runs only there.",
    ),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="What the site must offer by name."),
    click.option("--data", multiple=True, metavar="NAME", help="A data set that must be at the site."),
    near_data,
    click.option(
        "--platform",
        "platform",
        multiple=True,
        metavar="WHAT",
        help="el9, debian12, x86_64, glibc=2.28 or a processor's avx2.",
    ),
    click.option("--group", metavar="NAME", help="Name of a set of jobs that it belongs to."),
    click.option("--label", "labels", multiple=True, metavar="K=V", help="A word of your own to find the job by."),
    click.option("--comment", metavar="TEXT", help="A remark for people."),
    click.option("--vo-group", metavar="GROUP", help="Group of the VO for whose share it runs."),
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
    click.option("--retries", "--retry", type=int, default=0, metavar="N", help="Run a failed task again, so often."),
    click.option("--retry-on", default="", metavar="CODES", help="Only after these exit codes: 75,137."),
    click.option("--backoff", metavar="TIME", help="Wait before a retry, each time twice as long: 30s."),
    click.option("--crash-limit", type=int, metavar="N", help="Stop a task under which N pilots died. [default: 3]"),
    click.option(
        "--checkpoint", metavar="DIR", help="A folder that is kept across attempts; HANSA_CHECKPOINT is its path."
    ),
    click.option("--checkpoint-every", metavar="TIME", help="How often it is saved meanwhile. [default: 5m]"),
    click.option("--hold", is_flag=True, help="Wait for: hansa job release."),
    click.option("--after", type=int, multiple=True, metavar="JOB", help="Wait until JOB has begun."),
    click.option("--after-ok", type=int, multiple=True, metavar="JOB", help="Wait until JOB is done."),
    click.option("--after-any", type=int, multiple=True, metavar="JOB", help="Wait until JOB has ended."),
    click.option("--deadline", metavar="WHEN", help="Kill it if it has not ended by then: 6h, 2026-12-01T08:00."),
    click.option(
        "--notify", multiple=True, metavar="WHO", help="Tell ada@example.org, or POST to https://…, when it has ended."
    ),
    click.option(
        "--notify-on", default="ended", metavar="WHEN", help="started, done, failed, killed. [default: ended]"
    ),
    click.option(
        "--signal", "warn", metavar="SIG@S", help="Send a signal S seconds before the wall time is over: USR1@60."
    ),
    click.option(
        "--image",
        metavar="IMAGE",
        help="Run in a container of this image: docker://python:3.12-slim, any OCI or Docker registry.",
    ),
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
    "gpu_model",
    "gpu_memory",
    "disk",
    "whole_node",
    "nodes",
    "batch",
    "mounts",
    "sites",
    "banned_sites",
    "preferred_sites",
    "tags",
    "data",
    "near_data",
    "platform",
    "group",
    "labels",
    "comment",
    "vo_group",
    "vo",
    "inputs",
    "outputs",
    "workdir",
    "setup",
    "image",
    "retries",
    "retry_on",
    "backoff",
    "crash_limit",
    "hold",
    "after",
    "after_ok",
    "after_any",
    "deadline",
    "warn",
    "checkpoint",
    "checkpoint_every",
    "notify",
    "notify_on",
    "per_file",
    "priority",
)
