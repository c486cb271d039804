"""Hansa: one front door to all the compute that a research community can reach.

Example:
    >>> from hansa import Hansa
    >>> Hansa().map(lambda x: x * x, range(3))                                   # doctest: +SKIP
    [0, 1, 4]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.client.async_hansa import AsyncHansa, AsyncJobHandle
    from hansa.client.errors import HansaError, JobFailed, ServerAway, Timeout
    from hansa.client.executor import AsyncHansaExecutor, HansaExecutor, HansaFuture
    from hansa.client.hansa import Hansa, JobHandle
    from hansa.client.results import TaskResults

__all__ = [
    "AsyncHansa",
    "AsyncHansaExecutor",
    "AsyncJobHandle",
    "Hansa",
    "HansaError",
    "HansaExecutor",
    "HansaFuture",
    "JobFailed",
    "JobHandle",
    "ServerAway",
    "TaskResults",
    "Timeout",
]

_PLACES = {
    "AsyncHansa": "async_hansa",
    "AsyncHansaExecutor": "executor",
    "AsyncJobHandle": "async_hansa",
    "Hansa": "hansa",
    "HansaError": "errors",
    "HansaExecutor": "executor",
    "HansaFuture": "executor",
    "JobFailed": "errors",
    "JobHandle": "hansa",
    "ServerAway": "errors",
    "TaskResults": "results",
    "Timeout": "errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner: ``hansa --version`` needs none of it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'hansa' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"hansa.client.{_PLACES[name]}"), name)
