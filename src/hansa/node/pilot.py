"""The pilot command: lock, log, agent, and the note about the end."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import logging.handlers
import os
import random
import sys
import time
from typing import List, Optional, Sequence, TextIO

from . import linux
from .agent import Agent
from .config import ConfigError, Places, load_config, make_key, read_token
from .journal import directories_in
from .protocol import PilotConfig
from .workers import remove_tree

_log = logging.getLogger("hansa.node")
LOG_BYTES = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """``pilot --config FILE [--detach]``: exit code 0 after an orderly end, 2 for a wrong configuration."""
    parser = argparse.ArgumentParser(prog="node.pyz pilot")
    parser.add_argument("--config", required=True, metavar="FILE", help="the pilot's configuration, mode 0600")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        read_token(config.token_file)
    except ConfigError as error:
        sys.stderr.write(f"pilot: {error}\n")
        return 2
    if options.detach and not _detach():
        return 0
    places = Places(os.path.abspath(config.work_dir))
    places.prepare()
    lock = _lock(places.lock)
    if lock is None:
        sys.stderr.write(f"pilot: another one lives in {places.root}; nothing to do\n")
        return 0
    with lock:
        return _serve(config, places, os.path.abspath(options.config))


def _serve(config: PilotConfig, places: Places, config_path: str) -> int:
    _open_log(places.log)
    with contextlib.suppress(OSError):
        linux.forbid_inspection()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(places.ended)
    make_key(places.key)
    _clear_tasks(places)
    _log.info("pilot %s begins as process %d", config.pilot, os.getpid())
    reason = "fault: it failed"
    try:
        reason = Agent(config, places, hidden_files=(config_path,)).run()
    except Exception as error:
        reason = f"fault: {type(error).__name__}: {error}"
        _log.exception("the pilot failed")
        return 1
    finally:
        _write_end(places.ended, reason)
        _log.info("pilot ends: %s", reason)
    return 0


def _detach() -> bool:
    """Go on in a process of its own session; False in the process that was started."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return True


def _lock(path: str) -> Optional[TextIO]:
    """The open, locked file with this process's number in it; None if another pilot holds it."""
    stream = open(path, "a+", encoding="ascii")  # noqa: SIM115 - it stays open as long as the pilot lives
    while not _is_taken(stream, fcntl.LOCK_EX):
        # Who looks whether a pilot lives shares the lock for an instant: that is nobody to make way for.
        if not _is_taken(stream, fcntl.LOCK_SH):
            stream.close()
            return None
        fcntl.flock(stream, fcntl.LOCK_UN)
        time.sleep(0.005 + 0.02 * random.random())
    stream.truncate(0)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    return stream


def _is_taken(stream: TextIO, kind: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_log(path: str) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(message)s"))
    _log.handlers[:] = [handler]
    _log.setLevel(logging.INFO)
    _log.propagate = False


def _clear_tasks(places: Places) -> None:
    """Remove what an earlier pilot left, but for logs that have not been reported."""
    needed = set(directories_in(places.journal))
    leftovers: List[str] = [os.path.join(places.tasks, name) for name in os.listdir(places.tasks)]
    for path in leftovers:
        if path not in needed:
            remove_tree(path)


def _write_end(path: str, reason: str) -> None:
    temporary = path + ".part"
    with contextlib.suppress(OSError):
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump({"reason": reason}, stream)
        os.rename(temporary, path)
