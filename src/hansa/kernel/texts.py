"""The one way from a text in the code to a text on a page, ready for translation.

English is the key: ``_("Jobs")`` in templates and in code. ``tools/texts.py`` collects all of them into ``texts.json``,
which is what a translator gets; a catalogue of another language has the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

Translate = Callable[..., str]
_HERE = Path(__file__).parent


def translator(catalogue: Mapping[str, str]) -> Translate:
    """``_(text, name=value)``: the text in the catalogue's language, with ``{name}`` filled in."""

    def translate(text: str, /, **values: object) -> str:
        found = catalogue.get(text, text)
        return found.format(**values) if values else found

    return translate


@cache
def english() -> Translate:
    """English, as the catalogue has it."""
    return translator(json.loads((_HERE / "texts.json").read_text(encoding="utf-8")))


def _(text: str, /, **values: object) -> str:
    """A text of the code, in the reader's language."""
    return english()(text, **values)
