"""What all tests share."""

from __future__ import annotations

import os
from typing import Any

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG as HTTPX_TIMEOUT
from hypothesis import HealthCheck, settings

from tests.support.groups import Scheduler, arrange

pytest_plugins = ["tests.support.leftovers", "tests.support.postgres", "tests.support.openstack.fixtures"]


for _part in ("connect", "read", "write", "pool"):  # five seconds are not enough on a busy computer
    setattr(HTTPX_TIMEOUT, _part, 120.0)

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """With several processes: what shares a server runs in one of them."""
    return Scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that take minutes are run where somebody asks for them."""
    if hasattr(config, "workerinput"):  # one of several processes
        arrange(items)
    if os.environ.get("HANSA_TEST_LONG"):
        return
    skip = pytest.mark.skip(reason="takes minutes: make test-long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
