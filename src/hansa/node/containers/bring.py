"""For a pilot: bring the container image of a job to this node, in a process of its own.

The order comes as JSON on stdin (credentials too: they are in no argument, environment or file), news goes as JSON
lines to stdout::

    {"store", "below", "image", "auth": {"username", "password"} or null, "limit_bytes" or null}

    {"done": 1234, "total": 5678}                                 bytes of layers, as they travel
    {"ready": {"id", "layers", "uid", "gid", "groups", "env", "files", "binds"}}
    {"failed": {"code", "message", "hint", "is_retryable"}}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, Dict, Optional

from . import calls, lookup, semantics
from .collect import make_room
from .credentials import Credential, Credentials
from .errors import ContainerError
from .model import Image, Progress, Reference
from .pull import ensure
from .runner import this_host
from .store import Store
from .web import WebSettings

_REPORT_S = 0.5


class _Progress:
    """Adds up the layers and says so now and then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Dict[str, Progress] = {}
        self._said_at = 0.0

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            self._seen[progress.digest] = progress
            now = time.monotonic()
            if now - self._said_at < _REPORT_S:
                return
            self._said_at = now
            every = list(self._seen.values())
            done = sum(one.total if one.phase in ("done", "present") else one.done for one in every)
            tell({"done": done, "total": sum(one.total for one in every)})


def tell(document: Dict[str, Any]) -> None:
    """One line to the pilot."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Read the order, do it; 0 if the image is ready, else 1."""
    calls.die_with_parent()
    order = json.loads(sys.stdin.read())
    try:
        tell({"ready": bring(order, _Progress())})
    except ContainerError as error:
        failure = {"code": error.code, "message": error.message, "hint": error.hint, "is_retryable": error.is_retryable}
        tell({"failed": failure})
        return 1
    return 0


def bring(order: Dict[str, Any], on_progress: Any) -> Dict[str, Any]:
    """The image in the store, and what its tasks need to know of it. Raises ContainerErrors."""
    store = Store(order["store"], order.get("below") or ())
    reference = Reference.parse(order["image"])
    credentials = _credentials(reference, order.get("auth"))
    make_room(store, order.get("limit_bytes"))
    settings = WebSettings(is_insecure=True)  # on this very computer only, as for Docker
    image = ensure(store, reference, settings, credentials, on_progress)
    return describe(store, image)


def _credentials(reference: Reference, auth: Optional[Dict[str, str]]) -> Optional[Credentials]:
    if not auth:
        return None  # the user's own file on this node, if there is one
    return Credentials.of(reference.registry, Credential(auth["username"], auth["password"]))


def describe(store: Store, image: Image) -> Dict[str, Any]:
    """What it takes to run a program in the image, without looking into the store again."""
    layers = [str(path) for path in store.layer_paths(image)]
    roots = layers[::-1]
    passwd = lookup.read_text(roots, "/etc/passwd") or ""
    group = lookup.read_text(roots, "/etc/group") or ""
    options = semantics.RunOptions(command=("true",), entrypoint=())
    process = semantics.plan(image.config, options, this_host()._replace(cwd="/"), passwd, group).process
    return {
        "id": image.id,
        "layers": layers,
        "uid": process.uid,
        "gid": process.gid,
        "groups": list(process.groups),
        "env": {name: value for name, value in process.env.items() if name != "HOME"},
        "files": [list(one) for one in process.files],
        "binds": [list(bind) for bind in process.binds],
    }


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
