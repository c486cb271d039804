"""Nothing may be left running after the tests: a plugin that looks, tells, cleans up and fails the run.

Every process that the tests start inherits the environment variable HANSA_TEST_RUN. A process belongs to the run if it
has that value in its environment, or works in a directory of the run (some programs overwrite their environment).
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

RUN_VARIABLE = "HANSA_TEST_RUN"
GRACE_S = float(os.environ.get("HANSA_TEST_GRACE_S") or 30)
"""What ends by itself within this time was on its way out."""


def leftovers(run: str, directories: Iterable[Path]) -> list[psutil.Process]:
    """The processes of a run that are alive, without this one and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    places = tuple(str(directory) for directory in directories)
    return [process for process in psutil.process_iter() if process.pid not in own and belongs(process, run, places)]


def belongs(process: psutil.Process, run: str, places: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
    with contextlib.suppress(psutil.Error, OSError):
        if process.environ().get(RUN_VARIABLE) == run:
            return True
    with contextlib.suppress(psutil.Error, OSError):
        where = process.cwd() + "/"
        return f"-{run[:8]}-" in where or any(where.startswith(place + "/") for place in places)
    return False


def wait_for_none(run: str, directories: list[Path]) -> list[psutil.Process]:
    deadline = time.monotonic() + GRACE_S
    found = leftovers(run, directories)
    while found and time.monotonic() < deadline:
        time.sleep(0.1)
        found = leftovers(run, directories)
    return found


def describe(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid}: {' '.join(process.cmdline())[:200] or process.name()}"
    except psutil.Error:
        return f"pid {process.pid}"


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):
        os.environ[RUN_VARIABLE] = uuid.uuid4().hex


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The session's fixtures are down by now, and so are the workers of xdist."""
    if is_worker(session.config):
        return
    factory = getattr(session.config, "_tmp_path_factory", None)
    directories = [factory.getbasetemp()] if factory is not None else []
    found = wait_for_none(os.environ[RUN_VARIABLE], directories)
    if not found:
        return
    session.config.stash[FOUND] = [describe(process) for process in found]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil makes sure that the pid is still that process
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


FOUND = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(FOUND, [])
    if found:
        terminalreporter.section("left running by the tests (and killed now)", red=True)
        for line in found:
            terminalreporter.line(line)
