"""``container`` commands on a real store with a real image, as root and as an ordinary user."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes import Box, make_box, ordinary_user

DEADLINE_S = 180.0
MAIN = "import sys; from hansa.node.containers.commands import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Home:
    """One user with a store."""

    box: Box
    store: Path

    def command(self, *words: str) -> list[str]:
        return [self.box.python, "-c", MAIN, "--store", str(self.store), *words]

    def start(self, *words: str, streams: Any = None, **env: str) -> subprocess.Popen[str]:
        return self.box.popen(self.command(*words), streams, **env)

    def __call__(self, *words: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return finish(self.start(*words, **env), words, text)

    def well(self, *words: str, text: str = "", **env: str) -> str:
        """The output of a command that must succeed."""
        done = self(*words, text=text, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def finish(process: subprocess.Popen[str], words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(text, timeout=DEADLINE_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(list(words), process.returncode, out, err)


@pytest.fixture(scope="session", params=["root", "user"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if os.geteuid() != 0:
        pytest.skip("needs root: for a user of its own, and as the other case")
    with tempfile.TemporaryDirectory(prefix=f"hansa-{os.environ.get('HANSA_TEST_RUN', 'x')[:8]}-") as name:
        if request.param == "root":
            yield make_home(make_box(Path(name), None))
            return
        with ordinary_user() as user:
            yield make_home(make_box(Path(name), user))


def make_home(box: Box) -> Home:
    """A store with the image ``box``, made by the user."""
    archive = box.place / "box.tar"
    with tarfile.open(archive, "w") as stream:
        stream.add(box.layers[0], ".")
    archive.chmod(0o644)
    home = Home(box, box.directory() / "store")
    home.well("import", str(archive), "box:1")
    return home
