"""Bars while futures are waited for."""

from __future__ import annotations

import io
import sys
from concurrent.futures import Future
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hansa.client.tracking import progress_html, tracked


def ended(*values: Any) -> list[Future[Any]]:
    futures = []
    for value in values:
        future: Future[Any] = Future()
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
        futures.append(future)
    return futures


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert len(list(tracked(ended(1, 2, ValueError()), None, "name"))) == 3
    assert isinstance(sys.stderr, Terminal)
    assert sys.stderr.getvalue().endswith("[##############################] 3 of 3 ended, 1 failed\x1b[K\n")


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert len(list(tracked(ended(1), None, "name"))) == 1
    assert list(tracked([], None, "name")) == []
    assert stderr.getvalue() == ""


def test_a_notebook_has_a_bar_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def display(bar: Any, display_id: bool) -> Any:
        assert display_id
        shown.append(bar._repr_html_())
        return SimpleNamespace(update=lambda other: shown.append(other._repr_html_()))

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    assert len(list(tracked(ended(1, 2), None, "<name>"))) == 2
    assert "0 of 2 ended" in shown[0]
    assert shown[-1] == progress_html("<name>", 2, 0, 2)
    assert "&lt;name&gt;" in shown[-1]
