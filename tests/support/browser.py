"""A real browser: Debian's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from playwright.async_api import Browser as AsyncBrowser
from playwright.async_api import async_playwright
from playwright.sync_api import Browser, sync_playwright

from tests.support.debian import program

_FLAGS = [
    "--headless",
    "--no-sandbox",  # it refuses to run as root with one; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 120_000
"""For a slow computer; nothing waits so long where all is well."""


def _options() -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return {
        "executable_path": program("chromium"),
        "args": _FLAGS,
        "headless": True,
        "env": environ,
        "timeout": TIMEOUT_MS,
    }


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for a test that is not async. A person is a ``browser.new_context()`` of their own."""
    options = _options()
    with sync_playwright() as play:
        browser = play.chromium.launch(**options)
        try:
            yield browser
        finally:
            browser.close()


@asynccontextmanager
async def chromium_async() -> AsyncIterator[AsyncBrowser]:
    """The same inside an event loop, where Playwright's other face refuses to work."""
    options = _options()
    async with async_playwright() as play:
        browser = await play.chromium.launch(**options)
        try:
            yield browser
        finally:
            await browser.close()
