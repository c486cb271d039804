"""Our own launcher: a process in new user, mount, pid and IPC namespaces, on a tree of its own.

Two processes stay beside the program: the caller, which forwards signals and the terminal, and the first process of
the pid namespace, which reaps. When either dies, the kernel ends everything in the container, and with the last
process go its mounts: there is nothing to clean up but directories.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Callable, FrozenSet, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from .. import linux
from . import calls, inside
from .process import ProcessSpec, Tree

SETUP_FAILED = 125
_MANY_IDS = 65536

_NAMESPACES = calls.CLONE_NEWUSER | calls.CLONE_NEWNS | calls.CLONE_NEWIPC
_UNFORWARDED = frozenset(
    getattr(signal, name)
    for name in [
        "SIGKILL",
        "SIGSTOP",
        "SIGPIPE",
        "SIGSEGV",
        "SIGBUS",
        "SIGFPE",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGSYS",
        "SIGPROF",
        "SIGVTALRM",
        "SIGALRM",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
    ]
)
WATCHED: FrozenSet[int] = frozenset(range(1, 32)) - _UNFORWARDED - {16}  # SIGSTKFLT: unused


class LaunchError(Exception):
    """The program was not started. ``code``: 125 the container, 126 not executable, 127 not found."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Options(NamedTuple):
    """How much of the kernel to use."""

    is_overlay: bool = True
    has_pids: bool = True


ALL = Options()


