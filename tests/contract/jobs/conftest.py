"""The room of jobs over each dialect."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.jobs import tallies
from hansa.kernel.database import Database
from hansa.kernel.settings import JobSettings
from tests.support.jobworld import World


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await World(database, tmp_path, job=JobSettings(crash_limit=2, node_retries=2)).open()


@pytest.fixture(autouse=True)
def tallied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of small arrays are tallied, too: so every test here tests the tallies."""
    monkeypatch.setattr(tallies, "DIRECT", 4)
    monkeypatch.setattr(tallies, "BLOCK", 4)
