"""Placeholders in a job's command, environment and output globs. Pure; the client uses it too.

``{NAME}`` is replaced where NAME has a value; every other brace stays as it is, so JSON and awk programs pass
through unharmed. Values are not looked at again: a value that contains braces is taken literally.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Template:
    """A text cut at its placeholders once, rendered many times."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # Literals at even places, names at odd ones; a text without placeholders has one part.
        self._parts: Tuple[str, ...] = tuple(_PLACEHOLDER.split(text))

    def render(self, values: Mapping[str, str]) -> str:
        """The text with every known placeholder replaced."""
        parts = self._parts
        if len(parts) == 1:
            return self.text
        out = list(parts)
        for place in range(1, len(parts), 2):
            value = values.get(parts[place])
            out[place] = "{" + parts[place] + "}" if value is None else value
        return "".join(out)

    @property
    def is_constant(self) -> bool:
        """True where there is nothing to replace."""
        return len(self._parts) == 1


def render(text: str, values: Mapping[str, str]) -> str:
    """Replace the known placeholders of one text."""
    return Template(text).render(values)


def placeholders(text: str) -> List[str]:
    """The names between braces, in order, with repetitions; whether they have a value is not known here."""
    return _PLACEHOLDER.findall(text)


def values_of(
    *,
    job: int,
    index: Optional[int],
    names: Sequence[str] = (),
    row: Sequence[str] = (),
    node_dir: Optional[str] = None,
) -> Dict[str, str]:
    """What the placeholders of one task stand for.

    ``index`` is None for a single job: ``{i}`` is then left alone. The job's own names do not replace the
    built-in ones. A row shorter than ``names`` leaves the missing ones alone.
    """
    values = dict(zip(names, row))
    values["job"] = str(job)
    if index is not None:
        values["i"] = str(index)
    if node_dir is not None:
        values["node"] = node_dir
    return values
