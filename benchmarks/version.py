"""``hansa --version``: what every command pays before it does anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.embedded import environ, hansa_command
from benchmarks.harness import Better, Row, command_seconds, median, rounded, used_by_others

BUDGET_S = 0.1
INSTALL_S = 120


def run(quick: bool) -> list[Row]:
    """Beside the interpreter alone, and udocker's, which is installed for it where that can be done."""
    runs = 5 if quick else 20
    noise = used_by_others()
    with tempfile.TemporaryDirectory(prefix="hansa-bench-version-") as folder:
        took = command_seconds([*hansa_command(), "--version"], runs, environ())
        peers = {"python -c pass": command_seconds([sys.executable, "-c", "pass"], runs)}
        udocker = install_udocker(Path(folder))
        if udocker is not None:
            own = {**os.environ, "UDOCKER_DIR": f"{folder}/udocker", "HOME": folder}
            peers["udocker version"] = command_seconds([str(udocker), "--allow-root", "version"], runs, own)
    return [
        Row(
            work="hansa --version",
            unit="s",
            better=Better.LOWER,
            hansa=rounded(median(took)),
            peers={name: rounded(median(values)) for name, values in peers.items()},
            budget=BUDGET_S,
            detail={"runs": [rounded(value) for value in took], "used_by_others": noise},
        )
    ]


def install_udocker(folder: Path) -> Path | None:
    """Its command in an environment of its own; None without uv or without a registry."""
    uv = shutil.which("uv")
    if uv is None:
        return None
    place = folder / "venv"
    steps = (
        [uv, "venv", "--quiet", "--python", sys.executable, str(place)],
        [uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "udocker"],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError):
        return None
    return place / "bin" / "udocker"
