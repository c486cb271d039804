"""What images and containers are. Pure: frozen values, and their reading from and writing to JSON.

Named tuples and no compiled patterns: every start of a container imports this, and ``dataclasses`` alone takes longer
than all the rest of it.

Sources: the OCI image specification 1.1 (config, manifest), the Docker image specification 1.2, and the grammar of
references in the distribution specification.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from .errors import BadImage, BadReference

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_HUB_ALIASES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_LONGEST_NAME = 255
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def is_digest(text: str) -> bool:
    """True for ``sha256:`` and 64 hexadecimal digits, the only algorithm in use."""
    return re.fullmatch(_DIGEST, text) is not None


class Reference(NamedTuple):
    """The name of an image: where it is, what it is called and which one of that name.

    ``str()`` gives the full form (``docker.io/library/python:3.12``), ``familiar`` what people write (``python:3.12``).
    """

    registry: str
    repository: str
    tag: Optional[str] = None
    digest: Optional[str] = None

    @classmethod
    def parse(cls, text: str, default_registry: str = DOCKER_HUB) -> Reference:
        """Read a name as Docker does: Docker Hub, ``library/`` and ``latest`` are understood where nothing is said.

        A leading ``docker://`` is ignored. Raises BadReference.
        """
        found = cls.guess(text, default_registry)
        if found.digest is not None and not is_digest(found.digest):
            raise BadReference(f"image name {text!r}: {found.digest!r} is not a sha256 digest")
        if found.tag is not None and not re.fullmatch(_TAG, found.tag):
            raise BadReference(f"image name {text!r}: {found.tag!r} cannot be a tag")
        if not re.fullmatch(_HOST, found.registry) or not re.fullmatch(_REPOSITORY, found.repository):
            hint = "names of repositories are in lower case" if found.repository.lower() != found.repository else ""
            raise BadReference(f"{text!r} is not an image name", hint)
        if len(found.registry) + 1 + len(found.repository) > _LONGEST_NAME:
            raise BadReference(f"image name {text[:60]!r}… is longer than {_LONGEST_NAME} characters")
        return found

    @classmethod
    def guess(cls, text: str, default_registry: str = DOCKER_HUB) -> Reference:
        """As :meth:`parse`, but anything goes: to look for a name among those that are known to be good."""
        rest = text[len("docker://") :] if text.startswith("docker://") else text
        rest, at, digest = rest.partition("@")
        tag: Optional[str] = None
        head, colon, tail = rest.rpartition(":")
        if colon and "/" not in tail:
            rest, tag = head, tail
        registry, repository = _split_registry(rest, default_registry)
        if tag is None and not at:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag, digest if at else None)

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def familiar(self) -> str:
        """The short form, without what is understood anyway."""
        if self.registry != DOCKER_HUB:
            return str(self)
        short = self.repository[len("library/") :] if self.repository.startswith("library/") else self.repository
        if "/" in short and self.repository.startswith("library/"):
            short = self.repository
        return short + self._suffix()

    def with_digest(self, digest: str) -> Reference:
        """The same repository at one digest, without the tag."""
        return Reference(self.registry, self.repository, None, digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._suffix()}"


def canonical_registry(host: str) -> str:
    """The one name of a registry that has several: all of Docker Hub's are ``docker.io``."""
    return DOCKER_HUB if host.lower() in _HUB_ALIASES else host.lower()


def _split_registry(name: str, default_registry: str) -> Tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        first, rest = default_registry, name
    first = canonical_registry(first)
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


