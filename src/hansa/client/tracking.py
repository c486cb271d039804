"""Progress of futures: a bar in a notebook or on a terminal, and nothing where neither is."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_EVERY_S = 0.2
_WIDTH = 30


class _Shown(Protocol):
    def update(self, ended: int, failed: int, *, is_last: bool) -> None: ...


def tracked(futures: Sequence[Future[T]], timeout: float | None, name: str | None) -> Iterator[Future[T]]:
    """As :func:`concurrent.futures.as_completed`, and a bar with this name meanwhile (None: no bar)."""
    shown = _bar(name, len(futures)) if name is not None and futures else None
    failed = 0
    last = 0.0
    for ended, future in enumerate(as_completed(futures, timeout), 1):
        failed += not future.cancelled() and future.exception() is not None
        is_last = ended == len(set(futures))
        if shown is not None and (is_last or time.monotonic() - last > _EVERY_S):
            last = time.monotonic()
            shown.update(ended, failed, is_last=is_last)
        yield future


def progress_words(ended: int, failed: int, total: int) -> str:
    """How many have ended.

    >>> progress_words(3, 1, 1000)
    '3 of 1,000 ended, 1 failed'
    """
    return f"{ended:,} of {total:,} ended" + (f", {failed:,} failed" if failed else "")


def progress_html(name: str, ended: int, failed: int, total: int) -> str:
    """A bar for notebooks, in plain HTML."""
    share = 100.0 * ended / total if total else 0.0
    bar = f'<progress value="{share:.1f}" max="100"></progress>'
    return f"<div><b>{html.escape(name)}</b> {bar} {html.escape(progress_words(ended, failed, total))}</div>"


def _bar(name: str, total: int) -> _Shown | None:
    """What shows progress here: the notebook that this is, the terminal that stderr is, or nothing."""
    notebook = sys.modules.get("IPython")
    shell = notebook.get_ipython() if notebook is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return _NotebookBar(name, total)
    return _TerminalBar(name, total) if sys.stderr.isatty() else None


class _NotebookBar:
    """One output of a cell that is replaced as it goes on."""

    def __init__(self, name: str, total: int) -> None:
        display = importlib.import_module("IPython.display").display
        self._name, self._total = name, total
        self._state = (0, 0)
        self._handle: Any = display(self, display_id=True)

    def _repr_html_(self) -> str:
        return progress_html(self._name, *self._state, self._total)

    def __repr__(self) -> str:
        return f"{self._name}: {progress_words(*self._state, self._total)}"

    def update(self, ended: int, failed: int, *, is_last: bool) -> None:  # noqa: ARG002
        self._state = (ended, failed)
        self._handle.update(self)


class _TerminalBar:
    """One line of stderr that is written over as it goes on."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total = name, total
        self.update(0, 0, is_last=False)

    def update(self, ended: int, failed: int, *, is_last: bool) -> None:
        done = _WIDTH * ended // self._total
        words = progress_words(ended, failed, self._total)
        end = "\n" if is_last else ""
        sys.stderr.write(f"\r{self._name} [{'#' * done}{'.' * (_WIDTH - done)}] {words}\x1b[K{end}")
        sys.stderr.flush()
