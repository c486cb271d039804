"""One job that does nothing on a warm local server: from the command to the next prompt."""

from __future__ import annotations

import shutil
import subprocess

from benchmarks.embedded import embedded, hansa_command
from benchmarks.harness import Better, Row, command_seconds, median, rounded, used_by_others

BUDGET_S = 0.3
TASK = ["/bin/true"]
SLURM = {
    "srun": ["srun", "--quiet", *TASK],
    "sbatch --wait": ["sbatch", "--quiet", "--wait", "--output=/dev/null", "--wrap=/bin/true"],
}


def _has_slurm() -> bool:
    """Whether a Slurm of this computer answers."""
    found = shutil.which("sinfo")
    return found is not None and subprocess.run([found], capture_output=True, timeout=30, check=False).returncode == 0


def run(quick: bool) -> list[Row]:
    """The median of 20, beside a shell, and Slurm where it is installed and answers."""
    runs = 5 if quick else 20
    noise = used_by_others()
    with embedded() as server:
        server.warm_up()
        took = command_seconds([*hansa_command(), "run", "--", *TASK], runs, server.environ())
    peers = {"bash -c": command_seconds(["bash", "-c", "/bin/true"], runs)}
    if _has_slurm():
        peers |= {name: command_seconds(command, min(runs, 10)) for name, command in SLURM.items()}
    return [
        Row(
            work="one no-op job on a warm local server, command to prompt",
            unit="s",
            better=Better.LOWER,
            hansa=rounded(median(took)),
            peers={name: rounded(median(values)) for name, values in peers.items()},
            budget=BUDGET_S,
            detail={
                "runs": [rounded(value) for value in took],
                "used_by_others": noise,
                "slurm": "installed" if len(peers) > 1 else "none answers here",
            },
        )
    ]
