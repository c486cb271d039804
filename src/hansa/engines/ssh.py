"""SSH to other computers: asyncssh from the control plane, OpenSSH where a person's own set-up is needed.

:class:`SshShell` signs in with a key that Hansa keeps, through jump hosts if there are any, and one connection serves
all commands. :class:`OpensshShell` runs the ``ssh`` of this computer with its ``~/.ssh/config``, agent, jump hosts; a
one-time password is typed once, into a master connection (``ssh -M``) that all later commands share.

The host's key is always checked. A key that changed is Permanent: nothing is sent to a host that is not the one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.engines.shell import DEADLINE_S, Ran, Shell, Stream, command_line, open_process, run_process
from hansa.kernel.errors import Permanent, Temporary

CONNECT_S = 20.0
KEEPALIVE_S = 15.0
MASTER_KEPT_S = 8 * 3600
_LONGEST_FOLDER = 45  # 40 digits of %C and what ssh appends come on top
_SIGN_IN = ("Permission denied", "Too many authentication failures", "Host key verification failed")


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True)
class SshTarget:
    """Where to sign in. ``known_hosts`` are lines as in ``~/.ssh/known_hosts``; empty: that file itself."""

    host: str
    user: str
    port: int = 22
    known_hosts: str = ""
    key: str = field(default="", repr=False)  # private, as OpenSSH writes it; empty: the agent's and ~/.ssh's
    passphrase: str | None = field(default=None, repr=False)
    jump: SshTarget | None = None
    resolve: Resolve | None = field(default=None, repr=False, compare=False)
    """Gives the addresses at which it may be connected to, or refuses. None: whatever its name leads to."""

    @property
    def name(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


class NotLetIn(Permanent):
    """The host wants somebody to sign in: a password, a code, another key."""


class SshShell(Shell):
    """One account on one computer, over one connection that is made when needed and again when it breaks."""

    def __init__(self, target: SshTarget) -> None:
        self.name = target.name
        self._target = target
        self._connections: list[Any] = []  # the last one is the target's, those before it lead there
        self._lock = asyncio.Lock()

    async def run(self, argv: Sequence[str], stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> Ran:
        try:
            async with asyncio.timeout(deadline_s):
                return await self._run(argv, stdin)
        except TimeoutError as error:
            raise Temporary(f"{self.name}: no answer within {deadline_s:.0f} s from {argv[0]}.", 15) from error

    async def _run(self, argv: Sequence[str], stdin: bytes) -> Ran:
        ssh = _asyncssh()
        connection = await self._connect()
        try:
            done = await connection.run(command_line(argv), input=stdin, encoding=None)
        except (ssh.Error, OSError) as error:
            await self._drop(connection)
            raise Temporary(f"{self.name}: the connection broke: {error}.", 5) from error
        if done.exit_status is None and done.exit_signal is None:
            await self._drop(connection)
            raise Temporary(f"{self.name}: the connection broke while {argv[0]} ran.", 5)
        status = 255 if done.exit_status is None else int(done.exit_status)
        return Ran(status, bytes(done.stdout or b""), bytes(done.stderr or b""))

    def open(self, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        return self._open(argv)

    @asynccontextmanager
    async def _open(self, argv: Sequence[str]) -> AsyncIterator[Stream]:
        ssh = _asyncssh()
        connection = await self._connect()
        try:
            process = await connection.create_process(command_line(argv), encoding=None)
        except (ssh.Error, OSError) as error:
            await self._drop(connection)
            raise Temporary(f"{self.name}: the connection broke: {error}.", 5) from error
        try:
            yield _SshStream(process, self.name)
        finally:
            with contextlib.suppress(Exception):
                process.stdin.write_eof()
            process.close()

    @asynccontextmanager
    async def forward(self, path_or_port: str | int, host: str = "127.0.0.1") -> AsyncIterator[int]:
        """A port of this computer's loopback that leads to a port, or a Unix socket, as seen from the target."""
        ssh = _asyncssh()
        connection = await self._connect()
        try:
            if isinstance(path_or_port, str):
                listener = await connection.forward_local_port_to_path("127.0.0.1", 0, path_or_port)
            else:
                listener = await connection.forward_local_port("127.0.0.1", 0, host, path_or_port)
        except (ssh.Error, OSError) as error:
            raise Temporary(f"{self.name}: no forwarding to {path_or_port}: {error}.", 15) from error
        async with listener:
            yield int(listener.get_port())

    async def close(self) -> None:
        connections, self._connections = self._connections, []
        for connection in reversed(connections):
            connection.abort()
            with contextlib.suppress(Exception):
                await connection.wait_closed()

    async def _drop(self, connection: Any) -> None:
        if self._connections and self._connections[-1] is connection:
            await self.close()

    async def _connect(self) -> Any:
        async with self._lock:
            if self._connections and not self._connections[-1].is_closed():
                return self._connections[-1]
            await self.close()
            made: list[Any] = []
            try:
                for target in _route(self._target):
                    made.append(await _connect(target, made[-1] if made else None))
            except BaseException:
                for connection in reversed(made):
                    connection.abort()
                raise
            self._connections = made
            return made[-1]


def _route(target: SshTarget) -> list[SshTarget]:
    """The jump hosts in the order in which they are passed, then the target."""
    return [*(_route(target.jump) if target.jump else []), target]


