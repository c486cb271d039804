"""Arrays and parameter files: how many tasks, and what differs between them."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.client.errors import INPUT, USAGE, HansaError

LIST_LIMIT = 10_000_000
RESERVED = {"i": "the task's index", "job": "the job's number", "node": "the directory of --setup"}
_PART = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_WORD = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Array:
    """The tasks of an array: a range of indices, and the values of each where they differ in more."""

    count: int
    first: int = 0
    names: list[str] = field(default_factory=list)
    rows: list[list[str]] | None = None

    def values(self, position: int) -> dict[str, str]:
        """What ``{i}`` and ``{NAME}`` stand for in the task at ``position`` (0 is the first)."""
        values = {"i": str(self.first + position)}
        if self.rows is not None:
            values.update(zip(self.names, self.rows[position], strict=True))
        return values

    def known(self) -> list[str]:
        return [*self.names, *(name for name in RESERVED if name not in self.names)]


def parse_array(text: str) -> Array:
    """Tasks of ``0-199``, ``1,5,9``, ``0-100:10``, or a mixture.

    >>> parse_array("0-199")
    Array(count=200, first=0, names=[], rows=None)
    >>> parse_array("0-20:10").rows
    [['0'], ['10'], ['20']]
    """
    ranges = [_part(text, part.strip()) for part in text.split(",")]
    count = sum(len(part) for part in ranges)
    if count > LIST_LIMIT and (len(ranges) > 1 or ranges[0].step != 1):
        raise HansaError(
            USAGE, f"An array by list or step has {LIST_LIMIT:,} tasks at most, not {count:,}.", hint=_HINT
        )
    if len(ranges) == 1 and ranges[0].step == 1:
        return Array(count, ranges[0].start)
    numbers = [number for part in ranges for number in part]
    if len(set(numbers)) != len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1) if len(numbers) < 10_000 else "a number"
        raise HansaError(USAGE, f"The array {text} has {twice} twice.", hint="Name each index once.")
    return Array(count, 0, ["i"], [[str(number)] for number in numbers])


_HINT = "Write it as 0-199, 1,5,9 or 0-100:10."


def _part(text: str, part: str) -> range:
    match = _PART.fullmatch(part)
    if not match:
        raise HansaError(USAGE, f"{text!r} is no array.", hint=_HINT)
    first = int(match[1])
    if match[2] is None:
        if part == text.strip():
            hint = f"For {first} tasks write 0-{first - 1}; for the one task {first} write {first}-{first}."
            if first == 0:
                hint = "An array has at least one task: 0-0 is one with index 0."
            raise HansaError(USAGE, f"--array {text} does not say which tasks.", hint=hint)
        return range(first, first + 1)
    last, step = int(match[2]), int(match[3] or 1)
    if step == 0 or last < first:
        why = "its step is 0" if step == 0 else f"{last} is below {first}"
        raise HansaError(USAGE, f"The array {text} has no task: {why}.", hint=_HINT)
    return range(first, last + 1, step)


def per_file(glob: str, base: Path) -> Array:
    """One task per file that matches; ``{file}`` is its path. Files elsewhere would not travel with the job."""
    if not glob or Path(glob).is_absolute() or ".." in Path(glob).parts:
        where = "A pattern for files begins in the current directory"
        raise HansaError(USAGE, f"{where}: {glob!r} does not.", hint="cd to where they are, or use --mount.")
    if any("**" in part and part != "**" for part in Path(glob).parts):
        raise HansaError(USAGE, f"{glob!r} is no pattern for files.", hint="** stands alone, as in data/**/*.fits.")
    found = sorted(str(path.relative_to(base)) for path in base.glob(glob) if path.is_file())
    if not found:
        raise HansaError(INPUT, f"No file matches {glob}.", hint=_nearby(base / glob.rsplit("/", 1)[0]))
    return Array(len(found), 0, ["file"], [[name] for name in found])


def read_params(path: Path) -> Array:
    """One task per row of a CSV, TSV (header: names) or JSON lines file.

    Raises HansaError with the line that is wrong.
    """
    kinds = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".txt": _read_csv,
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
    }
    reader = kinds.get(path.suffix.lower())
    if reader is None:
        raise HansaError(USAGE, f"{path}: the kind of parameter file is not known.", hint="Use .csv, .tsv or .jsonl.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise HansaError(INPUT, f"There is no parameter file {path}.", hint=_nearby(path)) from error
    except OSError as error:
        raise HansaError(INPUT, f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HansaError(
            INPUT, f"{path} is not UTF-8: {error.reason} at byte {error.start}.", hint="Save it as UTF-8."
        ) from error
    names, rows = reader(path, text)
    if not rows:
        raise HansaError(USAGE, f"{path} has no row: an array needs at least one task.", hint="One row makes one task.")
    return Array(len(rows), 0, names, rows)


def _nearby(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, 1)
    return f"Did you mean {folder / close[0]}?" if close else "Paths are relative to the current directory."


def _read_csv(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    header = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" or ("\t" in header and "," not in header) else ","
    if delimiter == "," and ";" in header and "," not in header:
        delimiter = ";"
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(row):
                continue
            if not names:
                names = _names(path, reader.line_num, [name.strip() for name in row])
            elif len(row) != len(names):
                raise _wrong(
                    path,
                    reader.line_num,
                    f"has {len(row)} values, the header has {len(names)} names ({', '.join(names)})",
                    "A value with a comma in it needs double quotes.",
                )
            else:
                rows.append(row)
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"is no CSV: {error}", "Check its quotes.") from error
    if not names:
        raise HansaError(USAGE, f"{path} is empty.", hint="Its first line names the parameters.")
    return names, rows


def _read_jsonl(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    names: list[str] = []
    rows: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _wrong(path, number, f"is no JSON: {error}", "Each line is one JSON object.") from error
        if not isinstance(row, dict):
            raise _wrong(path, number, "is no JSON object", 'Write it as {"name": value, …}.')
        if not names:
            names = _names(path, number, list(row))
        if set(row) != set(names):
            odd = ", ".join(sorted(set(row) ^ set(names)))
            raise _wrong(path, number, f"has other names than the first ({odd})", "Give each line the same names.")
        rows.append([_text(row[name]) for name in names])
    return names, rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _names(path: Path, line: int, names: list[str]) -> list[str]:
    for position, name in enumerate(names):
        if not name:
            raise _wrong(path, line, f"has no name for column {position + 1}", "Name every column.")
        if name in names[:position]:
            raise _wrong(path, line, f"names {name!r} twice", "Each parameter needs a name of its own.")
        if name in RESERVED:
            raise _wrong(
                path,
                line,
                f"uses the name {name!r}, which is {RESERVED[name]}",
                "Give the column another name.",
            )
        if len(name) > 100 or re.search(r"[{}\x00-\x1f]", name):
            raise _wrong(path, line, f"has a bad name in column {position + 1}", "No braces, 100 characters at most.")
    return names


def _wrong(path: Path, line: int, what: str, hint: str) -> HansaError:
    return HansaError(USAGE, f"{path}: line {line} {what}.", hint=hint)


def substitute(template: str, values: dict[str, str]) -> str:
    """Put values for ``{NAME}``; any other brace stays.

    >>> substitute("{x}-{y}", {"x": "1"})
    '1-{y}'
    """
    return filler(template, values)(values)


def filler(template: str, names: Iterable[str]) -> Callable[[dict[str, str]], str]:
    """A function that fills the template, for many tasks with the same names."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pieces = re.split(rf"\{{({pattern})\}}", template)

    def fill(values: dict[str, str]) -> str:
        return "".join(values[piece] if odd % 2 else piece for odd, piece in enumerate(pieces))

    return fill


def has_template(text: str, names: Iterable[str]) -> bool:
    """Whether the text differs between the tasks."""
    return any(f"{{{name}}}" in text for name in names if name not in ("job", "node"))


def unknown_words(words: Iterable[str], array: Array) -> Iterator[str]:
    """Notes about ``{words}`` in the command of an array that stand for nothing."""
    known = array.known()
    for word in dict.fromkeys(word for text in words for word in _WORD.findall(text)):
        if word not in known:
            close = difflib.get_close_matches(word, known, 1)
            hint = f"did you mean {{{close[0]}}}?" if close else f"known: {', '.join(known)}"
            yield f"{{{word}}} is no parameter of this array and stays as it is; {hint}"
