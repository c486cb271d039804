"""Which tests may run at the same time: a group runs in one process, one test after another.

With `pytest -n 2` (what `make test` does) a group is given to a process as a whole, in the order of ``SHARED``. So a
server that tests share is started once, whoever looks at the whole computer (processes, mounts, bridges) has nobody
beside him who does the same, and what takes longest begins first. Tests of no group named here are a group per file.

Groups go by the names of tests, by a scheduler of our own: xdist's mark for groups has no effect from pytest 9.1 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

SHARED: tuple[tuple[str, Sequence[str]], ...] = (
    ("openstack", ("tests/integration/openstack",)),
    ("slurm", ("tests/integration/batch", "tests/contract/drivers")),
    ("machines", ("tests/integration/machines", "tests/contract/machines", "tests/contract/images")),
    ("containers", ("tests/integration/containers",)),
    ("images", ("tests/integration/node/containers",)),
    ("engines", ("tests/contract/containers",)),
    ("portal", ("tests/acceptance/portal", "tests/integration/support/test_browser.py")),
)
"""Groups, and the paths whose tests they hold."""

_THEN = ("tests/integration/server", "tests/integration", "tests/acceptance", "tests/contract", "tests")
"""The order of all others: what takes long before what takes short, so that both processes end together."""


def group_of(test: str) -> str:
    """The group of a test, by its node id."""
    path = test.partition("::")[0]
    if "[openstack" in test and path.startswith("tests/contract/"):
        return "openstack"
    return next((name for name, paths in SHARED if _is_below(path, paths)), path)


def rank(group: str) -> int:
    """Smaller is earlier."""
    names = [name for name, _ in SHARED]
    if group in names:
        return names.index(group)
    return len(names) + next(place for place, path in enumerate(_THEN) if _is_below(group, (path,)))


def arrange(items: list[pytest.Item]) -> None:
    """Put the tests of a group together; what takes long comes first."""
    first: dict[str, int] = {}
    for place, item in enumerate(items):
        first.setdefault(group_of(item.nodeid), place)
    items.sort(key=lambda item: (rank(group_of(item.nodeid)), first[group_of(item.nodeid)]))


def _is_below(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives groups to processes, in the order in which the processes have arranged them."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