async def _connect(target: SshTarget, tunnel: Any) -> Any:
    ssh = _asyncssh()
    options: dict[str, Any] = {
        "config": None,
        "username": target.user,
        "known_hosts": target.known_hosts.encode()
        if target.known_hosts
        else str(Path("~/.ssh/known_hosts").expanduser()),
        "keepalive_interval": KEEPALIVE_S,
        "keepalive_count_max": 3,
        "connect_timeout": CONNECT_S,
        "login_timeout": CONNECT_S,
    }
    try:
        if target.key:
            options |= {"client_keys": [ssh.import_private_key(target.key, target.passphrase)], "agent_path": None}
        if tunnel is not None or target.resolve is None:
            return await ssh.connect(target.host, target.port, tunnel=tunnel, **options)
        # To the very addresses that were looked at: the name may lead elsewhere a moment later.
        addresses = await target.resolve(target.host, target.port)
        for number, address in enumerate(addresses, 1):
            try:
                return await ssh.connect(address, target.port, host_key_alias=target.host, **options)
            except OSError:
                if number == len(addresses):
                    raise
        raise Temporary(f"{target.name} has no address.", 15)
    except (ssh.KeyImportError, ssh.KeyEncryptionError) as error:
        raise Permanent(f"{target.name}: the private key cannot be used: {error}.") from error
    except ssh.HostKeyNotVerifiable as error:
        raise Permanent(
            f"{target.name}: its host key is not the one that is known: {error}. Ask its administrator for the new one."
        ) from error
    except ssh.PermissionDenied as error:
        raise NotLetIn(f"{target.name} does not let {target.user} in with this key: {error}.") from error
    except FileNotFoundError as error:
        raise Permanent(f"{target.name}: no host key is known: there is no {error.filename}.") from error
    except (ssh.Error, OSError) as error:
        raise Temporary(f"{target.name} cannot be reached: {error}.", 15) from error


class _SshStream:
    """A process at the other end of an SSH connection."""

    def __init__(self, process: Any, name: str) -> None:
        self._process = process
        self._name = name

    async def read(self, limit: int = 65536) -> bytes:
        ssh = _asyncssh()
        try:
            return bytes(await self._process.stdout.read(limit))
        except (ssh.Error, OSError) as error:
            raise Temporary(f"{self._name}: the connection broke: {error}.", 5) from error

    async def write(self, data: bytes) -> None:
        ssh = _asyncssh()
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (ssh.Error, OSError) as error:
            raise Temporary(f"{self._name}: the connection broke: {error}.", 5) from error

    async def complaint(self) -> str:
        try:
            said = await asyncio.wait_for(self._process.stderr.read(4096), 0.5)
        except Exception:  # noqa: BLE001 - it is only for a message
            return "it left no word"
        lines = bytes(said).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else "it left no word"


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise Permanent("This installation has no SSH: install hansa[ssh].") from error
    return asyncssh


class OpensshShell(Shell):
    """The ``ssh`` of this computer: ``destination`` is what one would type after it (a host of ``~/.ssh/config``).

    Commands share a master connection below ``folder``. Where the host wants a password or a one-time code, a person
    opens the master first, with the command that :meth:`login` gives; nothing here ever asks for one.
    """

    def __init__(self, destination: str, folder: Path, options: Sequence[str] = ()) -> None:
        self.name = destination
        self._destination = destination
        self._folder = folder
        self._options = list(options)

    def login(self) -> list[str]:
        """What a person runs, once, to open the connection that commands then share."""
        return [*self._ssh(), "-o", "BatchMode=no", "-f", "-N", self._destination]

    async def run(self, argv: Sequence[str], stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> Ran:
        done = await run_process(self._command(argv), stdin, deadline_s, self.name, os.environ)
        if done.status != 255:
            return done
        if any(words.encode() in done.stderr for words in _SIGN_IN):
            kind = Permanent if b"Host key verification failed" in done.stderr else NotLetIn
            raise kind(f"{self.name} does not let us in: {done.complaint}. Sign in once: {command_line(self.login())}")
        raise Temporary(f"{self.name} cannot be reached: {done.complaint}.", 15)

    def open(self, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        return open_process(self._command(argv), self.name, os.environ)

    async def close(self) -> None:
        """End the master connection."""
        command = [*self._ssh(), "-O", "exit", self._destination]
        with contextlib.suppress(Temporary, Permanent):
            await run_process(command, b"", 10, self.name, os.environ)
        with contextlib.suppress(OSError):  # other hosts' connections may be in it
            _private_folder(self._folder).rmdir()

    def _command(self, argv: Sequence[str]) -> list[str]:
        return [*self._ssh(), "-T", "-o", "BatchMode=yes", self._destination, "--", command_line(argv)]

    def _ssh(self) -> list[str]:
        folder = _private_folder(self._folder)
        return [
            "ssh", *self._options,
            "-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C", "-o", f"ControlPersist={MASTER_KEPT_S}",
            "-o", f"ConnectTimeout={CONNECT_S:.0f}", "-o", f"ServerAliveInterval={KEEPALIVE_S:.0f}",
            "-o", "ServerAliveCountMax=3", "-o", "StrictHostKeyChecking=yes",
        ]  # fmt: skip


def _private_folder(folder: Path) -> Path:
    """``folder``, or a short name for it: the path of a Unix socket has 107 bytes at most.

    Raises Permanent where somebody else has taken the short name.
    """
    if len(str(folder)) > _LONGEST_FOLDER:
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"hansa-ssh-{os.getuid()}-{digest}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        raise Permanent(f"{folder} is not private to this user: remove it.")
    return folder
