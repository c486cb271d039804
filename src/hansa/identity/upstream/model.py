"""What an upstream issuer says of a person, and what that means here. Pure.

Standards: OpenID Connect Core 1.0, RFC 9068, RFC 9207, AARC-G002 and AARC-G069 (entitlements), REFEDS Assurance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

from hansa.identity.model import Role

ENTITLEMENT_CLAIMS = ("eduperson_entitlement", "entitlements")
_BASE_SCOPES = ("openid", "profile")
_PLACES = {
    "vo": r"(?P<vo>(?!role=)[^:#/]+)",
    "groups": r"(?P<groups>(?!role=)[^:#/]+(?:[:/](?!role=)[^:#/]+)*)",
    "role": r"(?P<role>[^:#/]+)",
}
_TOKEN = re.compile(r"\{(\w+)\}|(\[)|(\])|([^{}\[\]]+)")
_ROLES = {"vm_operator": "vm-operator", "vo-manager": "manager", "vo_manager": "manager", "admin": "manager"}
_MOST_ENTITLEMENTS = 5000
_MOST_LENGTH = 1000


class BadPattern(ValueError):
    """The pattern of an entitlement cannot be read; the text says why."""


@dataclass(frozen=True)
class Preset:
    """What issuers of one kind have in common."""

    title: str
    scopes: tuple[str, ...]
    claims: tuple[str, ...] = ENTITLEMENT_CLAIMS
    patterns: tuple[str, ...] = ()


PRESETS: Mapping[str | None, Preset] = {
    None: Preset("", (*_BASE_SCOPES, *ENTITLEMENT_CLAIMS)),
    "egi-check-in": Preset(
        "EGI Check-in",
        (*_BASE_SCOPES, "voperson_id", *ENTITLEMENT_CLAIMS, "eduperson_assurance"),
        patterns=("urn:mace:egi.eu:group:{vo}[:{groups}][:role={role}]#aai.egi.eu",),
    ),
    "keycloak": Preset("Keycloak", _BASE_SCOPES, (*ENTITLEMENT_CLAIMS, "groups"), ("/{vo}[/{groups}]",)),
}


@dataclass(frozen=True)
class Given:
    """What an upstream says of one membership. ``vo`` is the upstream's name for it."""

    vo: str
    roles: frozenset[Role]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """A person as an upstream describes them. ``given`` None: it said nothing of memberships, which is not "none"."""

    issuer: str
    sub: str
    name: str
    assurance: frozenset[str] = frozenset()
    given: tuple[Given, ...] | None = None


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression. ``{vo}`` must be in it, ``{groups}`` and ``{role}`` may.

    Raises BadPattern.
    """
    text, depth, seen, end = "", 0, set(), 0
    for found in _TOKEN.finditer(pattern):
        if found.start() != end:
            break
        end = found.end()
        place, opens, closes, literal = found.groups()
        if place:
            if place not in _PLACES or place in seen:
                raise BadPattern(
                    f"{{{place}}} is unknown or twice in {pattern!r}: {{vo}}, {{groups}} and {{role}} are known"
                )
            seen.add(place)
            text += _PLACES[place]
        elif opens or closes:
            depth += 1 if opens else -1
            text += "(?:" if opens else ")?"
            if depth not in (0, 1):
                raise BadPattern(f"the brackets of {pattern!r} do not match")
        else:
            text += re.escape(literal)
    if end != len(pattern) or depth:
        raise BadPattern(f"the brackets of {pattern!r} do not match")
    if "vo" not in seen:
        raise BadPattern(f"{pattern!r} does not say where the organisation is: {{vo}}")
    return re.compile(text)


@lru_cache(maxsize=8192)
def _parts_of(value: str, patterns: tuple[str, ...]) -> tuple[str, str, str] | None:
    """VO, group and role of an entitlement; None: it matches none. Kept: the same ones come with every token."""
    match = next((hit for hit in (compile_pattern(one).fullmatch(value) for one in patterns) if hit), None)
    if match is None:
        return None
    parts = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
    return parts["vo"], parts.get("groups", "").replace("/", ":"), parts.get("role", "")


_KNOWN_ROLES = frozenset(role.value for role in Role)
_OWN_ROLES = _ROLES | {role.value: role.value for role in Role}


def read_entitlements(
    values: Iterable[str], patterns: Sequence[str], roles: Mapping[str, str] | None = None
) -> tuple[Given, ...]:
    """The memberships that entitlements mean, by VO. What matches no pattern means nothing here.

    Everybody who is named in a VO is a member of it. A role of a group below the VO is none of the VO.
    """
    some = tuple(islice(values, _MOST_ENTITLEMENTS))
    return _read_entitlements(some, tuple(patterns), tuple(roles.items()) if roles else ())


@lru_cache(maxsize=2048)
def _read_entitlements(
    values: tuple[str, ...], patterns: tuple[str, ...], roles: tuple[tuple[str, str], ...]
) -> tuple[Given, ...]:
    words = _OWN_ROLES | dict(roles)
    found: dict[str, tuple[set[Role], set[str]]] = {}
    for value in values:
        parts = _parts_of(value, patterns) if len(value) <= _MOST_LENGTH else None
        if parts is None:
            continue
        vo, group, role = parts
        held, groups = found.setdefault(vo, (set(), set()))
        if group:
            groups.add(group)
        elif (word := words.get(role)) in _KNOWN_ROLES:
            held.add(Role(word))
    return tuple(Given(vo, frozenset(held), tuple(sorted(groups))) for vo, (held, groups) in sorted(found.items()))


def read_profile(
    claims: Mapping[str, Any],
    issuer: str,
    *,
    entitlement_claims: Sequence[str],
    patterns: Sequence[str],
    roles: Mapping[str, str],
    is_complete: bool,
) -> Profile:
    """A person, of the claims about them. ``is_complete``: a claim that is not there is empty, not unknown."""
    said = [name for name in entitlement_claims if name in claims]
    values = [value for name in said for value in _words(claims[name])]
    given = read_entitlements(dict.fromkeys(values), patterns, roles) if said or is_complete else None
    name = next(
        (text for key in ("preferred_username", "name", "username") if (text := clean_name(claims.get(key)))), ""
    )
    return Profile(
        issuer,
        str(claims["sub"]),
        name or f"user-{str(claims['sub'])[:8]}",
        frozenset(_words(claims.get("eduperson_assurance"))),
        given,
    )


def clean_name(value: object) -> str:
    """A name that can be shown and typed: printable, no white space at the ends, 80 letters at most."""
    text = " ".join(str(value).split()) if isinstance(value, str) else ""
    return "".join(letter for letter in text if letter.isprintable() and letter not in "/<>\"'\\")[:80].strip()


def is_assured(profile: Profile, needed: Sequence[str]) -> bool:
    """Whether one of the needed values of eduperson_assurance is there. None needed: always."""
    return not needed or bool(profile.assurance & set(needed))


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
