"""What all tests share."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.support.leftovers", "tests.support.postgres", "tests.support.openstack.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take minutes are run where somebody asks for them."""
    if os.environ.get("HANSA_TEST_LONG"):
        return
    skip = pytest.mark.skip(reason="takes minutes: make test-long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
