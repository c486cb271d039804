"""The containers of a store: their records, names and files."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, Optional

from .errors import Ambiguous, BadName, ContainerNotFound, InUse, NameTaken, Protected
from .layout import Layout, read_json
from .locks import locked, try_lock
from .model import ContainerRecord, ImageConfig, Layer

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_ID = r"[0-9a-f]{4,32}"
_PLACES = ("upper", "work", "merged")


class Cells:
    """Of one store. Whoever changes something holds the store's lock, shared."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def all(self) -> List[ContainerRecord]:
        """Oldest first."""
        names = self._names()
        try:
            ids = os.listdir(self._layout.path("containers"))
        except FileNotFoundError:
            return []
        found = [self._load(one, names) for one in ids]
        return sorted((one for one in found if one is not None), key=lambda one: (one.created, one.id))

    def find(self, text: str) -> ContainerRecord:
        """By name, id or its beginning."""
        names = self._names()
        record = self._load(names[text], names) if text in names else None
        if record is None and re.fullmatch(_ID, text):
            fitting = [one for one in os.listdir(self._layout.path("containers")) if one.startswith(text)]
            if len(fitting) > 1:
                raise Ambiguous(f"{text!r} is the beginning of {len(fitting)} container ids", "give more digits")
            record = self._load(fitting[0], names) if fitting else None
        if record is None:
            raise ContainerNotFound(f"there is no container {text!r}")
        return record

    def _names(self) -> Dict[str, str]:
        directory = self._layout.path("container-names")
        try:
            listing = os.listdir(directory)
        except FileNotFoundError:
            return {}
        found = {}
        for name in listing:
            try:
                found[name] = os.readlink(os.path.join(directory, name))
            except OSError:
                continue  # taken away in between
        return found

    def _load(self, container: str, names: Mapping[str, str]) -> Optional[ContainerRecord]:
        try:
            data = read_json(self._layout.path("containers", container, "record.json"))
        except FileNotFoundError:
            return None
        return ContainerRecord(
            id=container,
            names=tuple(sorted(name for name, one in names.items() if one == container)),
            image_id=data["image_id"],
            image_name=data["image_name"],
            created=data["created"],
            layers=tuple(Layer.from_json(layer) for layer in data["layers"]),
            config=ImageConfig.from_json(data["config"]),
            options=data["options"],
            is_protected=data["protected"],
        )

    def create(
        self, record: ContainerRecord, name: Optional[str], upper_of: Optional[ContainerRecord] = None
    ) -> ContainerRecord:
        """Put a new container there, with the files of another one if that is given."""
        if name is not None:
            check_name(name)
        with self._layout.work_directory() as work:
            if upper_of is not None:
                from .merge import copy_upper

                copy_upper(self._place(upper_of, "upper"), os.path.join(work, "upper"))
            for place in _PLACES:
                if upper_of is None or place != "upper":
                    os.mkdir(os.path.join(work, place), 0o755 if place == "upper" else 0o700)
            os.close(os.open(os.path.join(work, "lock"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._write(os.path.join(work, "record.json"), record)
            if name is None:
                os.rename(work, self._layout.path("containers", record.id))
                return record
            with self._names_locked():
                self._give(name, record.id)
                os.rename(work, self._layout.path("containers", record.id))
        return record._replace(names=(name,))

    def _write(self, path: str, record: ContainerRecord) -> None:
        data = {
            "format": 1,
            "image_id": record.image_id,
            "image_name": record.image_name,
            "created": record.created,
            "layers": [layer.to_json() for layer in record.layers],
            "config": record.config.to_json(),
            "options": dict(record.options),
            "protected": record.is_protected,
        }
        self._layout.write_json(os.path.relpath(path, self._layout.root), data)

    @contextmanager
    def _names_locked(self) -> Iterator[None]:
        with locked(self._layout.path("locks", "container-names")):
            yield

    def _give(self, name: str, container: str) -> None:
        path = self._layout.path("container-names", name)
        try:
            os.symlink(container, path)
        except FileExistsError:
            holder = os.readlink(path)
            if os.path.isdir(self._layout.path("containers", holder)):
                raise NameTaken(f"the container {holder[:12]} is called {name!r}", "take another name") from None
            os.unlink(path)  # its container was being made or removed by a process that was killed
            os.symlink(container, path)

    def _take(self, name: str, container: str) -> None:
        path = self._layout.path("container-names", name)
        try:
            if os.readlink(path) == container:
                os.unlink(path)
        except FileNotFoundError:
            pass

    def change(self, record: ContainerRecord, changes: Mapping[str, Any]) -> ContainerRecord:
        """Replace fields of the record's file."""
        path = os.path.join("containers", record.id, "record.json")
        with locked(self._layout.path("locks", f"container-{record.id}")):
            self._present(record)
            self._layout.write_json(path, {**read_json(self._layout.path(path)), **changes})
        return self.find(record.id)

    def rename(self, record: ContainerRecord, old: Optional[str], new: Optional[str]) -> ContainerRecord:
        """Give, change or take a name."""
        if new is not None:
            check_name(new)
        with self._names_locked():
            self._present(record)
            if old is not None and old not in self.find(record.id).names:
                raise ContainerNotFound(f"the container {record.short_id} is not called {old!r}")
            if new is not None and new != old:
                self._give(new, record.id)
            if old is not None and new != old:
                self._take(old, record.id)
        return self.find(record.id)

    def clone(self, record: ContainerRecord, name: Optional[str]) -> ContainerRecord:
        """A copy under a new id, unprotected."""
        self._present(record)
        copy = record._replace(id=os.urandom(16).hex(), names=(), created=time.time(), is_protected=False)
        return self.create(copy, name, upper_of=record)

    def remove(self, record: ContainerRecord, is_forced: bool) -> None:
        """Its names first, then all at once, then its files."""
        found = self.find(record.id)
        if found.is_protected:
            raise Protected(f"the container {found.short_id} is protected", "unprotect it first")
        fd = os.open(self._layout.path("containers", record.id, "lock"), os.O_RDWR | os.O_CLOEXEC)
        try:
            if not try_lock(fd) and not is_forced:
                raise InUse(f"a program runs in the container {found.short_id}", "stop it first, or force")
            with self._names_locked():
                for name in self.find(record.id).names:
                    self._take(name, record.id)
            self._layout.discard(self._layout.path("containers", record.id))
        finally:
            os.close(fd)

    @contextmanager
    def running(self, record: ContainerRecord) -> Iterator[None]:
        """Hold the container's lock, shared."""
        self._present(record)
        with locked(self._layout.path("containers", record.id, "lock"), is_shared=True):
            yield

    def is_running(self, record: ContainerRecord) -> bool:
        """True if somebody holds the lock."""
        self._present(record)
        fd = os.open(self._layout.path("containers", record.id, "lock"), os.O_RDWR | os.O_CLOEXEC)
        try:
            return not try_lock(fd)
        finally:
            os.close(fd)

    def _place(self, record: ContainerRecord, what: str) -> str:
        return self._layout.path("containers", record.id, what)

    def _present(self, record: ContainerRecord) -> None:
        if not os.path.exists(self._place(record, "record.json")):
            raise ContainerNotFound(f"the container {record.short_id} is not there any more")


def check_name(name: str) -> None:
    """Raise BadName unless it can be a container's name: it must not look like an id."""
    if not re.fullmatch(_NAME, name):
        raise BadName(f"{name!r} cannot be a container's name", "letters, digits, '_', '.' and '-'; 128 at most")
    if len(name) == 32 and re.fullmatch(_ID, name):
        raise BadName(f"{name!r} looks like a container's id")
