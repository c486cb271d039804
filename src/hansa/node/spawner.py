"""The process that starts tasks and collects their ends: small, single-threaded, and not the agent.

Why a process of its own: it stays small, so that spawning is fast and a task's ``ru_maxrss`` (which starts
at its parent's) means something; it lives in the tasks' namespaces; and when the agent dies it ends all of
them.

Messages from the agent (see frames.py)::

    ("setup", [kept directory], [hidden directory], [hidden file])      first; answered by ("hello", kind, reason)
    ("run", serial, argv, env, base, work, cpus or None, data_limit_bytes or None)
    ("kill", serial, signal)

and to it::

    ("started", serial, pid, monotonic_s)    ("failed", serial, errno, message)
    ("ended", serial, status, cpu_s, max_rss_kib, monotonic_s)
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import selectors
import signal
import socket
import sys
import time
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

from . import linux
from .frames import Unpacker, pack
from .isolation import NONE, Isolation, isolate, make_plan

_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
# The interpreter ignores these; tasks must not inherit that.
_DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ]
_SWEEP_S = 0.5
MARK = "HANSA_TASK_KEY"
"""The variable in a task's environment that tells to which task a forked-away process belongs."""


class Spawner:
    """Tasks alive, and the channel to the agent."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unpacker = Unpacker()
        self._out: List[Tuple[Any, ...]] = []
        self._serials: Dict[int, int] = {}  # of a task's first process
        self._pids: Dict[int, int] = {}
        self._programs: Dict[Tuple[str, str], str] = {}
        self._orphans: Dict[int, FrozenSet[int]] = {}  # pid -> tasks that it may belong to
        self._all_cpus = os.sched_getaffinity(0)
        self._cpus: Optional[Sequence[int]] = None
        self._data_limit: Optional[int] = None
        self._hard_data_limit = resource.getrlimit(resource.RLIMIT_DATA)[1]

    def serve(self) -> None:
        """Work until the agent closes the channel, then end every task and return."""
        wake_reader, wake_writer = os.pipe()
        for fd in (wake_reader, wake_writer):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ)
        selector.register(wake_reader, selectors.EVENT_READ)
        try:
            while self._round(selector, wake_reader):
                pass
        finally:
            self._end_everything()

    def _round(self, selector: selectors.BaseSelector, wake_reader: int) -> bool:
        timeout = _SWEEP_S if self._serials or self._orphans else None
        ready = [key.fileobj for key, _ in selector.select(timeout)]
        if wake_reader in ready:
            os.read(wake_reader, 4096)
        commands: List[Any] = []
        if self._channel in ready:
            data = self._channel.recv(1 << 18)
            if not data:
                return False
            commands = self._unpacker.feed(data)
        if self._reap() or not ready:
            self._sweep()
        for command in commands:
            self._obey(command)
        if not ready and self._cpus is not None:
            # In quiet times the spawner leaves the core that it shares with its last task. Not after each
            # task: moving costs a third of the rate of no-ops.
            os.sched_setaffinity(0, self._all_cpus)
            self._cpus = None
        if self._out:
            messages, self._out = self._out, []
            try:
                self._channel.sendall(pack(messages))
            except OSError:
                return False  # the agent is gone
        return True

    def _obey(self, command: Tuple[Any, ...]) -> None:
        if command[0] == "run":
            self._run(*command[1:])
        elif command[0] == "kill":
            pid = self._pids.get(command[1])
            if pid is not None:
                _kill_group(pid, command[2])
        elif command[0] == "setup":
            linux.become_subreaper()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                state = isolate(make_plan(command[1], command[2], command[3]))
            except OSError as error:
                state = Isolation(NONE, str(error))
            linux.forbid_inspection()
            self._out.append(("hello", state.kind, state.reason))

    def _run(
        self,
        serial: int,
        argv: List[str],
        env: Dict[str, str],
        base: str,
        work: str,
        cpus: Optional[Sequence[int]],
        data_limit: Optional[int],
    ) -> None:
        try:
            os.chdir(work)
            self._set_limits(cpus, data_limit)
            pid = self._spawn(argv, env, base)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or 0
            self._out.append(("failed", serial, number, self._why(argv, env, error)))
            return
        self._serials[pid] = serial
        self._pids[serial] = pid
        self._out.append(("started", serial, pid, time.monotonic()))

    def _spawn(self, argv: List[str], env: Dict[str, str], base: str) -> int:
        actions = (
            (os.POSIX_SPAWN_OPEN, 1, base + "/stdout", _OPEN_FLAGS, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, base + "/stderr", _OPEN_FLAGS, 0o600),
        )
        program = self._program(argv[0], env)
        return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigdef=_DEFAULT_SIGNALS)

    def _program(self, name: str, env: Dict[str, str]) -> str:
        """The file to execute: searched in the task's PATH, remembered."""
        if "/" in name:
            return name
        path = env.get("PATH", os.defpath)
        key = (name, path)
        found = self._programs.get(key)
        if found is None or not os.access(found, os.X_OK):
            found = _search(name, path)
            if os.path.isabs(found):
                self._programs[key] = found
        return found

    @staticmethod
    def _why(argv: List[str], env: Dict[str, str], error: Exception) -> str:
        name = argv[0] if argv else ""
        number = getattr(error, "errno", None)
        if number == errno.ENOENT and "/" not in name:
            return f"command not found: {name} (PATH is {env.get('PATH', os.defpath)})"
        if number == errno.ENOENT and os.path.exists(name):
            return f"cannot start {name}: the interpreter in its first line does not exist"
        if number == errno.ENOEXEC:
            return f"cannot start {name}: neither a program for this machine nor a script that begins with #!"
        return f"cannot start {name}: {os.strerror(number) if number else error}"

    def _set_limits(self, cpus: Optional[Sequence[int]], data_limit: Optional[int]) -> None:
        """Set on this process what the next task shall inherit; only what differs from the last one."""
        if cpus != self._cpus:
            os.sched_setaffinity(0, cpus if cpus is not None else self._all_cpus)
            self._cpus = cpus
        if data_limit != self._data_limit:
            soft = resource.RLIM_INFINITY if data_limit is None else data_limit
            hard = self._hard_data_limit
            if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
                soft = hard
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
            self._data_limit = data_limit

    def _reap(self) -> bool:
        """Collect all ended children; True if there was one."""
        any_ended = False
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, flags)
            except ChildProcessError:
                break
            if info is None:
                break
            any_ended = True
            pid = info.si_pid
            if pid in self._serials:
                # While its first process is not waited for, the group's number cannot be used again.
                _kill_group(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            self._orphans.pop(pid, None)
            serial = self._serials.pop(pid, None)
            if serial is not None:
                del self._pids[serial]
                cpu_s = usage.ru_utime + usage.ru_stime
                self._out.append(("ended", serial, status, cpu_s, usage.ru_maxrss, time.monotonic()))
        return any_ended

    def _sweep(self) -> None:
        """End forked-away processes of ended tasks: re-parented to us, of no task that lives."""
        children = _children()
        if len(children) == len(self._serials) and not self._orphans:
            return
        living = frozenset(self._pids)
        for pid in children - self._serials.keys():
            owners = self._orphans.get(pid)
            if owners is None:
                owner = _owner(pid)
                owners = living if owner is None else frozenset((owner,))
            owners &= living
            self._orphans[pid] = owners
            if not owners:
                _kill(pid, signal.SIGKILL)

    def _end_everything(self) -> None:
        """SIGKILL to all groups and children, until none is left."""
        for pid in self._serials:
            _kill_group(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            for pid in _children():
                _kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.005)


def _search(name: str, path: str) -> str:
    """The executable file of that name in ``path``; FileNotFoundError where there is none."""
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "command not found", name)


def _children() -> Set[int]:
    """The pids of this process's children."""
    pid = os.getpid()
    try:
        with open(f"/proc/self/task/{pid}/children", "rb") as stream:
            return {int(word) for word in stream.read().split()}
    except OSError:
        return children_by_scan(pid)


def children_by_scan(parent: int) -> Set[int]:
    """The pids of a process's children, from every process's ``stat``."""
    out = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    if int(stream.read().rpartition(b")")[2].split()[1]) == parent:
                        out.add(int(name))
            except (OSError, ValueError, IndexError):
                continue  # it has ended meanwhile
    return out


def _owner(pid: int) -> Optional[int]:
    """The serial of the task in whose environment a process was started, or None."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            for entry in stream.read().split(b"\0"):
                if entry.startswith(MARK.encode() + b"="):
                    return int(entry.partition(b"=")[2])
    except (OSError, ValueError):
        pass
    return None


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def main(arguments: Sequence[str]) -> int:
    """``spawner FD``: serve the agent on an inherited socket."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)  # it came by inheritance; no task shall have it
    channel.setblocking(True)
    # Handlers, not SIG_IGN, which tasks would inherit: the agent decides when tasks end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    Spawner(channel).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
