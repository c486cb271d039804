"""Forms about sites: what they say as the values that the services take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import invalid
from hansa.kernel.texts import _
from hansa.sites.capacity_wire import GrantCaps, GrantTerms
from hansa.sites.wire import NewDowntime, NewSite

_SITE: TypeAdapter[NewSite] = TypeAdapter(NewSite)
EXAMPLE = """name: NEBULA
country: Italy
endpoints:
  - kind: slurm
    settings:
      host: login.nebula.example.org
      user: hansa
vos:
  vo.example.org: nebula-account
"""


def _hint() -> str:
    return _("A site file has a name and endpoints; the example beside the form can be changed.")


def read_site(text: str) -> NewSite:
    """A site as its file says. Raises Fault ``kernel.invalid``."""
    found = _read_yaml(text)
    if not isinstance(found, dict):
        raise Fault(INVALID, _("This holds no site."), hint=_hint())
    for one in found.get("endpoints") or ():
        if isinstance(one, dict) and "credential_file" in one:
            said = _("A browser cannot read the credential_file of an endpoint.")
            raise Fault(
                INVALID, said, hint=_("Use the command line (hansa site add), or write it as credential: here.")
            )
    try:
        return _SITE.validate_python(found)
    except ValidationError as error:
        fault = invalid(error.errors())
        raise Fault(INVALID, fault.detail, hint=_hint()) from error


def _read_yaml(text: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise Fault(INVALID, _("Aliases (*name) are not taken here."), hint=_("Write it out."))
        return yaml.load(text, loader)  # noqa: S506 - it is a safe one
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or _("it cannot be read")
        if mark is None:
            raise Fault(INVALID, _("This is not YAML: {said}.", said=said), hint=_hint()) from error
        line = mark.line + 1
        raise Fault(
            INVALID, _("This is not YAML in line {line}: {said}.", line=line, said=said), hint=_hint()
        ) from error


def read_moment(text: str, what: str) -> datetime | None:
    """A moment as browsers send it (in UTC); None for nothing. Raises Fault ``kernel.invalid``."""
    if not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise Fault(INVALID, _("{what} is no time.", what=what), hint=_("As in 2026-12-01T08:00, in UTC.")) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def read_downtime(form: Mapping[str, str]) -> NewDowntime:
    """The downtime of a form. Raises Fault ``kernel.invalid``."""
    ends = read_moment(form.get("ends", ""), _("The end"))
    if ends is None:
        raise Fault(INVALID, _("A downtime needs an end."), hint=_("It can be ended earlier at any time."))
    return NewDowntime(
        ends,
        read_moment(form.get("starts", ""), _("The start")),
        "at_risk" if form.get("severity") == "at_risk" else "outage",
        form.get("description", "").strip()[:2000],
        form.get("endpoint") or None,
    )


def read_terms(form: Mapping[str, str]) -> GrantTerms:
    """The terms of a capacity grant. Raises Fault ``kernel.invalid``."""
    ends = read_moment(form.get("ends", ""), _("The end"))
    memory = _number(form, "memory_gib")
    return GrantTerms(
        core_hours=_number(form, "core_hours"),
        cores=_whole(form, "cores"),
        memory_mib=None if memory is None else round(memory * 1024),
        gpus=_whole(form, "gpus"),
        storage_gib=_whole(form, "storage_gib"),
        ends=ends,
    )


def read_caps(form: Mapping[str, str]) -> GrantCaps:
    """How an organisation shares its hours: each user, single ones, groups. Raises Fault ``kernel.invalid``."""
    return GrantCaps(_number(form, "each_user"), _shares(form, "users"), _shares(form, "groups"))


def _shares(form: Mapping[str, str], name: str) -> dict[str, float]:
    """``NAME=HOURS``, one a line."""
    found: dict[str, float] = {}
    for number, line in enumerate(form.get(name, "").splitlines(), 1):
        who, equals, hours = line.strip().rpartition("=")
        if not line.strip():
            continue
        if not (equals and who.strip() and hours.strip()):
            raise Fault(
                INVALID,
                _("Line {number} of the {name} is not NAME=HOURS.", number=number, name=name),
                hint=_("As in maria=200."),
            )
        found[who.strip()[:200]] = _hours(hours.strip(), _("Line {number} of the {name}", number=number, name=name))
    return found


def _number(form: Mapping[str, str], name: str) -> float | None:
    text = form.get(name, "").strip()
    return _hours(text, name.replace("_", " ")) if text else None


def _hours(text: str, what: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e10:
        raise Fault(
            INVALID, _("{what} takes a number that is not negative, not {text}.", what=what, text=repr(text[:40]))
        )
    return value


def _whole(form: Mapping[str, str], name: str) -> int | None:
    value = _number(form, name)
    if value is not None and value != int(value):
        raise Fault(INVALID, _("{name} takes a whole number.", name=name.replace("_", " ")))
    return None if value is None else int(value)
