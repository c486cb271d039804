"""Wire models: what travels between clients and servers, as frozen dataclasses of the standard library.

The server lets pydantic validate them; the client reads them with :func:`decode`, which needs neither pydantic
nor its start-up time, ignores fields that it does not know (the API only ever adds), and trusts the server.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")

STRICT: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True}
"""``__pydantic_config__`` of what clients send: an unknown field is an error, as it would be ignored in silence."""


def decode(kind: type[T], data: Any) -> T:
    """Make a ``kind`` (a wire dataclass) of parsed JSON. Raises KeyError or ValueError where it does not fit."""
    return typing.cast("T", _decode(kind, data))


def encode(value: Any) -> Any:
    """Plain JSON values of a wire model; fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: encode(item) for name, item in pairs if item is not None}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value


@cache
def _plan(kind: type) -> dict[str, tuple[Any, bool]]:
    hints = typing.get_type_hints(kind, include_extras=False)
    missing = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is missing and f.default_factory is missing) for f in dataclasses.fields(kind)
    }


def _decode(kind: Any, data: Any) -> Any:
    if data is None or kind is Any:
        return data
    origin = get_origin(kind)
    if origin is not None:
        return _decode_generic(kind, origin, data)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        plan = _plan(kind)
        for name, (_, required) in plan.items():
            if required and name not in data:
                raise KeyError(f"{kind}.{name}")
        known = {name: _decode(hint, data[name]) for name, (hint, _) in plan.items() if name in data}
        return kind(**known)
    if kind is datetime:
        return datetime.fromisoformat(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return float(data) if kind is float else data


def _decode_generic(kind: Any, origin: Any, data: Any) -> Any:
    arguments = get_args(kind)
    if origin is list:
        return [_decode(arguments[0], item) for item in data]
    if origin is dict:
        return {key: _decode(arguments[1], item) for key, item in data.items()}
    if origin in (Union, types.UnionType):
        return _decode(next(a for a in arguments if a is not type(None)), data)
    if origin is Annotated:
        return _decode(arguments[0], data)
    return data if origin is Literal else origin(data)
