"""A test that forgets a process fails the run, and the process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]

FORGETFUL = """
import pathlib, subprocess

def test_forgets(tmp_path):
    for name, environment in {"known": None, "bare": {}}.items():
        process = subprocess.Popen(["sleep", "300"], env=environment, cwd=tmp_path, start_new_session=True)
        pathlib.Path("PIDS", name).write_text(str(process.pid))
        process.returncode = 0  # no warning about a child that still runs
"""


def test_forgotten_processes_are_found_by_their_environment_and_by_their_directory(tmp_path: Path) -> None:
    test = tmp_path / "test_forgets.py"
    test.write_text(FORGETFUL.replace("PIDS", str(tmp_path)))
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.leftovers", "--rootdir", str(tmp_path)]
    command += ["-c", os.devnull, "--basetemp", str(tmp_path / "basetemp"), str(test)]
    environment = os.environ | {"HANSA_TEST_GRACE_S": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    for name in ("known", "bare"):
        pid = int((tmp_path / name).read_text())
        assert f"pid {pid}: sleep 300" in done.stdout
        assert is_gone(pid)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
