"""The form for a job: its fields, and the JobSpec that they ask for. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.jobs.wire import Job, JobSpec, Requirements
from hansa.kernel.errors import INVALID, Fault

FIELDS = (
    "command", "name", "vo", "first", "last", "cores", "memory_gib", "gpus", "hours", "site", "retries", "priority",
    "env", "setup", "outputs",
)  # fmt: skip


@dataclass(frozen=True)
class Wrong:
    """A field that cannot be used, and what would be right."""

    field: str
    message: str


def blank() -> dict[str, str]:
    return dict.fromkeys(FIELDS, "") | {"gpus": "0", "retries": "0", "priority": "5"}


def fields_of(job: Job) -> dict[str, str]:
    """The form filled in as a job was, to submit it again with changes."""
    needs = job.requirements
    return blank() | {
        "command": shlex.join(job.command),
        "name": job.name or "",
        "vo": job.vo or "",
        "first": str(job.first) if job.array else "",
        "last": str(job.first + job.count - 1) if job.array else "",
        "cores": str(needs.cores or ""),
        "memory_gib": f"{(needs.memory_mib or 0) / 1024:g}" if needs.memory_mib else "",
        "gpus": str(needs.gpus),
        "hours": f"{(needs.wall_time_s or 0) / 3600:g}" if needs.wall_time_s else "",
        "site": needs.site or "",
        "retries": str(job.retries),
        "priority": str(job.priority),
        "setup": job.setup or "",
        "outputs": "" if job.outputs == ["**"] else "\n".join(job.outputs),
    }


def read(form: Mapping[str, str]) -> tuple[JobSpec | None, list[Wrong]]:
    """The JobSpec of a form, or what is wrong with it."""
    reader = _Reader(form)
    command = reader.words("command")
    first, last = reader.whole("first", 0, 2**53), reader.whole("last", 0, 2**53)
    is_array = first is not None or last is not None
    if is_array and (last is None or last < (first or 0)):
        reader.wrong.append(Wrong("last", "An array goes from a first index to a last one that is not smaller."))
    memory = reader.number("memory_gib", 0.001, 1e6)
    hours = reader.number("hours", 1 / 3600, 500_000)
    env = reader.env("env")
    needs = Requirements(
        cores=reader.whole("cores", 1, 4096),
        memory_mib=max(1, round(memory * 1024)) if memory else None,
        gpus=reader.whole("gpus", 0, 1024) or 0,
        wall_time_s=max(1, round(hours * 3600)) if hours else None,
        site=form.get("site") or None,
    )
    retries, priority = reader.whole("retries", 0, 100), reader.whole("priority", 0, 10)
    if reader.wrong:
        return None, reader.wrong
    start = first or 0
    spec = JobSpec(
        command=command,
        name=form.get("name", "").strip()[:200] or None,
        vo=form.get("vo") or None,
        array=is_array,
        first=start,
        count=(last or 0) - start + 1 if is_array else 1,
        env=env,
        outputs=[line.strip() for line in form.get("outputs", "").splitlines() if line.strip()] or ["**"],
        setup=form.get("setup", "").strip() or None,
        requirements=needs,
        retries=retries or 0,
        priority=5 if priority is None else priority,
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
            self.wrong.append(Wrong(name, "A quote is opened and never closed."))
            return []
        if not words:
            self.wrong.append(Wrong(name, "Say what should run, for example: echo hello"))
        return words

    def whole(self, name: str, least: int, most: int) -> int | None:
        text = self._form.get(name, "").strip()
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or not least <= int(text[:17]) <= most:
            self.wrong.append(Wrong(name, f"A whole number from {least:,} to {most:,} is expected."))
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
            self.wrong.append(Wrong(name, f"A number from {least:.3g} to {most:,.0f} is expected."))
            return None
        return value

    def env(self, name: str) -> dict[str, str]:
        found = {}
        for line in self._form.get(name, "").splitlines():
            if not line.strip():
                continue
            key, sign, value = line.partition("=")
            if not sign or not key.strip():
                self.wrong.append(Wrong(name, "One variable a line, as NAME=value."))
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
            raise Fault(INVALID, f"{part[:40]!r} is no task index.", hint="Write them as: 3, 7, 10-12")
        end = int(last) if sign else int(first)
        if end - int(first) > 100_000:
            raise Fault(INVALID, "At most 100,000 tasks at once.", hint="Leave it empty for all of them.")
        found += range(int(first), end + 1)
    return found
