"""The room of jobs over each dialect."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.kernel.database import Database
from hansa.kernel.settings import JobSettings
from tests.support.jobworld import World


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await World(database, tmp_path, job=JobSettings(crash_limit=2, node_retries=2)).open()
