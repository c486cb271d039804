"""``run``."""

from __future__ import annotations

import gc
from typing import List

from .. import runline
from ..context import Context
from ..model import Image
from ..running import run as run_request
from ..settings import wanted_engine

TABLES = {"run": runline.TABLE}


def run(context: Context, words: List[str]) -> int:
    """[OPTIONS] CONTAINER|IMAGE [COMMAND …]"""
    request = runline.read(words, is_udocker=False)

    def pull(name: str, platform: str) -> Image:
        from .registry import fetch

        gc.enable()
        return fetch(context, name, platform, request.proxy)

    return run_request(context.store, request, pull, wanted_engine(context.environ) or None)
