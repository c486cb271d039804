"""Reads a site file: YAML, with credentials in files of their own that nobody else can read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from hansa.client.errors import USAGE, HansaError

_MOST_BYTES = 4 * 1024 * 1024


def read_site_file(path: Path) -> dict[str, Any]:
    """What the file says, with the contents of its ``credential_file`` entries. Raises HansaError."""
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise HansaError(USAGE, f"{path} holds no site.", hint="The first lines are: name: …, endpoints: …")
    endpoints = found.get("endpoints")
    for one in endpoints if isinstance(endpoints, list) else ():
        if not isinstance(one, dict):
            continue
        if one.get("credential") is not None:
            _check_private(path, "It has a credential in it")
        if (file := one.pop("credential_file", None)) is not None:
            one["credential"] = read_credential(path.parent / Path(str(file)).expanduser())
    return found


def read_credential(path: Path) -> dict[str, str]:
    """A credential: YAML of names and values, in a file that only its owner can read."""
    _check_private(path, "It holds a credential")
    found = read_yaml(path)
    if not isinstance(found, dict) or not all(isinstance(one, str | int) for one in found.values()):
        raise HansaError(USAGE, f"{path} holds no credential: lines of name: value are expected.")
    return {str(name): str(value) for name, value in found.items()}


def _check_private(path: Path, why: str) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise HansaError(USAGE, f"{path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise HansaError(USAGE, f"Others can read {path}. {why}.", hint=f"chmod 600 {path}")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises HansaError."""
    import yaml

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise HansaError(USAGE, f"{path} is too large for a site file.")
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise HansaError(USAGE, f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise HansaError(USAGE, f"{path} is not YAML: {error}.") from error
