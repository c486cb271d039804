"""From an image's configuration and the options of a run to the process to start. Pure; as Docker does it.

Where udocker and Docker differ, an option says which is meant.
"""

from __future__ import annotations

import os.path
import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .errors import ContainerError, Exit
from .model import ImageConfig
from .process import Bind, ProcessSpec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FROM_HOST = frozenset(
    [
        "_",
        "HOME",
        "HOSTNAME",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "PYTHONHOME",
        "PYTHONPATH",
        "SHELL",
        "SHLVL",
        "TMPDIR",
        "USER",
        "VIRTUAL_ENV",
    ]
)
_VOLUME_OPTIONS = frozenset(
    [
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "consistent",
        "cached",
        "delegated",
        "exec",
        "noexec",
    ]
)
_HOST_DATABASES = ("/etc/passwd", "/etc/group")
_HOST_FILES = ("/etc/resolv.conf", "/etc/host.conf", "/etc/hosts")
_DRI = ("/dev/dri", "/usr/lib/dri", "/usr/lib64/dri", "/usr/lib/x86_64-linux-gnu/dri", "/usr/share/X11/XErrorDB")


class RunRefused(ContainerError):
    """The run's options make no sense, alone or with this image."""

    code = "containers.bad_run"
    exit_code = Exit.OWN


class RunOptions(NamedTuple):
    """What the user asks for, beside the image."""

    command: Tuple[str, ...] = ()
    entrypoint: Optional[Tuple[str, ...]] = None
    """None: the image's. Empty: none."""
    env: Tuple[str, ...] = ()
    """``NAME=value``, or ``NAME`` for the host's value."""
    env_files: Tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    volumes: Tuple[str, ...] = ()
    """``SOURCE:TARGET[:ro]``, or one path (see is_one_path_bound)."""
    without_volumes: Tuple[str, ...] = ()
    devices: Tuple[str, ...] = ()
    hostname: Optional[str] = None
    cpus: str = ""
    has_host_env: bool = False
    has_host_auth: bool = False
    has_container_auth: bool = False
    has_home: bool = False
    has_dri: bool = False
    has_gpu: bool = False
    has_system: bool = True
    has_meta: bool = True
    """Heed the image's configuration."""
    has_stdin: bool = False
    has_tty: bool = False
    has_subuids: bool = False
    is_one_path_bound: bool = False
    """``-v /data``: the host's /data at the same place, as udocker does; else an anonymous volume, as Docker does."""
    default_command: Tuple[str, ...] = ()
    is_login: bool = False
    """As udocker: begins in the home unless the image says where, and USER, LOGNAME and USERNAME are set."""
    """Where neither the user nor the image names a command."""


class Host(NamedTuple):
    """What of the host matters."""

    uid: int
    gid: int
    name: str
    home: str
    environ: Mapping[str, str]
    cwd: str
    hosts: str = ""
    """The text of /etc/hosts."""


class User(NamedTuple):
    """Who the program is in the container."""

    uid: int
    gid: int
    groups: Tuple[int, ...]
    name: str
    home: str
    is_known: bool
    """It has an entry in the image's /etc/passwd."""


class Plan(NamedTuple):
    """The process, and the directories of its own that the container needs for volumes without a source."""

    process: ProcessSpec
    volumes: Tuple[str, ...]


def plan(config: ImageConfig, options: RunOptions, host: Host, passwd: str, group: str) -> Plan:
    """Everything that a run is. ``passwd`` and ``group``: the image's files. Raises RunRefused."""
    if not options.has_meta:
        config = ImageConfig()
    user = find_user(options.user or config.user, passwd, group, host)
    binds = _binds(options, host)
    env = environment(config, options, host, user)
    targets = {bind.target for bind in binds}
    volumes = [path for path in _own_volumes(config, options) if path not in targets]
    if options.is_login:
        env = {**dict.fromkeys(("USER", "LOGNAME", "USERNAME"), user.name), **env}
    cwd = options.workdir or config.workdir or (env["HOME"] if options.is_login else "/")
    if not cwd.startswith("/"):
        if options.workdir:
            raise RunRefused(f"working directory {cwd!r} must be an absolute path")
        cwd = "/" + cwd
    process = ProcessSpec(
        argv=arguments(config, options),
        env=env,
        cwd=os.path.normpath(cwd),
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        binds=tuple(binds),
        files=tuple(_files(options, host, user, passwd, group)),
        hostname=options.hostname,
        has_stdin=options.has_stdin,
        has_tty=options.has_tty,
        has_system=options.has_system,
        cpus=parse_cpus(options.cpus) if options.cpus else None,
        has_subuids=options.has_subuids,
    )
    return Plan(process, tuple(volumes))


