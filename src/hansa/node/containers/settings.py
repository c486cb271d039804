"""Where the store is, and what else the environment says."""

from __future__ import annotations

import os
from typing import Mapping, Tuple


def store_root(environ: Mapping[str, str]) -> str:
    """``$HANSA_CONTAINERS``, else ``containers`` in the user's data directory (XDG)."""
    named = environ.get("HANSA_CONTAINERS")
    if named:
        return os.path.abspath(named)
    base = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME") or "/tmp", ".local", "share")
    return os.path.join(base, "hansa", "containers")


def read_only_roots(environ: Mapping[str, str]) -> Tuple[str, ...]:
    """Stores of the site, stacked below: ``$HANSA_CONTAINERS_BELOW``, directories with ``:`` between them."""
    return tuple(path for path in environ.get("HANSA_CONTAINERS_BELOW", "").split(":") if path)


def wanted_engine(environ: Mapping[str, str]) -> str:
    """``$HANSA_CONTAINERS_ENGINE``: a site's or a user's choice; empty for the first that works."""
    return environ.get("HANSA_CONTAINERS_ENGINE", "")