class Platform(NamedTuple):
    """For which machines an image is, in Go's words (``amd64``, ``arm64``)."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")


class ImageConfig(NamedTuple):
    """How programs of the image are meant to be run, and for which platform it is."""

    entrypoint: Tuple[str, ...] = ()
    cmd: Tuple[str, ...] = ()
    env: Tuple[str, ...] = ()
    """``NAME=value``, in order."""
    user: str = ""
    workdir: str = ""
    volumes: Tuple[str, ...] = ()
    labels: Mapping[str, str] = _NOTHING
    stop_signal: str = ""
    shell: Tuple[str, ...] = ()
    exposed_ports: Tuple[str, ...] = ()
    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    created: str = ""
    author: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ImageConfig:
        """From an OCI or Docker configuration. Raises BadImage."""
        inner = document.get("config") or document.get("container_config") or {}
        if not isinstance(inner, dict):
            raise BadImage("the image's configuration has a 'config' that is no object")
        return cls(
            entrypoint=_words(inner, "Entrypoint"),
            cmd=_words(inner, "Cmd"),
            env=_words(inner, "Env"),
            user=_text(inner, "User"),
            workdir=_text(inner, "WorkingDir"),
            volumes=_keys(inner, "Volumes"),
            labels=_labels(inner),
            stop_signal=_text(inner, "StopSignal"),
            shell=_words(inner, "Shell"),
            exposed_ports=_keys(inner, "ExposedPorts"),
            architecture=_text(document, "architecture"),
            os=_text(document, "os") or "linux",
            variant=_text(document, "variant"),
            created=_text(document, "created"),
            author=_text(document, "author"),
        )

    def to_json(self) -> Dict[str, Any]:
        """The document that :meth:`from_json` reads, without ``rootfs`` and ``history``."""
        everything: Dict[str, Any] = {
            "User": self.user,
            "WorkingDir": self.workdir,
            "StopSignal": self.stop_signal,
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "Shell": list(self.shell),
            "Labels": dict(self.labels),
            "Volumes": {volume: {} for volume in self.volumes},
            "ExposedPorts": {port: {} for port in self.exposed_ports},
        }
        inner = {key: value for key, value in everything.items() if value}
        document: Dict[str, Any] = {"architecture": self.architecture, "os": self.os, "config": inner}
        for name in ("variant", "created", "author"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        return document


def _words(document: Mapping[str, Any], key: str) -> Tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return ("/bin/sh", "-c", value)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise BadImage(f"the image's configuration has a {key!r} that is no list of strings")
    return tuple(value)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadImage(f"the image's configuration has a {key!r} that is no string")
    return value


def _keys(document: Mapping[str, Any], key: str) -> Tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    if not isinstance(value, dict):
        raise BadImage(f"the image's configuration has a {key!r} that is no object")
    return tuple(value)


def _labels(document: Mapping[str, Any]) -> Dict[str, str]:
    value = document.get("Labels")
    if not isinstance(value, dict):
        return {}
    return {str(key): str(text) for key, text in value.items()}


class Layer(NamedTuple):
    """One layer: ``digest`` of the blob as it travels, ``diff_id`` of the tar inside, ``size`` of the blob in bytes."""

    digest: str
    diff_id: str
    size: int
    media_type: str

    def to_json(self) -> Dict[str, Any]:
        return {"digest": self.digest, "diff_id": self.diff_id, "size": self.size, "media_type": self.media_type}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        return cls(data["digest"], data["diff_id"], data["size"], data["media_type"])


class Image(NamedTuple):
    """An image in a store. Its unpacked layer directories come from ``Store.layer_paths``."""

    id: str
    """Digest of the configuration, ``sha256:…``."""
    manifest_digest: str
    names: Tuple[str, ...]
    """Full references, ``docker.io/library/python:3.12``."""
    layers: Tuple[Layer, ...]
    """Lowest first."""
    config: ImageConfig
    created: str = ""
    is_protected: bool = False
    is_read_only: bool = False
    """True where it lies in a store stacked below."""

    @property
    def size(self) -> int:
        """Bytes of its layers as they travel."""
        return sum(layer.size for layer in self.layers)

    @property
    def short_id(self) -> str:
        """What people see: 12 digits."""
        return self.id.partition(":")[2][:12]


class ContainerRecord(NamedTuple):
    """A container: what it is made of and how it is to be run. Its files are in ``Store.container_dirs``.

    It keeps the layers and the configuration of its image, so that it works on when the image's name moves.
    """

    id: str
    """32 hexadecimal digits."""
    names: Tuple[str, ...]
    image_id: str
    image_name: str
    """As it was asked for, in full form; may be empty."""
    created: float
    """Seconds since 1970, UTC."""
    layers: Tuple[Layer, ...]
    config: ImageConfig
    options: Mapping[str, Any] = _NOTHING
    """Defaults of its runs, as JSON; only the running half knows their meaning."""
    is_protected: bool = False

    @property
    def short_id(self) -> str:
        """What people see: 12 digits."""
        return self.id[:12]


class Progress(NamedTuple):
    """One report of a pull, load or push. ``total`` is 0 where it is not known."""

    digest: str
    phase: str
    """``waiting``, ``downloading``, ``unpacking``, ``uploading``, ``present``, ``done``."""
    done: int = 0
    total: int = 0
