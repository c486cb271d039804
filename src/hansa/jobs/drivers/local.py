"""The batch driver ``local``: pilots as processes of this computer, detached from the server.

A pilot lives as long as it holds the lock on ``pilot.lock`` in its folder: that cannot be left behind by a process
that was killed, and no process id is ever trusted without it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from hansa.jobs.drivers.base import Life, PilotOrder, Seen, Temporary
from hansa.kernel.secrets import write_private
from hansa.node.protocol import PilotConfig

log = structlog.get_logger(__name__)
_START_S = 60.0
"""One that dies is noticed at once; this is for one that hangs. A busy computer may need long for a mere start, and a
pilot that is given up too soon is followed by a second one."""
_STOP_S = 10.0
_LOOK_S = 0.02
_KEPT_ENVIRONMENT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "SHELL",
    "TMPDIR",
    "HANSA_TEST_RUN",
    "HANSA_CONTAINERS",
    "HANSA_CONTAINERS_BELOW",
    "HANSA_REGISTRY_AUTH",
)


class LocalBatch:
    """Starts ``node.pyz`` on this computer, by the same bootstrap that a remote site gets."""

    def __init__(
        self,
        root: Path,
        urls: Callable[[], Sequence[str]],
        hide: Sequence[Path],
        bootstrap: bytes,
        node_digest: str,
        ca_file: Path | None = None,
        on_end: Callable[[str], None] | None = None,
        start_s: float = _START_S,
    ) -> None:
        """``on_end`` is called, where the system can tell, as soon as a pilot that was seen alive is gone.

        A pilot has ``start_s`` seconds to begin.
        """
        self._root = root
        self._urls = urls
        self._hide = hide
        self._bootstrap = bootstrap
        self._node_digest = node_digest
        self._ca_file = ca_file
        self._on_end = on_end
        self._start_s = start_s
        self._watched: set[str] = set()
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # of this process: to be reaped when they end

    async def start(self, order: PilotOrder) -> Seen:
        folder = self._folder(order.pilot_id)
        if _holder(folder) is not None:
            return self._alive(order.pilot_id)
        try:
            self._prepare(folder, order)
            process = self._children[order.pilot_id] = self._spawn(folder)
        except OSError as error:
            raise Temporary(f"The pilot cannot be started here: {error}.", 10) from error
        seen = await _until_it_lives(folder, process, self._start_s)
        return self._alive(order.pilot_id) if seen.life is Life.ALIVE else seen

    async def observe(self, pilot_id: str) -> Seen:
        folder = self._folder(pilot_id)
        self._reap()
        if _holder(folder) is not None:
            return self._alive(pilot_id)
        if not folder.exists():
            return Seen(Life.ABSENT)
        return Seen(Life.ENDED, _last_words(folder))

    async def cancel(self, pilot_id: str) -> None:
        folder = self._folder(pilot_id)
        for number, patience_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            holder = _holder(folder)
            if holder is None:
                return
            _signal(holder, number)
            for _ in range(round(patience_s / _LOOK_S)):
                if _holder(folder) is None:
                    return
                await asyncio.sleep(_LOOK_S)
        raise Temporary(f"The pilot {pilot_id} does not end.", 10)

    async def clean(self, pilot_id: str) -> None:
        folder = self._folder(pilot_id)
        if _holder(folder) is None and folder.exists():
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _reap(self) -> None:
        """Take leave of the children that have ended, whichever they are."""
        self._children = {key: child for key, child in self._children.items() if child.poll() is None}

    def _alive(self, pilot_id: str) -> Seen:
        """Seen alive: from now on its end is told."""
        holder = _holder(self._folder(pilot_id))
        if self._on_end is None or pilot_id in self._watched or not holder:
            return Seen(Life.ALIVE)
        try:
            descriptor = os.pidfd_open(holder)
        except (AttributeError, OSError):  # not Linux, an old one, or gone: whoever looks next will see
            return Seen(Life.ALIVE)
        self._watched.add(pilot_id)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, pilot_id, descriptor)
        return Seen(Life.ALIVE)

    def _ended(self, pilot_id: str, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._watched.discard(pilot_id)
        if self._on_end is not None:
            self._on_end(pilot_id)

    def _folder(self, pilot_id: str) -> Path:
        return self._root / pilot_id

    def _prepare(self, folder: Path, order: PilotOrder) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "ended.json").unlink(missing_ok=True)
        write_private(folder / "token", order.token)
        (folder / "bootstrap.py").write_bytes(self._bootstrap)
        config = PilotConfig(
            pilot=order.pilot_id,
            urls=list(self._urls()),
            token_file=str(folder / "token"),
            work_dir=str(folder),
            cores=order.cores,
            memory_mib=order.memory_mib,
            gpus=[gpu.partition(",")[0] for gpu in order.gpus],
            wall_time_s=order.wall_time_s,
            idle_timeout_s=order.idle_timeout_s,
            hide=[str(path) for path in self._hide],
            ca_file=str(self._ca_file) if self._ca_file else None,
        )
        write_private(folder / "config.json", json.dumps(asdict(config) | {"node_digest": self._node_digest}))

    def _spawn(self, folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", str(folder / "bootstrap.py"), "--config", str(folder / "config.json")]
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        with (folder / "pilot.out").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


async def _until_it_lives(folder: Path, process: subprocess.Popen[bytes], start_s: float) -> Seen:
    for _ in range(round(start_s / _LOOK_S)):
        if _holder(folder) is not None:
            return Seen(Life.ALIVE)
        if process.poll() is not None:
            if (folder / "ended.json").exists():
                return Seen(Life.ENDED, _last_words(folder))
            raise Temporary(f"The pilot did not start: {_last_words(folder)}", 5)
        await asyncio.sleep(_LOOK_S)
    process.kill()
    raise Temporary(f"The pilot did not start within {start_s:.0f} s: {_last_words(folder)}", 10)


def _holder(folder: Path) -> int | None:
    """The process id of the pilot that holds the lock; None if nobody does."""
    try:
        with (folder / "pilot.lock").open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else 0
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _signal(process_id: int, number: int) -> None:
    if process_id <= 1:  # it holds the lock but has not yet written who it is
        return
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        log.debug("local.gone", pid=process_id)


def _last_words(folder: Path) -> str:
    """Why a pilot ended, as far as it could say."""
    try:
        return str(json.loads((folder / "ended.json").read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        lines = (folder / "pilot.out").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it left no word"
    return lines[-1][:500] if lines else "it left no word"


def live_pilots(root: Path) -> list[int]:
    """Process ids of the pilots below ``root`` that live: for stopping them without a server."""
    if not root.is_dir():
        return []
    return [pid for folder in root.iterdir() if (pid := _holder(folder))]


def are_being_born(root: Path) -> bool:
    """Whether a pilot below ``root`` was started a moment ago and holds no lock yet."""
    if not root.is_dir():
        return False
    for folder in root.iterdir():
        config = folder / "config.json"
        silent = not (folder / "pilot.lock").exists() and not (folder / "ended.json").exists()
        if silent and config.exists() and time.time() - config.stat().st_mtime < _START_S:
            return True
    return False
