"""``run``."""

from __future__ import annotations

import re

from hansa.compat.udocker.face import Face, uuid_of
from hansa.node.containers import runline, running
from hansa.node.containers.model import ContainerRecord, Image
from hansa.node.containers.settings import wanted_engine

_WIDTH = 78
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def do_run(face: Face, words: list[str]) -> int:
    request = runline.read(words, is_udocker=True)
    if _UUID.fullmatch(request.target):
        request = request._replace(target=request.target.replace("-", ""))

    def pull(name: str, platform: str) -> Image:
        from hansa.node.containers.verbs.registry import fetch

        return fetch(face.context, name, platform, request.proxy)

    def announce(record: ContainerRecord) -> None:
        if not face.is_quiet and "--nobanner" not in words:
            _banner(face, uuid_of(record))

    return running.run(face.store, request, pull, wanted_engine(face.context.environ) or None, announce)


def _banner(face: Face, text: str) -> None:
    empty = " *" + " " * (_WIDTH - 2) + "*"
    for line in (
        " " + "*" * _WIDTH,
        empty,
        " *" + f"STARTING {text}".center(_WIDTH - 2) + "*",
        empty,
        " " + "*" * _WIDTH,
    ):
        face.out(line)
