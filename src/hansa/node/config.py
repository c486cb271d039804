"""Reading the pilot's configuration file and token, and the layout of its work directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import stat
from typing import Any, Dict

from .protocol import PilotConfig

CONFIG_FIELDS = tuple(spec.name for spec in dataclasses.fields(PilotConfig))


class ConfigError(Exception):
    """The configuration cannot be used; the message says what to change."""


def load_config(path: str) -> PilotConfig:
    """Read the configuration. Unknown keys are ignored: the bootstrap and later versions have keys of
    their own."""
    raw = _read_private(path)
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return config_of(data, path)


def config_of(data: Dict[str, Any], path: str) -> PilotConfig:
    """The configuration in ``data``; ``path`` only for messages."""
    try:
        config = PilotConfig(**{name: data[name] for name in CONFIG_FIELDS if name in data})
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not config.urls:
        raise ConfigError(f"{path}: 'urls' is empty; name at least one address of the server")
    if config.cores < 1 or config.memory_mib < 1:
        raise ConfigError(f"{path}: 'cores' and 'memory_mib' must be at least 1")
    return config


def read_token(path: str) -> str:
    """The pilot's token. The file must be private and hold nothing else."""
    token = _read_private(path).strip()
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"{path} must hold the pilot's token and nothing else")
    return token


def make_key(path: str) -> None:
    """Make the pilot's key, unless it is there: what its token is bound to at its first word.

    It never was anywhere else, so that a copy of the token alone, from wherever, is good for nothing.
    """
    with contextlib.suppress(FileExistsError):
        temporary = f"{path}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)  # whole or not at all, and never in the place of one that was told
        finally:
            os.unlink(temporary)


def read_bearer(token_file: str, key_file: str) -> str:
    """What the pilot shows the server: its token, and its key where it has one. ConfigError as in read_token."""
    token = read_token(token_file)
    return f"{token}~{read_token(key_file)}" if key_file else token


def _read_private(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise ConfigError(f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
            return stream.read()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are in the work directory. Tasks can see ``tasks`` and nothing else of it."""

    root: str

    @property
    def lock(self) -> str:
        return os.path.join(self.root, "pilot.lock")

    @property
    def key(self) -> str:
        return os.path.join(self.root, "key")

    @property
    def log(self) -> str:
        return os.path.join(self.root, "pilot.log")

    @property
    def ended(self) -> str:
        return os.path.join(self.root, "ended.json")

    @property
    def journal(self) -> str:
        return os.path.join(self.root, "journal.jsonl")

    @property
    def cache(self) -> str:
        return os.path.join(self.root, "cache")

    @property
    def runtime(self) -> str:
        """What starts tasks' containers, among the tasks: there it can be read."""
        return os.path.join(self.tasks, "runtime")

    @property
    def engines(self) -> str:
        """Where ways of running containers are tried out and remembered."""
        return os.path.join(self.tasks, "engines")

    @property
    def tasks(self) -> str:
        return os.path.join(self.root, "tasks")

    def prepare(self) -> None:
        """Make the directories, private to this user."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        for path in (self.cache, self.tasks):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
        os.chmod(self.root, 0o700)