def run(tree: Tree, spec: ProcessSpec, options: Options = ALL, on_start: Optional[Callable[[int], None]] = None) -> int:
    """Run to the end; the exit code (128 + n after signal n). LaunchError where it does not start.

    ``on_start`` is told the pid of the container's first process. The calling process must be single-threaded and
    gives its signals away for the time.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        child = _start(tree, spec, options)
        if on_start is not None:
            on_start(child.pid)
        if child.terminal is not None:
            from .terminal import relay

            return relay(child.pid, child.terminal, has_stdin=spec.has_stdin)
        return _follow(child.pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


class _Child(NamedTuple):
    pid: int
    terminal: Optional[int]


def _start(tree: Tree, spec: ProcessSpec, options: Options) -> _Child:
    told_reader, told_writer = os.pipe()
    maps = _Maps(spec)
    mapped_reader, mapped_writer = os.pipe()
    ours: Any = None
    theirs: Any = None
    if spec.has_tty:
        import socket

        from . import terminal as _terminal  # noqa: F401 - in the container there is nothing to import it from

        ours, theirs = socket.socketpair()
    flags = _NAMESPACES
    if options.has_pids:
        flags |= calls.CLONE_NEWPID
    if spec.hostname is not None:
        flags |= calls.CLONE_NEWUTS
    try:
        pid = calls.clone(flags)
    except OSError as error:
        for fd in (told_reader, told_writer, mapped_reader, mapped_writer):
            os.close(fd)
        raise LaunchError(SETUP_FAILED, explain_clone(error)) from error
    if pid == 0:
        os.close(mapped_writer)
        _child(tree, spec, options, maps, told_writer, mapped_reader, theirs)
    os.close(told_writer)
    os.close(mapped_reader)
    try:
        if maps.by_parent:
            maps.write(pid)
            os.write(mapped_writer, b"1")
    except OSError as error:
        os.close(mapped_writer)
        os.close(told_reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise LaunchError(SETUP_FAILED, f"cannot map users: {error}") from error
    os.close(mapped_writer)
    terminal = None
    if ours is not None:
        import socket

        theirs.close()
        terminal = next(iter(socket.recv_fds(ours, 1, 1)[1]), None)
        ours.close()
    told = _read_all(told_reader)
    if told:
        os.waitpid(pid, 0)
        if terminal is not None:
            os.close(terminal)
        raise _launch_error(told)
    return _Child(pid, terminal)


def explain_clone(error: OSError) -> str:
    """Why user namespaces are not to be had, for an administrator."""
    said = os.strerror(error.errno or 0)
    return (
        f"the kernel refuses a user namespace ({said}): see /proc/sys/user/max_user_namespaces,"
        " kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
    )


def run_within(prepare: Callable[[], Tree], spec: ProcessSpec, options: Options = ALL) -> int:
    """As :func:`run`, on a tree that ``prepare`` mounts in a process with namespaces of its own (see enter_own).

    What ``prepare`` mounts and starts lives as long as that process.
    """
    return follow(lambda: run(prepare(), spec, options), is_apart=not spec.has_tty)


def follow(body: Callable[[], int], *, is_apart: bool) -> int:
    """Do ``body`` in a process of its own; forward signals to it; the code that it returned.

    ``is_apart``: out of reach of the terminal's keys, so that no signal comes twice. A LaunchError comes back here.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    told_reader, told_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = SETUP_FAILED
        try:
            os.close(told_reader)
            calls.die_with_parent()
            if is_apart:
                os.setpgid(0, 0)
            code = body()
        except LaunchError as error:
            _tell(told_writer, error.code, str(error))
        except BaseException as error:
            _tell(told_writer, SETUP_FAILED, _said(error))
        finally:
            os._exit(code)
    os.close(told_writer)
    try:
        code = _follow(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    told = b""
    os.set_blocking(told_reader, False)  # a daemon of the body may hold the other end
    try:
        told = os.read(told_reader, 4096)
    except BlockingIOError:
        pass
    os.close(told_reader)
    if told:
        raise _launch_error(told)
    return code


def _read_all(fd: int) -> bytes:
    """Everything until the other end is closed; closes it."""
    out = b""
    while True:
        piece = os.read(fd, 4096)
        if not piece:
            os.close(fd)
            return out
        out += piece


def _launch_error(told: bytes) -> LaunchError:
    number, _, message = told.decode("utf-8", "replace").partition(" ")
    return LaunchError(int(number), message)


def run_program(
    words: Sequence[str],
    env: Mapping[str, str],
    spec: ProcessSpec,
    prepare: Optional[Callable[[], None]] = None,
    target: Optional[Callable[[int], int]] = None,
) -> int:
    """Run another launcher's command on the spec's streams: with a terminal of its own where it wants one.

    ``prepare`` is called in the new process. ``target`` tells from the command's pid which process gets signals.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    told_reader, told_writer = os.pipe()
    master, side = os.openpty() if spec.has_tty else (None, None)
    pid = os.fork()
    if pid == 0:
        try:
            calls.die_with_parent()
            os.setsid()
            _take_streams(spec, side)
            if prepare is not None:
                prepare()
            _reset_signals()
            os.execvpe(words[0], list(words), dict(env))
        except LaunchError as error:
            _tell(told_writer, error.code, str(error))
        except BaseException as error:
            _tell(told_writer, SETUP_FAILED, f"{words[0]}: {error}")
        finally:
            os._exit(SETUP_FAILED)
    try:
        os.close(told_writer)
        if side is not None:
            os.close(side)
        told = _read_all(told_reader)
        if told:
            os.waitpid(pid, 0)
            raise _launch_error(told)
        if master is not None:
            from .terminal import relay

            return relay(pid, master, has_stdin=spec.has_stdin)
        return _follow(pid, target)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def enter_own() -> None:
    """This process gets a user and a mount namespace: root in it, over one user or, for root, over all."""
    is_root = can_map_all()
    uid, gid = os.geteuid(), os.getegid()
    if is_root:
        linux.unshare(calls.CLONE_NEWNS)
    else:
        try:
            linux.unshare(calls.CLONE_NEWUSER | calls.CLONE_NEWNS)
        except OSError as error:
            raise LaunchError(SETUP_FAILED, explain_clone(error)) from error
        _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"0 {uid} 1")
        _put("/proc/self/gid_map", f"0 {gid} 1")
    linux.mount("none", "/", None, linux.MS_REC | calls.MS_SLAVE)


class _Maps:
    """Which users there are in the container.

    An ordinary user: one, the caller, by the number that the image wants. Root: all that the caller has. With
    subordinate ids: the caller by the number that the image wants, and the rest of the numbers from the range.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self.is_root = can_map_all()
        self.masks = os.geteuid() == 0  # perhaps of a namespace only; that cannot be told from here
        self.by_parent = self.is_root or spec.has_subuids
        self._uid, self._gid = os.geteuid(), os.getegid()

    def write(self, pid: int) -> None:
        if self.is_root:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/self/{name}", encoding="ascii") as stream:
                    lines = [line.split() for line in stream]
                text = "".join(f"{first} {first} {count}\n" for first, _, count in lines)
                _put(f"/proc/{pid}/{name}", text)
            return
        from .subids import write_maps

        write_maps(pid, self._spec.uid, self._spec.gid)

    def write_own(self) -> None:
        _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"{self._spec.uid} {self._uid} 1")
        _put("/proc/self/gid_map", f"{self._spec.gid} {self._gid} 1")


