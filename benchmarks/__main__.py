"""``python -m benchmarks [NAME…] [--json FILE] [--quick]``: run benchmarks, print a table, write JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Better, Row, facts
from benchmarks.table import render
from hansa.server.launch import stop_server

LIMITS_S = {
    "version": 240,
    "one_job": 240,
    "machines": 300,
    "openstack": 900,
    "placement": 120,
    "portal": 600,
    "reconcile": 300,
    "sites": 120,
    "tokens": 240,
    "exchange": 240,
    "at_hand": 600,
    "emulated": 1200,
    "submit": 240,
    "transfers": 600,
    "image_sync": 300,
    "node_noop": 300,
    "tasks": 1200,
    "slurm": 900,
    "simulate": 600,
    "matching": 3600,
    "containers": 2400,
}
"""The benchmarks, in their order, and how long each may take at most."""
PATIENCE_S = 60
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which, of: {', '.join(LIMITS_S)} [default: all]")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="once and smaller: whether it works, not how fast")
    parser.add_argument("--only", metavar="NAME", help=argparse.SUPPRESS)  # the process of one benchmark
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    if options.only:
        return _run_here(options.only, options.quick, options.json)
    unknown = sorted(set(options.names) - LIMITS_S.keys())
    if unknown:
        parser.error(f"no benchmark has the name {unknown[0]!r}; there are: {', '.join(LIMITS_S)}")
    return _run_all([name for name in LIMITS_S if name in (options.names or LIMITS_S)], options.quick, options.json)


def _leave(_number: int, _frame: types.FrameType | None) -> None:
    sys.exit("stopped")  # what was started is ended on the way out


def _run_here(name: str, quick: bool, file: Path) -> int:
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").run(quick)
    file.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    return 0


def _run_all(names: list[str], quick: bool, file: Path) -> int:
    machine = facts()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows += _run_apart(name, quick)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            failed[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)
    print(render(rows, machine))
    document = {"machine": machine, "quick": quick, "rows": [_plain(row) for row in rows], "failed": failed}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{file}", file=sys.stderr)
    return 1 if failed else 0


def _run_apart(name: str, quick: bool) -> list[Row]:
    """One benchmark in a process and a temporary folder of its own; both are gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-") as folder:
        output = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", "--only", name, "--json", str(output)]
        environment = {**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody measures a command that is compiled anew each time
        process = subprocess.Popen([*command, *(["--quick"] if quick else [])], cwd=ROOT, env=environment)
        try:
            code = process.wait(LIMITS_S[name])
        except BaseException:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        finally:
            for lock in Path(folder).glob("*/home/run/server.lock"):
                stop_server(lock.parent.parent)
        if code:
            raise subprocess.CalledProcessError(code, command)
        found = json.loads(output.read_text(encoding="utf-8"))
        return [Row(**{**row, "better": Better(row["better"])}) for row in found]


def _plain(row: Row) -> dict[str, Any]:
    return asdict(row) | {"ratios": {peer: round(row.ratio(peer), 2) for peer in row.peers}, "is_met": row.is_met}


if __name__ == "__main__":
    sys.exit(main())
