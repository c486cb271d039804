"""Where images are made, and how what makes them ends: nothing outlives the process that wanted an image.

A build mounts file systems, and leaves a tree of some gigabytes when it is killed. So it has a mount namespace of its
own, which the kernel takes away with its last process; all its processes are killed when ours is gone; and its folder
is locked while we live, so that the next build knows which folders nobody needs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "hansa-image-"
_TOP = Path("/tmp")  # noqa: S108 - others must pass: apt has a user of its own
_NEW_S = 60.0
"""A folder without a lock is somebody's who is just making it, for so long."""
_ENDS_S = 10.0
_GUARD = 'trap "kill -KILL 0" TERM; "$@" & wait $!'


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that goes away again; those of processes that were killed go first. Others may pass, and not look."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_TOP))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.chmod(0o711)
        try:
            yield folder
        finally:
            remove(folder)


def sweep() -> None:
    """Remove what processes of this user left that were killed."""
    for folder in _TOP.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError, PermissionError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not _is_held(folder, found.st_mtime):
                remove(folder)


def _is_held(folder: Path, made: float) -> bool:
    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return time.time() - made < _NEW_S
    except BlockingIOError:
        return True


def remove(folder: Path) -> None:
    """A folder, also where parts of it belong to the users of a namespace of ours."""
    helper, deadline = shutil.which("mmdebstrap"), time.monotonic() + _ENDS_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:  # what was killed may not have ended yet
        if helper is not None and os.geteuid() != 0:
            argv = [helper, "--unshare-helper", "rm", "-rf", "--", str(scratch(folder))]
            subprocess.run(argv, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def scratch(folder: Path) -> Path:
    """A folder in it where the users of a build's namespace may make files."""
    found = folder / "tmp"
    found.mkdir(exist_ok=True)
    found.chmod(0o1777)
    return found


def guarded(argv: Sequence[str], *, is_alone: bool = False) -> list[str]:
    """A command that must be given a session of its own: it ends, with all that it has started, when we do.

    ``is_alone``: with mounts and processes of its own, for root; for others mmdebstrap makes such namespaces itself.
    """
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"] if is_alone else []
    return ["setpriv", "--pdeathsig", "TERM", "sh", "-c", _GUARD, "sh", *alone, *argv]
