"""The suite runs for every engine, as root and as an ordinary user; where one does not work, its reason is the skip."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest

from hansa.node.containers import engines
from tests.support.boxes import Box, make_box, ordinary_user


@dataclass
class Bench:
    """One engine, in one user's hands."""

    engine: str
    box: Box

    @property
    def needs_copy(self) -> bool:
        return engines.engine(self.engine).needs_copy

    def tree(self, **options: Any) -> dict[str, Any]:
        return self.box.tree(needs_copy=self.needs_copy, **options)

    def run(self, *argv: str, tree: dict[str, Any] | None = None, text: str = "", **spec: Any) -> CompletedProcess[str]:
        return self.box.run(self.engine, tree or self.tree(is_throwaway=True), argv, text=text, **spec)

    def start(self, *argv: str, tree: dict[str, Any] | None = None, streams: Any = None, **spec: Any) -> Popen[str]:
        return self.box.start(self.engine, tree or self.tree(is_throwaway=True), argv, streams=streams, **spec)


@pytest.fixture(scope="session", params=["root", "user"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    if os.geteuid() != 0:
        pytest.skip("needs root: for a user of its own, and as the other case")
    with tempfile.TemporaryDirectory(prefix=f"hansa-{os.environ.get('HANSA_TEST_RUN', 'x')[:8]}-") as name:
        if request.param == "root":
            yield make_box(Path(name), None)
            return
        with ordinary_user() as user:
            yield make_box(Path(name), user)


@pytest.fixture(scope="session")
def verdicts(box: Box) -> dict[str, str]:
    """What ``doctor`` says as this user: engine -> reason against it."""
    place = box.directory()
    code = "import json, sys; from hansa.node.containers import engines; print(json.dumps(engines.doctor(sys.argv[1])))"
    process = box.popen([box.python, "-c", code, str(place)])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    import json

    assert not [path for path in place.iterdir() if not path.name.startswith(".engine-")]
    return {name: why for name, _, why in json.loads(out)}


@pytest.fixture(params=engines.NAMES)
def bench(request: pytest.FixtureRequest, box: Box, verdicts: dict[str, str]) -> Bench:
    why = verdicts[request.param]
    if why:
        pytest.skip(f"{request.param}: {why}")
    return Bench(request.param, box)