def arguments(config: ImageConfig, options: RunOptions) -> Tuple[str, ...]:
    """The command line. An entry point given by the user also puts the image's command aside."""
    entrypoint, command = config.entrypoint, options.command or config.cmd
    if options.entrypoint is not None:
        entrypoint, command = options.entrypoint, options.command
    argv = (*entrypoint, *command) or options.default_command
    if not argv:
        raise RunRefused("the image names no command", "say what to run after the image's name")
    if not argv[0]:
        raise RunRefused("the name of the program is empty")
    return argv


def environment(config: ImageConfig, options: RunOptions, host: Host, user: User) -> Dict[str, str]:
    """The host's variables (only if asked for), the image's, those of files, those given: the later win."""
    out: Dict[str, str] = {"PATH": DEFAULT_PATH}
    if options.has_host_env:
        out.update((name, value) for name, value in host.environ.items() if name not in _NOT_FROM_HOST)
    if options.hostname is not None:
        out["HOSTNAME"] = options.hostname
    if options.has_tty:
        out["TERM"] = host.environ.get("TERM") or "xterm"
    given = [entry for text in options.env_files for entry in parse_env_file(text)] + list(options.env)
    for entry in config.env:
        name, found, value = entry.partition("=")
        if found and name:
            out[name] = value
    for entry in given:
        name, found, value = entry.partition("=")
        if not name:
            raise RunRefused(f"environment variable {entry!r} has no name")
        if found:
            out[name] = value
        elif name in host.environ:
            out[name] = host.environ[name]
        else:
            out.pop(name, None)
    if not out.get("HOME"):
        out["HOME"] = host.home if options.has_home else user.home
    return out


def parse_env_file(text: str) -> List[str]:
    """The entries of an ``--env-file``: a line each; blank lines and those that begin with # do not count."""
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.lstrip()
        if not entry or entry.startswith("#"):
            continue
        name = entry.partition("=")[0]
        if not name or any(letter.isspace() for letter in name):
            raise RunRefused(f"line {number} of the environment file: {name!r} cannot be the name of a variable")
        out.append(entry)
    return out


def find_user(wanted: str, passwd: str, group: str, host: Host) -> User:
    """``name``, ``uid``, ``name:group`` or ``uid:gid``, by the image's files; nothing is root. Raises RunRefused."""
    who, _, which = wanted.partition(":")
    entry = _passwd_entry(passwd, who or "0")
    if entry is not None:
        uid, gid, name, home = int(entry[2]), int(entry[3]), entry[0], entry[5] or "/"
        is_known = True
    elif not who or who == "root":
        uid, gid, name, home, is_known = 0, 0, "root", "/root", False
    elif who.isdigit():
        own = int(who) == host.uid
        uid, gid, name, is_known = int(who), 0, host.name if own else "", False
        home = "/"
    elif who == host.name:
        uid, gid, name, home, is_known = host.uid, host.gid, host.name, host.home, False
    else:
        raise RunRefused(f"there is no user {who!r} in the image", "give a number, or a name from its /etc/passwd")
    groups = [int(line[2]) for line in _entries(group, 4) if name and name in line[3].split(",") and line[2].isdigit()]
    if which:
        gid = _group(which, group)
    return User(uid, gid, tuple(groups), name, home, is_known)


def _group(which: str, group: str) -> int:
    for line in _entries(group, 4):
        if which in (line[0], line[2]) and line[2].isdigit():
            return int(line[2])
    if which.isdigit():
        return int(which)
    raise RunRefused(f"there is no group {which!r} in the image", "give a number, or a name from its /etc/group")


def _passwd_entry(passwd: str, who: str) -> Optional[List[str]]:
    lines = [line for line in _entries(passwd, 7) if line[2].isdigit() and line[3].isdigit()]
    for field in (0, 2):  # a name wins over a number
        for line in lines:
            if line[field] == who:
                return line
    return None


def _entries(text: str, count: int) -> Iterable[List[str]]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= count:
            yield fields


