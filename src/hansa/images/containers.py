"""Which container registries a VO lets its jobs take images from. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.images import errors
from hansa.kernel.errors import Fault
from hansa.node.containers.errors import ContainerError
from hansa.node.containers.model import Reference, canonical_registry


def read_places(written: Sequence[str]) -> list[str]:
    """Registries, or folders of them, as people write them: in the one form that :func:`is_allowed` knows, each once.

    ``https://Quay.io/biomed/`` is ``quay.io/biomed``. Raises Fault ``images.bad_registry``.
    """
    return list(dict.fromkeys(_read_place(text) for text in written))


def _read_place(written: str) -> str:
    text = written.strip().partition("://")[2] or written.strip()
    host, _, folder = text.strip("/").partition("/")
    host = canonical_registry(host)
    place = f"{host}/{folder}" if folder else host
    try:
        Reference.parse(f"{place}/any", host)
        is_host = "." in host or ":" in host or host == "localhost"
    except ContainerError:
        is_host = False
    if not is_host:
        raise Fault(
            errors.BAD_REGISTRY,
            f"{written!r} is no container registry.",
            hint="Name its host, as in quay.io or registry.example.org:5000, or a folder of it: ghcr.io/biomed.",
        )
    return place


def is_allowed(places: Sequence[str] | None, image: str) -> bool:
    """Whether a container image is of one of these registries or folders. None: of whichever."""
    if places is None:
        return True
    reference = Reference.parse(image)
    name = f"{reference.registry}/{reference.repository}"
    return any(name.startswith(place + "/") for place in places)
