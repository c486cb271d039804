"""The protocol's values as JSON and back. Defaults are left out on the way, unknown fields ignored."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, FrozenSet, List, Optional, Type, TypeVar

from .protocol import (
    Channel,
    ChannelReply,
    ExchangeReply,
    File,
    Frame,
    JobOrder,
    Kill,
    Lease,
    TaskResult,
    TaskRow,
    UsageSeries,
)

Json = Dict[str, Any]
T = TypeVar("T")

_NAMES: Dict[type, FrozenSet[str]] = {}


class WireError(ValueError):
    """What arrived is not what the protocol says."""


def _build(cls: Type[T], data: Any) -> T:
    names = _NAMES.get(cls)
    if names is None:
        names = _NAMES[cls] = frozenset(spec.name for spec in dataclasses.fields(cls))  # type: ignore[arg-type]
    try:
        return cls(**{name: value for name, value in data.items() if name in names})
    except (TypeError, AttributeError) as error:
        raise WireError(f"{cls.__name__}: {error}") from error


def _files(data: Any) -> List[File]:
    return [_build(File, item) for item in data or ()]


def _order(data: Json) -> JobOrder:
    return dataclasses.replace(_build(JobOrder, data), inputs=_files(data.get("inputs")))


def _row(data: Json) -> TaskRow:
    return TaskRow(values=[str(value) for value in data.get("values") or ()], inputs=_files(data.get("inputs")))


def _lease(data: Json) -> Lease:
    lease = _build(Lease, data)
    if lease.last < lease.first:
        raise WireError(f"lease {lease.lease} is empty: {lease.first}..{lease.last}")
    if lease.rows is None:
        return lease
    rows = [_row(item) for item in data["rows"]]
    if len(rows) != lease.last - lease.first + 1:
        raise WireError(f"lease {lease.lease} has {len(rows)} rows for {lease.first}..{lease.last}")
    return dataclasses.replace(lease, rows=rows)


def parse_reply(raw: bytes) -> ExchangeReply:
    """An exchange's answer. WireError if it is not one."""
    try:
        data = json.loads(raw)
        return ExchangeReply(
            leases=[_lease(item) for item in data.get("leases") or ()],
            jobs=[_order(item) for item in data.get("jobs") or ()],
            kill=[_build(Kill, item) for item in data.get("kill") or ()],
            dropped=list(data.get("dropped") or ()),
            stop=data.get("stop"),
            channels=[_build(Channel, item) for item in data.get("channels") or ()],
        )
    except WireError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise WireError(f"not an exchange's answer: {error}") from error


def parse_channel(raw: bytes) -> ChannelReply:
    """What a channel's other end says. WireError if it is not that."""
    try:
        data = json.loads(raw)
        frames = [_build(Frame, item) for item in data.get("frames") or ()]
        return dataclasses.replace(_build(ChannelReply, data), frames=frames)
    except WireError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise WireError(f"not a channel's answer: {error}") from error


def result_json(result: TaskResult) -> Json:
    """One result, without what is at its default."""
    out: Json = {"lease": result.lease, "index": result.index, "outcome": result.outcome}
    if result.exit_code is not None:
        out["exit_code"] = result.exit_code
    if result.signal is not None:
        out["signal"] = result.signal
    if result.message:
        out["message"] = result.message
    out["wall_s"] = round(result.wall_s, 6)
    out["cpu_s"] = round(result.cpu_s, 6)
    out["memory_mib"] = round(result.memory_mib, 3)
    if result.outputs:
        out["outputs"] = [_without_none(vars(item)) for item in result.outputs]
    if result.fields is not None:
        out["fields"] = result.fields
    if result.series is not None:
        out["series"] = series_json(result.series)
    return out


def series_json(series: UsageSeries) -> Json:
    """A task's use over time, without what its node cannot tell."""
    return _without_none(vars(series))


def _without_none(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def encode(document: Json) -> bytes:
    """Compact JSON."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def clean_text(text: str, limit: Optional[int] = 2000) -> str:
    """A text that every JSON reader and database takes: no lone surrogates, no NUL, not too long."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    if limit is not None and len(text) > limit:
        return text[: limit - 1] + "…"
    return text
