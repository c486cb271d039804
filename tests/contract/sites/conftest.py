"""The world of sites on both dialects."""

from __future__ import annotations

import pytest

from hansa.kernel.database import Database
from tests.support.siteworld import SiteWorld


@pytest.fixture
async def world(database: Database) -> SiteWorld:
    return await SiteWorld(database).start()
