"""Reading command lines by a table. argparse would cost more time than starting a container."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple, Union

from .errors import ContainerError, Exit

FLAG = "flag"
VALUE = "value"
MANY = "many"
OPTIONAL = "optional"
"""A value comes with ``=`` or not at all (then it is empty)."""
Table = Mapping[str, Tuple[str, str]]
"""Option as written -> (FLAG, VALUE, MANY or OPTIONAL; key in the result)."""
Values = Dict[str, Union[bool, str, List[str]]]


class BadOption(ContainerError):
    """A command line that cannot be understood."""

    code = "containers.usage"
    exit_code = Exit.USAGE


class Parsed:
    """Options by key, and the words that are none."""

    def __init__(self, values: Values, words: List[str]) -> None:
        self._values = values
        self.words = words

    def flag(self, key: str) -> bool:
        """True if it was given."""
        return bool(self._values.get(key))

    def text(self, key: str, default: str = "") -> str:
        """The last value given."""
        value = self._values.get(key, default)
        return value if isinstance(value, str) else default

    def has(self, key: str) -> bool:
        """True if it was given, also with an empty value."""
        return key in self._values

    def many(self, key: str) -> Tuple[str, ...]:
        """All values given, in order."""
        value = self._values.get(key, [])
        return tuple(value) if isinstance(value, list) else ()


def parse(words: Sequence[str], table: Table, *, stops_at_word: bool = False) -> Parsed:
    """Read options. ``--name value``, ``--name=value``, ``-n value``, ``-nvalue`` and joined short flags (``-it``).

    ``stops_at_word``: everything from the first word that is no option belongs to somebody else.
    Raises BadOption.
    """
    values: Values = {}
    rest: List[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += left
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if stops_at_word:
                rest += left
                break
            continue
        name, equals, value = word.partition("=")
        if name not in table and not word.startswith("--") and len(word) > 2:
            left[:0] = _split(word, table)
            continue
        if name not in table:
            raise BadOption(f"unknown option {name}")
        kind, key = table[name]
        if kind == FLAG:
            if equals and value not in ("true", "false"):
                raise BadOption(f"option {name} takes no value")
            values[key] = value != "false"
            continue
        if not equals:
            if kind == OPTIONAL:
                value = ""
            elif not left:
                raise BadOption(f"option {name} needs a value")
            else:
                value = left.pop(0)
        if kind == MANY:
            found = values.setdefault(key, [])
            if isinstance(found, list):
                found.append(value)
        else:
            values[key] = value
    return Parsed(values, rest)


def _split(word: str, table: Table) -> List[str]:
    """``-it`` is ``-i -t``, ``-eA=b`` is ``-e A=b``."""
    first, rest = word[:2], word[2:]
    if first not in table:
        raise BadOption(f"unknown option {word}")
    if table[first][0] == FLAG:
        return [first, f"-{rest}"]
    return [first, rest]
