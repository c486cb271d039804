"""Where the helper keeps what it made: one folder for each calling user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from hansa.machines.drivers.nspawn.helper.tools import locked, locked_if_free, read_json, started_at
from hansa.machines.drivers.nspawn.helper.words import Refusal

UIDS, RANGE = 0x34CD0000, 65536
"""The user ids of guests: root in a machine is this user outside, and owns nothing but machines."""
UNFINISHED = "unfinished"
"""A file beside a machine whose start is not over, or was killed before it was."""
SEED = "var/lib/cloud/seed/nocloud"


class Store:
    def __init__(self, root: str) -> None:
        self.root = root
        self.lock = os.path.join(root, "lock")
        self.mark = hashlib.sha256(root.encode()).hexdigest()[:8]

    def make(self) -> None:
        """Its folders are there: root's alone."""
        for part in ("", "machines", "networks", "bases", "volumes", "work"):
            os.makedirs(os.path.join(self.root, part), mode=0o700, exist_ok=True)

    def tidy(self) -> None:
        """Remove what helpers left that were killed at work."""
        for name in self.names("work"):
            if started_at(int(name.partition("-")[0])) is None:
                shutil.rmtree(os.path.join(self.root, "work", name))

    def names(self, part: str) -> list[str]:
        return sorted(os.listdir(os.path.join(self.root, part)))

    def machine(self, key: str) -> Machine:
        return Machine(self, key)

    def network(self, name: str) -> str:
        return os.path.join(self.root, "networks", f"{name}.json")

    def short(self, prefix: str, name: str) -> str:
        """A name for the kernel, of at most 15 letters, that no other user's store has."""
        return prefix + hashlib.sha256(f"{self.mark}/{name}".encode()).hexdigest()[: 12 - len(prefix)]

    @contextlib.contextmanager
    def workspace(self) -> Iterator[str]:
        """A folder that goes away again, of the guests' user."""
        path = os.path.join(self.root, "work", f"{os.getpid()}-{time.monotonic_ns()}")
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path)


class Machine:
    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.path = os.path.join(store.root, "machines", key)
        self.root = os.path.join(self.path, "root")
        self.name = store.short("hz", f"machine/{key}")
        self.disk = os.path.join(self.path, "disk")

    def layer(self, name: str) -> str:
        """A folder of its changes: on its own disk, where that has a size."""
        return os.path.join(self.disk if os.path.exists(f"{self.disk}.img") else self.path, name)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def spec(self) -> Any:
        return read_json(self.file("spec.json"))

    def need(self) -> Any:
        """What it is. Raises Refusal where there is none."""
        spec = self.spec()
        if spec is None:
            raise Refusal("absent", f"there is no machine {self.key}")
        return spec

    def if_free(self) -> AbstractContextManager[bool]:
        """The lock, if nobody has it; says whether."""
        os.makedirs(os.path.join(self.store.root, "locks"), mode=0o700, exist_ok=True)
        return locked_if_free(os.path.join(self.store.root, "locks", self.key))

    def lock(self) -> AbstractContextManager[None]:
        os.makedirs(os.path.join(self.store.root, "locks"), mode=0o700, exist_ok=True)
        return locked(os.path.join(self.store.root, "locks", self.key))

    def unfinished(self) -> Any:
        """Of a start that is not over, or whose helper was killed: whether it is the first one. None: all is well."""
        return read_json(self.file(UNFINISHED))

    def running(self) -> int | None:
        """The process that looks after it, where it is alive."""
        found = read_json(self.file("run.json"))
        return found["pid"] if found and started_at(found["pid"]) == found["start"] else None
