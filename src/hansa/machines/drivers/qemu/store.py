"""What QEMU's driver writes down: a folder for each machine, volume and network. Small files, blocking, quick."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hansa.machines.drivers.base import Refused, Why
from hansa.machines.drivers.nspawn.helper.tools import started_at

LOG_BYTES = 256 * 1024


class Store:
    """Everything below one folder that is its owner's alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machines, self.volumes, self.networks = root / "machines", root / "volumes", root / "networks"
        for folder in (root, self.machines, self.volumes, self.networks, root / "snapshots"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process changes what is written here meanwhile."""
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def spec(self, key: str) -> Any:
        """What a machine is; None: there is none."""
        return read(self.machines / key / "spec.json")

    def need(self, key: str) -> Any:
        found = self.spec(key)
        if found is None:
            raise Refused(Why.UNABLE, f"There is no machine {key}.")
        return found

    def volumes_of(self, key: str) -> list[str]:
        """Keys of the volumes that a machine has."""
        return [name for name, one in self.all_volumes().items() if one["attached"] == key]

    def all_volumes(self) -> dict[str, Any]:
        found = {path.name: read(path / "volume.json") for path in sorted(self.volumes.iterdir())}
        return {name: one for name, one in found.items() if one is not None}

    def users_of(self, network: str) -> dict[str, str]:
        """Machines in a network, with their addresses there."""
        specs = {path.name: self.spec(path.name) for path in self.machines.iterdir()}
        return {key: spec["lan"] for key, spec in specs.items() if spec and spec["network"] == network}

    def address(self, network: str) -> str:
        """An address in a network that no machine has. Call it alone."""
        about = read(self.networks / network / "network.json")
        if about is None:
            raise Refused(Why.NETWORK, f"There is no network {network}.")
        taken = set(self.users_of(network).values())
        for number in range(10, 255):
            if (address := f"{about['prefix']}.{number}") not in taken:
                return address
        raise Refused(Why.NETWORK, f"No address is left in the network {network}.")

    def prefix(self) -> str:
        """The first three numbers of a subnet that no network has. Call it alone."""
        known = [read(path / "network.json") for path in self.networks.iterdir()]
        taken = {one["prefix"] for one in known if one}
        for number in range(256):
            if (prefix := f"10.198.{number}") not in taken:
                return prefix
        raise Refused(Why.NETWORK, "There are 256 networks already.")

    def add_log(self, key: str, said: str) -> str:
        """Keep what a console said; all that is known of it, the last part."""
        path = self.machines / key / "console.log"
        with contextlib.suppress(FileNotFoundError):
            said = path.read_text(encoding="utf-8", errors="replace") + said
        said = said[-LOG_BYTES:]
        path.write_text(said, encoding="utf-8")
        return said


def read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, what: Any) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(what), encoding="utf-8")
    temporary.replace(path)


def process_of(folder: Path) -> int | None:
    """The process whose number is in ``pid``, where it is alive and of this folder."""
    try:
        pid = int((folder / "pid").read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if started_at(pid) is not None and os.fsencode(folder) in words else None


def remove(folder: Path) -> None:
    """A folder, absent or not, as one step for whoever lists the folder above."""
    doomed = folder.with_name(f".gone.{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)  # of one that was killed while it did this
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
