"""Users with homes of their own; whatever server they start is stopped at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clear import assert_none_in_clear
from tests.support.cli import Desk


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(name: str = "home", **environ: str) -> Desk:
        folder = tmp_path / f"{name}-work"
        folder.mkdir(exist_ok=True)
        desk = Desk(tmp_path / name, folder, environ)
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        if (desk.home / "run").exists():
            desk.hansa("down")
        assert_none_in_clear(desk.home)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
