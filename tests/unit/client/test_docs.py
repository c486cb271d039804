"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "client.units",
    "client.arrays",
    "client.draft",
    "client.errors",
    "client.fetch",
    "client.results",
    "cli.refs",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"hansa.{name}"), raise_on_error=True)
    assert found.attempted
