"""Who we are at which registry: a file of our own (0600), and what Docker and Podman keep, read only.

Secrets are never printed: :class:`Credential` shows only the user.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional

from .errors import StoreUnusable
from .locks import locked
from .model import DOCKER_HUB

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
IDENTITY_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credential:
    """User and password, or an identity token (user ``<token>``) that is exchanged for access."""

    user: str
    secret: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode("ascii")


def default_path(environment: Mapping[str, str]) -> str:
    """Where our own file is."""
    named = environment.get("HANSA_REGISTRY_AUTH")
    if named:
        return named
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "/"), ".config")
    return os.path.join(base, "hansa", "registries.json")


def foreign_paths(environment: Mapping[str, str]) -> List[str]:
    """Files of Docker and Podman, by precedence."""
    home = environment.get("HOME", "/")
    docker = environment.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    paths = [environment.get("REGISTRY_AUTH_FILE", "")]
    if environment.get("XDG_RUNTIME_DIR"):
        paths.append(os.path.join(environment["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    paths += [os.path.join(home, ".config", "containers", "auth.json"), os.path.join(docker, "config.json")]
    return [path for path in paths if path]


class Credentials:
    """Looked up at each request of a new host."""

    @classmethod
    def of(cls, registry: str, credential: Credential) -> Credentials:
        """One credential for one registry, kept in memory only."""
        return _Fixed(registry, credential)

    def __init__(self, path: str, foreign: Iterable[str] = ()) -> None:
        self._path = path
        self._foreign = tuple(foreign)

    @classmethod
    def standard(cls, environment: Optional[Mapping[str, str]] = None) -> Credentials:
        """Those of the user whose environment it is."""
        known = os.environ if environment is None else environment
        return cls(default_path(known), foreign_paths(known))

    def find(self, registry: str, repository: str = "") -> Optional[Credential]:
        """For a registry; an entry for the repository or a folder of it (as Podman has) comes first."""
        for path in (self._path, *self._foreign):
            found = _lookup(_read(path), registry, repository)
            if found is not None:
                return found
        return None

    def login(self, registry: str, credential: Credential) -> None:
        """Keep a credential. The file is readable by nobody else from its first byte."""
        self._change(registry, {"auth": credential.basic()[len("Basic ") :]})

    def logout(self, registry: str) -> bool:
        """Forget; False if there was nothing in our own file."""
        return self._change(registry, None)

    def logout_all(self) -> int:
        """Forget all of our own file. Returns how many."""
        registries = self.registries()
        return sum(self.logout(registry) for registry in registries)

    def registries(self) -> List[str]:
        """Where our own file has credentials for."""
        return sorted(_auths(_read(self._path)))

    def _change(self, registry: str, entry: Optional[Dict[str, str]]) -> bool:
        directory = os.path.dirname(self._path)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with locked(self._path + ".lock"):
                document = _read(self._path)
                auths = _auths(document)
                if entry is None and registry not in auths:
                    return False
                if entry is None:
                    del auths[registry]
                else:
                    auths[registry] = entry
                _write(self._path, {**document, "auths": auths})
        except OSError as error:
            raise StoreUnusable(f"the credentials {self._path} cannot be written: {error.strerror}") from error
        return True


class _Fixed(Credentials):
    def __init__(self, registry: str, credential: Credential) -> None:
        super().__init__("/dev/null")
        self._registry = registry
        self._credential = credential

    def find(self, registry: str, repository: str = "") -> Optional[Credential]:  # noqa: ARG002
        return self._credential if registry == self._registry else None


def _write(path: str, document: Mapping[str, Any]) -> None:
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        os.fchmod(fd, 0o600)
        json.dump(document, stream, indent=2)
    os.replace(temporary, path)


def _read(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _auths(document: Mapping[str, Any]) -> Dict[str, Any]:
    auths = document.get("auths")
    return dict(auths) if isinstance(auths, dict) else {}


def _lookup(document: Mapping[str, Any], registry: str, repository: str) -> Optional[Credential]:
    auths = _auths(document)
    parts = repository.split("/") if repository else []
    keys = [registry + "/" + "/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    keys += [
        registry,
        f"https://{registry}",
        f"http://{registry}",
        f"https://{registry}/v1/",
        f"https://{registry}/v2/",
    ]
    if registry == DOCKER_HUB:
        keys += _HUB_KEYS
    for key in keys:
        entry = auths.get(key)
        if isinstance(entry, dict):
            found = _decode(entry)
            if found is not None:
                return found
    return None


def _decode(entry: Mapping[str, Any]) -> Optional[Credential]:
    if entry.get("identitytoken"):
        return Credential(IDENTITY_TOKEN_USER, str(entry["identitytoken"]))
    if entry.get("username"):
        return Credential(str(entry["username"]), str(entry.get("password", "")))
    try:
        user, colon, secret = base64.b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credential(user, secret.rstrip("\0")) if colon else None
