"""Every way in which images and containers fail: a stable code, a sentence with names, what to do, an exit code."""

from __future__ import annotations


class Exit:
    """Exit codes of the command line; the same numbers as everywhere in Hansa."""

    FAILED = 1
    USAGE = 2
    SIGN_IN = 3
    NOT_FOUND = 4
    REFUSED = 5
    AWAY = 6
    LIMIT = 7
    OWN = 125


class ContainerError(Exception):
    """The root of all of them. ``code`` never changes its meaning; ``message`` is for people and holds no secret."""

    code = "containers.failed"
    exit_code = Exit.FAILED
    is_retryable = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadReference(ContainerError):
    """What was given is no image name."""

    code = "containers.bad_reference"
    exit_code = Exit.USAGE


class BadName(ContainerError):
    """What was given is no name for a container."""

    code = "containers.bad_name"
    exit_code = Exit.USAGE


class ImageNotFound(ContainerError):
    """Neither the store nor, where it was asked, the registry has the image."""

    code = "containers.image_not_found"
    exit_code = Exit.NOT_FOUND


class ContainerNotFound(ContainerError):
    """No container of that name or id."""

    code = "containers.container_not_found"
    exit_code = Exit.NOT_FOUND


class Ambiguous(ContainerError):
    """An abbreviated id fits several things."""

    code = "containers.ambiguous"
    exit_code = Exit.USAGE


class NameTaken(ContainerError):
    """Another container has the name."""

    code = "containers.name_taken"
    exit_code = Exit.REFUSED


class Protected(ContainerError):
    """The image or container is protected against removal."""

    code = "containers.protected"
    exit_code = Exit.REFUSED


class InUse(ContainerError):
    """Something still needs it: containers an image, a running program a container."""

    code = "containers.in_use"
    exit_code = Exit.REFUSED


class NoPlatform(ContainerError):
    """The image exists, but not for this architecture."""

    code = "containers.no_platform"
    exit_code = Exit.NOT_FOUND


class Unsupported(ContainerError):
    """A format or compression that this node cannot read."""

    code = "containers.unsupported"


class DigestMismatch(ContainerError):
    """Content is not what its digest says: damaged on the way, in the registry or in the store."""

    code = "containers.digest_mismatch"


class BadImage(ContainerError):
    """A manifest, configuration or archive that breaks its own format."""

    code = "containers.bad_image"


class UnsafeArchive(ContainerError):
    """An archive that tries to leave its directory or to fill the disk."""

    code = "containers.unsafe_archive"
    exit_code = Exit.REFUSED


class SignInNeeded(ContainerError):
    """The registry wants to know who asks, or does not accept what it was told."""

    code = "containers.sign_in_needed"
    exit_code = Exit.SIGN_IN


class RegistryRefused(ContainerError):
    """The registry understood and said no."""

    code = "containers.registry_refused"
    exit_code = Exit.REFUSED


class RegistryAway(ContainerError):
    """The registry does not answer, or only with errors of its own, also after several tries."""

    code = "containers.registry_away"
    exit_code = Exit.AWAY
    is_retryable = True


class DiskFull(ContainerError):
    """The file system of the store has no room."""

    code = "containers.disk_full"
    exit_code = Exit.LIMIT
    is_retryable = True


class QuotaExceeded(ContainerError):
    """The store would grow over its limit."""

    code = "containers.quota_exceeded"
    exit_code = Exit.LIMIT


class StoreBusy(ContainerError):
    """Somebody holds the lock longer than the caller wants to wait."""

    code = "containers.store_busy"
    is_retryable = True


class StoreUnusable(ContainerError):
    """The directory is not a store, is of a newer version, or may not be written."""

    code = "containers.store_unusable"