def _files(options: RunOptions, host: Host, user: User, passwd: str, group: str) -> Iterable[Tuple[str, str]]:
    """What is written into the container: an entry for a user that the image does not know, names of the host."""
    if not options.has_host_auth and not options.has_container_auth and not user.is_known:
        name = user.name or f"user{user.uid}"
        base = passwd if not passwd or passwd.endswith("\n") else passwd + "\n"
        yield "/etc/passwd", f"{base}{name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh\n"
        if not any(line[2] == str(user.gid) for line in _entries(group, 4)):
            base = group if not group or group.endswith("\n") else group + "\n"
            yield "/etc/group", f"{base}{name}:x:{user.gid}:\n"
    if options.hostname is not None and options.has_system:
        yield "/etc/hostname", options.hostname + "\n"
        known = host.hosts or "127.0.0.1\tlocalhost\n"
        yield "/etc/hosts", f"{known.rstrip()}\n127.0.0.1\t{options.hostname}\n"


def _binds(options: RunOptions, host: Host) -> List[Bind]:
    out: List[Bind] = []
    if options.has_system:
        for path in _HOST_FILES:
            if path == "/etc/hosts" and options.hostname is not None:
                continue
            out.append(Bind(path, path, is_read_only=True, is_optional=True))
    if options.has_host_auth:
        out += [Bind(path, path, is_read_only=True) for path in _HOST_DATABASES]
    if options.has_home:
        out.append(Bind(host.home, host.home))
    if options.has_dri:
        out += [Bind(path, path, is_optional=True) for path in _DRI]
    for device in options.devices:
        source, _, rest = device.partition(":")
        target = rest.partition(":")[0] or source
        if not source.startswith("/dev/"):
            raise RunRefused(f"{device!r} is not a device under /dev")
        out.append(Bind(source, target))
    for volume in options.volumes:
        bind = parse_volume(volume, host.cwd, is_one_path_bound=options.is_one_path_bound)
        if bind is not None:
            out = [other for other in out if other.target != bind.target] + [bind]
    left_out = {os.path.normpath(path) for path in options.without_volumes}
    return [bind for bind in out if bind.target not in left_out]


def parse_volume(text: str, cwd: str, *, is_one_path_bound: bool) -> Optional[Bind]:
    """A ``-v``. None for an anonymous volume. Raises RunRefused."""
    parts = text.split(":")
    words: List[str] = []
    if len(parts) > 2 or (len(parts) == 2 and parts[1] and parts[1][0] not in "/."):
        words = parts.pop().split(",")
    unknown = [word for word in words if word not in _VOLUME_OPTIONS]
    if len(parts) > 2 or unknown or not all(parts):
        raise RunRefused(f"volume {text!r} is not SOURCE:TARGET[:ro]")
    source = parts[0]
    if len(parts) == 1:
        if not is_one_path_bound:
            _absolute(source, text)
            return None
        parts = [source, source]
    if source.startswith("."):
        source = os.path.normpath(os.path.join(cwd, source))
    if not source.startswith("/"):
        raise RunRefused(
            f"volume {text!r}: there are no named volumes", f"give a directory: ./{source} or an absolute path"
        )
    return Bind(os.path.normpath(source), _absolute(parts[1], text), is_read_only="ro" in words)


def _absolute(target: str, text: str) -> str:
    path = os.path.normpath(target)
    if not path.startswith("/"):
        raise RunRefused(f"volume {text!r}: the place in the container must be an absolute path")
    if path in ("/", "//"):
        raise RunRefused(f"volume {text!r}: the root of a container cannot be replaced")
    return path


def _own_volumes(config: ImageConfig, options: RunOptions) -> List[str]:
    """Places of anonymous volumes: of the image's VOLUME, and ``-v PATH``."""
    out = [os.path.normpath(path) for path in config.volumes if path.startswith("/")]
    if not options.is_one_path_bound:
        out += [os.path.normpath(text) for text in options.volumes if ":" not in text]
    return [path for path in dict.fromkeys(out) if path != "/"]


def parse_cpus(text: str) -> Tuple[int, ...]:
    """``0,2-4``. Raises RunRefused."""
    out: List[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise RunRefused(f"{text!r} is no list of cores like 0,2-4")
        first = int(match.group(1))
        out.extend(range(first, int(match.group(2) or first) + 1))
    if not out:
        raise RunRefused(f"{text!r} names no core")
    return tuple(sorted(set(out)))


def with_binds(process: ProcessSpec, binds: Sequence[Bind], env: Mapping[str, str]) -> ProcessSpec:
    """The same process with more from the host; its own variables win."""
    return process._replace(binds=(*process.binds, *binds), env={**env, **process.env})
