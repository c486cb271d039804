"""Options for batch systems that jobs may bring along. Pure.

A job's options become words of a command line, under an account that several users may share. So only options are taken
that choose where and how a batch job runs; none that write files, run something else, or say what Hansa says itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TAKEN = frozenset(
    {
        "account", "batch-features", "begin", "bbf", "cluster-constraint", "clusters", "constraint", "contiguous",
        "core-spec", "cores-per-socket", "cpu-freq", "deadline", "delay-boot", "distribution", "exclude", "exclusive",
        "extra-node-info", "gpu-bind", "gpu-freq", "gres-flags", "hint", "licenses", "mcs-label", "mem-bind", "network",
        "nice", "nodelist", "no-kill", "overcommit", "partition", "power", "prefer", "priority", "qos", "reservation",
        "sockets-per-node", "spread-job", "switches", "thread-spec", "threads-per-core", "tmp", "use-min-nodes",
        "wckey",
    }
)  # fmt: skip
"""By the long names that sbatch has for them."""
EXCLUSIVE = "--exclusive"
"""The word that gives a batch job its node to itself."""
OURS = frozenset(
    {
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "cpus-per-task",
        "mem",
        "mem-per-cpu",
        "time",
        "gres",
        "gpus",
        "gpus-per-node",
    }
)
"""What Hansa says itself, from what a task needs."""


def batch_words(options: Mapping[str, str]) -> list[str]:
    """Options as words of a command line: ``--partition=long``, ``--exclusive``."""
    return [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(options.items())]


def options_from(words: Sequence[str]) -> dict[str, str]:
    """The inverse of :func:`batch_words`."""
    parts = [word.removeprefix("--").partition("=") for word in words]
    return {name: value for name, _, value in parts}


def problem_of(options: Mapping[str, str]) -> str | None:
    """What is wrong with a job's options; None: nothing."""
    for name, value in options.items():
        if name in OURS:
            return f"the option {name!r} of the batch system follows from cores, memory, wall time, GPUs and nodes"
        if name not in TAKEN:
            return f"the option {name!r} of the batch system is none that jobs may give"
        if any(not character.isprintable() for character in value):
            return f"the option {name!r} of the batch system has a value with characters that cannot be printed"
    return None


def option_of(words: tuple[str, ...], name: str) -> str | None:
    """The value of an option among words."""
    start = f"--{name}="
    return next((word.removeprefix(start) for word in reversed(words) if word.startswith(start)), None)
