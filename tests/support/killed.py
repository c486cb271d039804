"""Work that is killed, as by ``kill -9``, just before its n-th step that changes something outside of it."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_CHANGES = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod", "os.chown", "os.kill", "os.fork",
    "os.posix_spawn", "os.truncate", "subprocess.Popen", "socket.connect",
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def is_killed(work: Callable[[], object], before: int) -> bool:
    """Do it in a child process; whether it came to its ``before``-th step, and was killed there.

    Call it where no event loop runs. Raises AssertionError where the work failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            _kill_before(before)
            work()
        except BaseException:  # noqa: BLE001 - the end of a process: told to whoever waits
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"it failed before its step {before}: see the error output"
    return code != 0


def _kill_before(step: int) -> None:
    me, count = os.getpid(), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _CHANGES and not (event == "open" and (arguments[2] or 0) & _WRITES):
            return
        if os.getpid() == me:  # and none of its children
            count += 1
            if count == step:
                count += 1  # the signal is a step too
                os.kill(me, signal.SIGKILL)

    sys.addaudithook(hook)


def kill_until_done(work: Callable[[], object], most: int = 200) -> int:
    """Do it again and again, killed one step later each time, until it comes to its end; how often that was."""
    for step in range(1, most):
        if not is_killed(work, step):
            return step
    raise AssertionError(f"it does not end within {most} steps")
