"""What every benchmark shares: a row of the table, medians, budgets, and the facts of the machine."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from hansa.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CORES = 2
"""Of the machine that the budgets are about; every contender gets so many, on a larger machine too."""


class Better(StrEnum):
    """Which way is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was done, how Hansa did, how its peers did in the same run."""

    work: str
    unit: str
    better: Better
    hansa: float
    peers: dict[str, float] = field(default_factory=dict)
    budget: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    """For the JSON: single runs, how a peer was used, CPU time by process."""

    def ratio(self, peer: str) -> float:
        """How many times better Hansa is than this peer."""
        theirs = self.peers[peer]
        return self.hansa / theirs if self.better is Better.HIGHER else theirs / self.hansa

    @property
    def is_met(self) -> bool | None:
        """Whether the budget is kept; None where there is none."""
        if self.budget is None:
            return None
        return self.hansa >= self.budget if self.better is Better.HIGHER else self.hansa <= self.budget


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def seconds_of(call: Callable[[], object], runs: int, warm_up: int = 1) -> list[float]:
    """How long each of ``runs`` calls takes, after some that do not count."""
    for _ in range(warm_up):
        call()
    return [seconds(call) for _ in range(runs)]


def median(values: list[float]) -> float:
    return statistics.median(values)


def rounded(value: float) -> float:
    """Four significant digits: the machine gives no more."""
    return round(value, 3 - math.floor(math.log10(abs(value)))) if value else 0.0


def command_seconds(command: list[str], runs: int, environ: dict[str, str] | None = None) -> list[float]:
    """How long a command takes from its start to its end, in a quiet directory. It must succeed."""

    def once() -> None:
        subprocess.run(command, check=True, capture_output=True, env=environ, timeout=120)

    return seconds_of(once, runs)


def facts() -> dict[str, Any]:
    """What one must know to compare two runs."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "hansa": __version__,
        "commit": commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_mib": psutil.virtual_memory().total // 1024**2,
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def _git(*words: str) -> str:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


def used_by_others() -> float:
    """The share of the machine's CPU time that is in use, looked at while nothing of ours runs: the noise."""
    return round(psutil.cpu_percent(interval=1.0) / 100, 2)
