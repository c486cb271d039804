"""The browser of the tests."""

from __future__ import annotations

from tests.support.browser import TIMEOUT_MS, chromium


def test_it_shows_a_page() -> None:
    with chromium() as browser:
        page = browser.new_context().new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.set_content("<h1>Hansa</h1><a href='#x'>x</a>")
        assert page.inner_text("h1") == "Hansa"
