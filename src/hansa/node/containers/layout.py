"""Where things are in a store, and the few ways in which its files may come and go.

A file or directory of the store appears by ``rename`` of something finished, and disappears by ``rename`` into
``tmp``. Whoever works in ``tmp`` holds a lock on it; what is not locked there was left by somebody who was killed.

::

    store.json                  version, sharing, quota
    lock                        shared: whoever adds or uses things; exclusive: garbage collection
    names.json, names.lock      image names
    images/HEX.json             one image: layers and configuration; HEX of the configuration's digest
    blobs/HEX                   content by sha256: layers as they travel, configurations, manifests
    partial/HEX                 what is there of a download
    locks/HEX                   one download at a time
    layers/HEX/tree             an unpacked layer by diff_id; ``apart`` instead of ``tree`` where it needs merging
    layers/HEX/recorded.json    what the file system cannot hold of it
    merged/HEX/tree             layers merged by chain id, where whiteouts cannot be represented
    containers/ID/              record.json, lock, upper, work, merged
    container-names/NAME        symbolic link to ID
    tmp/                        work in progress
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from .errors import DiskFull, StoreUnusable
from .locks import try_lock
from .tree import remove_path

VERSION = 1
SHARING = {"none": 0, "group": 0o050, "all": 0o055}
DIRECTORIES = ("images", "blobs", "partial", "locks", "layers", "merged", "containers", "container-names", "tmp")
_PRIVATE = ("containers", "container-names", "tmp", "partial", "locks")


class Layout:
    """One store directory."""

    def __init__(self, root: str, is_writable: bool = True) -> None:
        self.root = os.path.abspath(root)
        self.is_writable = is_writable
        self._settings: Optional[Dict[str, Any]] = None

    def path(self, *parts: str) -> str:
        """A place in the store."""
        return os.path.join(self.root, *parts)

    def exists(self) -> bool:
        """False if there is no store yet."""
        return os.path.exists(self.path("store.json"))

    @property
    def settings(self) -> Dict[str, Any]:
        """What ``store.json`` says. Raises StoreUnusable where it is of a newer version or unreadable."""
        if self._settings is None:
            self._settings = self._read_settings()
        return self._settings

    @property
    def extra_mode(self) -> int:
        """What other users may do with the files: 0, 0o050 or 0o055."""
        return SHARING.get(str(self.settings.get("sharing", "none")), 0)

    def _read_settings(self) -> Dict[str, Any]:
        try:
            found = read_json(self.path("store.json"))
        except FileNotFoundError:
            return {"version": VERSION}
        except (OSError, ValueError) as error:
            raise StoreUnusable(f"the store {self.root} cannot be read: {error}") from error
        if not isinstance(found, dict) or not isinstance(found.get("version"), int):
            raise StoreUnusable(f"{self.root} is no store: its store.json has no version")
        if found["version"] > VERSION:
            raise StoreUnusable(
                f"the store {self.root} is of version {found['version']}, and this program knows {VERSION}",
                "use a newer Hansa for it, or another store",
            )
        return found

    def prepare(self) -> None:
        """Make what is missing. Raises StoreUnusable."""
        if self.exists():
            _ = self.settings
            return
        if not self.is_writable:
            raise StoreUnusable(f"there is no store in {self.root}")
        try:
            os.makedirs(self.root, exist_ok=True)
            if set(os.listdir(self.root)) - set(DIRECTORIES) - {"lock", "names.lock", "names.json", "store.json"}:
                raise StoreUnusable(f"{self.root} has other things in it", "name a new or empty directory")
            for name in DIRECTORIES:
                os.makedirs(self.path(name), mode=0o700, exist_ok=True)
            os.chmod(self.root, 0o700)
            self.write_json("store.json", {"version": VERSION, "sharing": "none"})
        except OSError as error:
            raise unusable(error, self.root) from error

    def configure(self, **settings: Any) -> None:
        """Change settings (``sharing``, ``quota_bytes``) and the directories' modes with them."""
        self.prepare()
        if settings.get("sharing", "none") not in SHARING:
            raise StoreUnusable(f"sharing is one of {', '.join(SHARING)}")
        merged = {**self.settings, **settings}
        self.write_json("store.json", merged, shared=SHARING[merged.get("sharing", "none")])
        self._settings = merged
        mode = 0o700 | self.extra_mode
        for name in ("", *DIRECTORIES):
            os.chmod(self.path(name), 0o700 if name in _PRIVATE else mode)
        for name in ("names.json", *(f"images/{one}" for one in os.listdir(self.path("images")))):
            if os.path.exists(self.path(name)):
                os.chmod(self.path(name), 0o600 | (self.extra_mode & 0o044))

    def write_json(self, name: str, value: Any, shared: Optional[int] = None) -> None:
        """Replace a file in one step."""
        temporary = self.path("tmp", os.urandom(8).hex() + ".json")
        extra = self.extra_mode if shared is None else shared
        try:
            with open(temporary, "x", encoding="utf-8") as stream:
                stream.write(json.dumps(value))  # the fast encoder; dump() uses the slow one
            os.chmod(temporary, 0o600 | (extra & 0o044))
            os.replace(temporary, self.path(name))
        except BaseException:
            remove_path(temporary)
            raise

    @contextmanager
    def work_directory(self) -> Iterator[str]:
        """A new directory in ``tmp``, removed at the end if it is still there. Others see that it is in use."""
        while True:
            path = self.path("tmp", os.urandom(8).hex())
            os.mkdir(path, 0o700)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # swept between the two calls
            if try_lock(fd) and _is_at(fd, path):
                break
            os.close(fd)
        try:
            yield path
        finally:
            remove_path(path)
            os.close(fd)

    def discard(self, path: str) -> None:
        """Remove a directory of the store: it is gone at once, its files soon."""
        with self.work_directory() as work:
            try:
                os.rename(path, os.path.join(work, "gone"))
            except FileNotFoundError:
                pass

    def sweep(self) -> int:
        """Remove what killed processes left in ``tmp``. Returns how many things."""
        count = 0
        for name in os.listdir(self.path("tmp")):
            path = self.path("tmp", name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                is_young = name.endswith(".json") and _age_s(fd) < 60
                if not is_young and try_lock(fd):
                    remove_path(path)
                    count += 1
            finally:
                os.close(fd)
        return count


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _age_s(fd: int) -> float:
    import time

    return time.time() - os.fstat(fd).st_mtime


def read_json(path: str) -> Any:
    """Parse a small file."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def unusable(error: OSError, root: str) -> Exception:
    """The typed error for an error of the disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"the file system of the store {root} is full",
            "remove container images that are not needed ('hansa container gc'), or put the store elsewhere",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreUnusable(
            f"the store {root} cannot be used as one of our own: {error.strerror}",
            "stack it below a store of your own, as a read-only one",
        )
    return StoreUnusable(f"the store {root} fails: {error}")


@contextmanager
def disk_errors(root: str) -> Iterator[None]:
    """Turn errors of the disk into DiskFull and StoreUnusable."""
    try:
        yield
    except OSError as error:
        raise unusable(error, root) from error