def can_map_all() -> bool:
    """True for root with the usual users: what it starts may belong to any of them."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        if sum(int(line.split()[2]) for line in stream) < _MANY_IDS:
            return False
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
                return held & 0xC0 == 0xC0  # setgid and setuid
    return False


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _child(
    tree: Tree, spec: ProcessSpec, options: Options, maps: _Maps, told: int, mapped: int, channel: Any
) -> NoReturn:
    """The first process in the new namespaces. Never returns."""
    code = SETUP_FAILED
    try:
        calls.die_with_parent()
        if maps.by_parent:
            if os.read(mapped, 1) != b"1":
                os._exit(SETUP_FAILED)
        else:
            maps.write_own()
        os.close(mapped)
        _prepare(tree, spec, options, maps)
        terminal = None
        if channel is not None:
            from .terminal import open_pair

            terminal = open_pair(channel)
            channel.close()
        os.setsid()
        linux.forbid_inspection()  # its environment is the host's: the container's programs must not read it
        pid = os.fork()
        if pid == 0:
            _become(spec, maps, told, terminal)
        os.close(told)
        if terminal is not None:
            os.close(terminal)
        _detach_streams()
        status = reap(pid)
        if spec.status_fd is not None:
            os.write(spec.status_fd, b"%d" % status)
        code = exit_code(status)
    except BaseException as error:
        _tell(told, SETUP_FAILED, _said(error))
    finally:
        os._exit(code)


def _prepare(tree: Tree, spec: ProcessSpec, options: Options, maps: _Maps) -> None:
    sources = inside.Sources(spec)
    linux.mount("none", "/", None, linux.MS_REC | calls.MS_SLAVE)
    if options.is_overlay:
        inside.mount_overlay(tree)
    else:
        inside.bind_tree(tree)
    os.umask(0)
    inside.enter(tree, spec, sources, has_pids=options.has_pids, masks=maps.masks)
    os.umask(0o022)
    if spec.hostname is not None:
        calls.sethostname(spec.hostname)
    calls.drop_capabilities()


def _detach_streams() -> None:
    """The first process holds no stream open: readers see the end when the program closes its own."""
    null = os.open("/dev/null", os.O_RDWR) if os.path.exists("/dev/null") else -1
    for fd in (0, 1, 2):
        if null >= 0:
            os.dup2(null, fd)
        else:
            os.close(fd)


def _become(spec: ProcessSpec, maps: _Maps, told: int, terminal: Optional[int]) -> NoReturn:
    """Turn into the container's program."""
    code = SETUP_FAILED
    env = dict(spec.env)
    try:
        os.setsid()
        _take_streams(spec, terminal)
        if maps.by_parent:
            os.setgroups(list(spec.groups))
            os.setresgid(spec.gid, spec.gid, spec.gid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
        calls.forbid_new_privileges()
        if spec.cpus is not None:
            os.sched_setaffinity(0, spec.cpus)
        _go_to(spec.cwd)
        _reset_signals()
        calls.close_on_exec_from(3)
        try:
            os.execvpe(spec.argv[0], list(spec.argv), env)
        except OSError as error:
            code, message = inside.program_error(spec.argv, env, error)
            _tell(told, code, message)
    except BaseException as error:
        _tell(told, SETUP_FAILED, _said(error))
    finally:
        os._exit(code)


def _reset_signals() -> None:
    """What the interpreter ignores or handles, and we block, programs must not inherit."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _go_to(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        os.makedirs(cwd, exist_ok=True)
        os.chdir(cwd)


def _take_streams(spec: ProcessSpec, terminal: Optional[int]) -> None:
    if terminal is not None:
        from .terminal import take

        take(terminal)
    elif not spec.has_stdin:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)


def _tell(fd: int, code: int, message: str) -> None:
    try:
        os.write(fd, f"{code} {message}".encode("utf-8", "replace")[:4000])
    except OSError:
        sys.stderr.write(message + "\n")


def _said(error: BaseException) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


def exit_code(status: int) -> int:
    """The code that a shell would report for a wait status."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def reap(program: int) -> int:
    """The first process: forward signals to the program, reap everything, return the program's wait status."""
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo != signal.SIGCHLD:
            _send(program, info.si_signo)
            continue
        for pid, status in _ended():
            if pid == program:
                return status


def _ended() -> List[Tuple[int, int]]:
    out: List[Tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return out
        if pid == 0:
            return out
        out.append((pid, status))


def _follow(pid: int, target: Optional[Callable[[int], int]] = None) -> int:
    """The caller: forward signals to the first process, or to the one that ``target`` names, until it ends."""
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo != signal.SIGCHLD:
            _send(pid if target is None else target(pid), info.si_signo)
            continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid:
            return exit_code(status)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
