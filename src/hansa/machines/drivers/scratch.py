"""Folders for work under way: gone afterwards, also where the process that worked there was killed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hansa.machines.drivers.nspawn.helper.tools import started_at

_MARK = ".work"


def clear(parent: Path) -> None:
    """Remove what processes left in ``parent`` that are gone."""
    for path in parent.glob(f"{_MARK}-*-*"):
        pid = int(path.name.split("-")[1])
        if started_at(pid) is None:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` of this process alone."""
    clear(parent)
    work = parent / f"{_MARK}-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir(parents=True, mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
