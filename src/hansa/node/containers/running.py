"""``run`` as a use case: find or pull, make a container, run, remove it again. For both faces."""

from __future__ import annotations

import os
import sys
from typing import Callable, Optional

from . import runner
from .errors import ContainerNotFound, ImageNotFound
from .model import ContainerRecord, Image, ImageConfig
from .runline import RunRequest
from .store import THROWAWAY, Store

Puller = Callable[[str, str], Image]
"""(name, platform) -> the image, from the registry."""


def run(
    store: Store,
    request: RunRequest,
    pull: Puller,
    engine: Optional[str] = None,
    announce: Optional[Callable[[ContainerRecord], None]] = None,
) -> int:
    """The exit code of the program. Raises ContainerErrors where it did not run.

    A target that is a container's name or id is that container, and stays. An image gets a container of its own,
    which stays unless ``--rm`` is given.
    """
    host = runner.this_host()
    chosen = request.engine or engine or None
    if request.location:
        return _run_directory(request, chosen)
    record = _existing(store, request)
    if record is None:
        image = _image(store, request, pull)
        record = store.create_container(
            image, request.name or None, {THROWAWAY: True} if request.is_removed else None, request.target
        )
    options = request.options
    if record.options.get("nvidia"):
        options = options._replace(has_gpu=True)
    if announce is not None:
        announce(record)
        sys.stdout.flush()
    try:
        return runner.run(
            store,
            record,
            options,
            host,
            engine=chosen or str(record.options.get("engine") or "") or None,
            is_throwaway=request.is_removed,
        )
    finally:
        if request.is_removed:
            store.remove_container(record)


def _existing(store: Store, request: RunRequest) -> Optional[ContainerRecord]:
    if request.pull == "reuse" and request.name:
        try:
            return store.find_container(request.name)
        except ContainerNotFound:
            return None
    if "/" in request.target or ":" in request.target:
        return None
    try:
        return store.find_container(request.target)
    except ContainerNotFound:
        return None


def _image(store: Store, request: RunRequest, pull: Puller) -> Image:
    if request.pull == "always":
        return pull(request.target, request.platform)
    try:
        return store.find_image(request.target)
    except ImageNotFound:
        if request.pull == "never":
            raise
        return pull(request.target, request.platform)


def _run_directory(request: RunRequest, engine: Optional[str]) -> int:
    """udocker's ``--location``: a directory tree that somebody unpacked."""
    import tempfile

    from . import engines, lookup, semantics
    from .launcher import LaunchError
    from .process import Tree

    root = os.path.abspath(request.location)
    words = ((request.target,) if request.target else ()) + request.options.command
    options = request.options._replace(command=words)
    texts = [lookup.read_text((root,), path) or "" for path in ("/etc/passwd", "/etc/group")]
    plan = semantics.plan(ImageConfig(), options, runner.this_host(), texts[0], texts[1])
    with tempfile.TemporaryDirectory(prefix="hansa-mount-") as mount:
        try:
            return engines.engine(engine or "copy").run(Tree((), root, "", mount), plan.process)
        except LaunchError as error:
            raise runner.NotStarted(str(error), error.code) from error
