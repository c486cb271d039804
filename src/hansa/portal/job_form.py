"""The form for a job: its fields, and the JobSpec that they ask for. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hansa.jobs.wire import After, JobSpec
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.texts import _

FIELDS = (
    "command", "name", "vo", "first", "last", "cores", "memory_gib", "gpus", "hours", "site", "retries", "priority",
    "env", "setup", "outputs", "image", "gpu_model", "disk_gib", "tags", "vo_group", "group", "labels", "comment",
    "after", "hold", "like",
)  # fmt: skip
_HOW: dict[str, Literal["ok", "any", "started"]] = {"": "ok", "ok": "ok", "any": "any", "started": "started"}


@dataclass(frozen=True)
class Wrong:
    """A field that cannot be used, and what would be right."""

    field: str
    message: str


def blank() -> dict[str, str]:
    return dict.fromkeys(FIELDS, "") | {"gpus": "0", "retries": "0", "priority": "5"}


def fields_of(spec: JobSpec, like: int) -> dict[str, str]:
    """The form filled in as job ``like`` was, to submit it again with changes."""
    needs = spec.requirements
    return blank() | {
        "command": shlex.join(spec.command),
        "name": spec.name or "",
        "vo": spec.vo or "",
        "first": str(spec.first) if spec.array else "",
        "last": str(spec.first + spec.count - 1) if spec.array else "",
        "cores": str(needs.cores or ""),
        "memory_gib": _gib(needs.memory_mib),
        "gpus": str(needs.gpus),
        "hours": f"{(needs.wall_time_s or 0) / 3600:.10g}" if needs.wall_time_s else "",
        "site": needs.site or "",
        "retries": str(spec.retries),
        "priority": str(spec.priority),
        "env": "\n".join(f"{name}={value}" for name, value in spec.env.items()),
        "setup": spec.setup or "",
        "outputs": "" if spec.outputs == ["**"] else "\n".join(spec.outputs),
        "image": spec.image or "",
        "gpu_model": needs.gpu_model or "",
        "disk_gib": _gib(needs.disk_mib),
        "tags": " ".join(needs.tags),
        "vo_group": spec.vo_group or "",
        "group": spec.group or "",
        "labels": "\n".join(f"{name}={value}" for name, value in spec.labels.items()),
        "comment": spec.comment or "",
        "after": ", ".join(f"{one.job}" if one.how == "ok" else f"{one.job}:{one.how}" for one in spec.after),
        "like": str(like),
    }


def _gib(mib: int | None) -> str:
    return f"{mib / 1024:.10g}" if mib else ""


def like_of(form: Mapping[str, str]) -> int | None:
    """The job that a form began with."""
    text = form.get("like", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def read(form: Mapping[str, str], base: JobSpec | None = None) -> tuple[JobSpec | None, list[Wrong]]:
    """The JobSpec of a form, or what is wrong with it. What the form has no field for is as in ``base``."""
    base = base or JobSpec(command=["true"])
    reader = _Reader(form)
    command = reader.words("command")
    first, count, is_array = reader.array(base)
    needs = replace(
        base.requirements,
        cores=reader.whole("cores", 1, 4096),
        memory_mib=reader.mib("memory_gib"),
        gpus=reader.whole("gpus", 0, 1024) or 0,
        wall_time_s=reader.seconds("hours"),
        site=form.get("site") or None,
        gpu_model=reader.text("gpu_model", 200),
        disk_mib=reader.mib("disk_gib") or 0,
        tags=form.get("tags", "").replace(",", " ").split(),
    )
    retries, priority = reader.whole("retries", 0, 100), reader.whole("priority", 0, 10)
    env, labels, after = reader.pairs("env"), reader.pairs("labels"), reader.after("after")
    if reader.wrong:
        return None, reader.wrong
    spec = replace(
        base,
        command=command,
        name=reader.text("name", 200),
        vo=form.get("vo") or None,
        vo_group=reader.text("vo_group", 200),
        array=is_array,
        first=first,
        count=count,
        env=env,
        outputs=[line.strip() for line in form.get("outputs", "").splitlines() if line.strip()] or ["**"],
        setup=form.get("setup", "").strip() or None,
        image=reader.text("image", 512),
        requirements=needs,
        retries=retries or 0,
        priority=5 if priority is None else priority,
        hold=bool(form.get("hold")),
        after=after,
        group=reader.text("group", 200),
        labels=labels,
        comment=reader.text("comment", 2000),
    )
    return spec, []


class _Reader:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = form
        self.wrong: list[Wrong] = []

    def words(self, name: str) -> list[str]:
        try:
            words = shlex.split(self._form.get(name, ""))
        except ValueError:
            self.wrong.append(Wrong(name, _("A quote is opened and never closed.")))
            return []
        if not words:
            self.wrong.append(Wrong(name, _("Say what should run, for example: echo hello")))
        return words

    def text(self, name: str, most: int) -> str | None:
        return self._form.get(name, "").strip()[:most] or None

    def array(self, base: JobSpec) -> tuple[int, int, bool]:
        """First index, number of tasks, and whether it is an array."""
        first, last = self.whole("first", 0, 2**53), self.whole("last", 0, 2**53)
        if first is None and last is None:
            found = (0, 1, False)
        elif last is None or last < (first or 0):
            self.wrong.append(Wrong("last", _("An array goes from a first index to a last one that is not smaller.")))
            return 0, 1, True
        else:
            found = (first or 0, last - (first or 0) + 1, True)
        if base.names and found != (base.first, base.count, base.array):
            said = _(
                "Its tasks have parameters of their own: the array stays as it was. Others: hansa run --params FILE."
            )
            self.wrong.append(Wrong("last", said))
        return found

    def mib(self, name: str) -> int | None:
        gib = self.number(name, 0.001, 1e6)
        return max(1, round(gib * 1024)) if gib else None

    def seconds(self, name: str) -> int | None:
        hours = self.number(name, 1 / 3600, 500_000)
        return max(1, round(hours * 3600)) if hours else None

    def after(self, name: str) -> list[After]:
        found = []
        for part in self._form.get(name, "").replace(",", " ").split():
            job, _colon, how = part.partition(":")
            if not (job.isascii() and job.isdigit() and 0 < int(job[:16]) <= 2**53 and how in _HOW):
                self.wrong.append(Wrong(name, _("Numbers of jobs, as in 12, 13:any, 14:started.")))
                return []
            found.append(After(int(job[:16]), _HOW[how]))
        return found

    def whole(self, name: str, least: int, most: int) -> int | None:
        text = self._form.get(name, "").strip()
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or not least <= int(text[:17]) <= most:
            self.wrong.append(
                Wrong(name, _("A whole number from {least:,} to {most:,} is expected.", least=least, most=most))
            )
            return None
        return int(text[:17])

    def number(self, name: str, least: float, most: float) -> float | None:
        text = self._form.get(name, "").strip().replace(",", ".")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            self.wrong.append(
                Wrong(name, _("A number from {least:.3g} to {most:,.0f} is expected.", least=least, most=most))
            )
            return None
        return value

    def pairs(self, name: str) -> dict[str, str]:
        found = {}
        for line in self._form.get(name, "").splitlines():
            if not line.strip():
                continue
            key, sign, value = line.partition("=")
            if not sign or not key.strip():
                self.wrong.append(Wrong(name, _("One a line, as NAME=value.")))
                return {}
            found[key.strip()] = value.strip()
        return found


def indices(text: str) -> list[int] | None:
    """Task indices as people write them: ``3, 7, 10-12``; None for nothing. Raises Fault ``kernel.invalid``."""
    if not text.strip():
        return None
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, sign, last = part.partition("-")
        if not first.isdigit() or (sign and not last.isdigit()):
            raise Fault(
                INVALID, _("{part} is no task index.", part=repr(part[:40])), hint=_("Write them as: 3, 7, 10-12")
            )
        end = int(last) if sign else int(first)
        if end - int(first) > 100_000:
            raise Fault(INVALID, _("At most 100,000 tasks at once."), hint=_("Leave it empty for all of them."))
        found += range(int(first), end + 1)
    return found
