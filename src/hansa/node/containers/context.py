"""What the verbs share: the store, where output goes, and how it looks."""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence

from .options import BadOption
from .settings import read_only_roots, store_root
from .store import Store

FORMATS = ("table", "json", "yaml", "id")


class Context:
    """One command line's surroundings."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        root: Optional[str] = None,
        is_insecure: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self.environ = environ
        self.store = Store(root or store_root(environ), read_only_roots(environ))
        self.is_insecure = is_insecure
        self.is_quiet = is_quiet

    def say(self, text: str) -> None:
        """Words for people: on stderr, and not when quiet."""
        if not self.is_quiet:
            sys.stderr.write(f"{text}\n")

    def put(self, text: str) -> None:
        """A line of output."""
        sys.stdout.write(f"{text}\n")

    def put_json(self, value: Any) -> None:
        """A document."""
        self.put(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))

    def show(self, rows: Sequence[Dict[str, Any]], columns: Sequence[str], how: str, key: str = "id") -> None:
        """Rows as a table of some columns, as JSON (which is YAML, too) of all, or only their keys."""
        if how not in FORMATS:
            raise BadOption(f"-o {how}: one of {', '.join(FORMATS)}")
        if how == "id":
            for row in rows:
                self.put(str(row[key]))
        elif how in ("json", "yaml"):
            self.put_json(list(rows))
        else:
            self._table(rows, columns)

    def _table(self, rows: Sequence[Dict[str, Any]], columns: Sequence[str]) -> None:
        lines: List[List[str]] = [[column.upper().replace("_", " ") for column in columns]]
        lines += [[_cell(row[column]) for column in columns] for row in rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            self.put("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(one) for one in value) or "-"
    return str(value) if value not in ("", None) else "-"


def show_bytes(count: int) -> str:
    """``12.3 MB``: powers of ten, as Docker shows sizes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
