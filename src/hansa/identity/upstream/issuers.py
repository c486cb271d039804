"""The issuers that this server trusts: of the settings, with what their presets add, secrets read once."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.identity.model import Role
from hansa.identity.upstream.model import PRESETS, BadPattern, Profile, compile_pattern, read_profile
from hansa.kernel.errors import SETTING, Fault
from hansa.kernel.settings import IssuerSettings


@dataclass(frozen=True)
class Issuer:
    """An upstream issuer; see :class:`IssuerSettings` for the fields."""

    name: str
    title: str
    url: str
    client_id: str
    secret: str | None = field(repr=False)
    login: bool
    offline: bool
    ca_file: str | None
    scopes: tuple[str, ...]
    claims: tuple[str, ...]
    patterns: tuple[str, ...]
    roles: dict[str, str]
    assurance: tuple[str, ...]
    audiences: frozenset[str]
    clients: frozenset[str]
    api_scopes: frozenset[str]
    introspect: bool

    @property
    def takes_tokens(self) -> bool:
        """Whether the API takes its access tokens at all."""
        return bool(self.audiences or self.clients)

    @property
    def rules_vos(self) -> bool:
        return bool(self.patterns)


class Issuers:
    """All of them, by name and by URL."""

    def __init__(self, issuers: Iterable[Issuer] = ()) -> None:
        self._all = tuple(issuers)

    def __iter__(self) -> Iterator[Issuer]:
        return iter(self._all)

    def named(self, name: str) -> Issuer | None:
        return next((one for one in self._all if one.name == name), None)

    def of_url(self, url: object) -> Issuer | None:
        """Exactly this URL: a slash more or less is another issuer."""
        return next((one for one in self._all if one.url == url), None)

    @property
    def offered(self) -> list[Issuer]:
        """Those of the login page."""
        return [one for one in self._all if one.login]


def read_issuers(settings: Iterable[IssuerSettings], own: str) -> Issuers:
    """The issuers of the settings. Raises Fault ``kernel.setting`` for a bad pattern, role or secret file."""
    return Issuers([_issuer(one, own) for one in settings])


def _issuer(one: IssuerSettings, own: str) -> Issuer:
    preset = PRESETS[one.preset]
    patterns = preset.patterns if one.patterns is None else one.patterns
    if one.url == own:
        raise _wrong(one, f"{one.url} is this server itself")
    for pattern in patterns:
        try:
            compile_pattern(pattern)
        except BadPattern as error:
            raise _wrong(one, str(error)) from error
    if unknown := sorted(set(one.roles.values()) - {role.value for role in Role}):
        raise _wrong(one, f"there is no role {unknown[0]}: {', '.join(Role)}")
    return Issuer(
        name=one.name,
        title=one.title or preset.title or one.name,
        url=one.url,
        client_id=one.client_id,
        secret=_secret(one) if one.client_secret_file else None,
        login=one.login,
        offline=one.offline,
        ca_file=str(one.ca_file) if one.ca_file else None,
        scopes=preset.scopes if one.scopes is None else one.scopes,
        claims=preset.claims if one.claims is None else one.claims,
        patterns=patterns,
        roles=one.roles,
        assurance=one.assurance,
        audiences=frozenset(one.audiences),
        clients=frozenset(one.clients),
        api_scopes=frozenset(one.api_scopes),
        introspect=one.introspect,
    )


def _secret(one: IssuerSettings) -> str:
    file = Path(one.client_secret_file or "").expanduser()
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise Fault(
                SETTING, f"Others can read {file}, the secret of the issuer {one.name}.", hint=f"chmod 600 {file}"
            )
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise _wrong(one, f"{file} cannot be read ({error.strerror})") from error


def _wrong(one: IssuerSettings, why: str) -> Fault:
    return Fault(
        SETTING, f"The issuer {one.name} is not set up right: {why}.", hint="See identity.issuers in config.toml."
    )


def profile_of(claims: Mapping[str, Any], issuer: Issuer, *, is_complete: bool) -> Profile:
    """A person, of claims that were checked."""
    return read_profile(
        claims,
        issuer.url,
        entitlement_claims=issuer.claims,
        patterns=issuer.patterns,
        roles=issuer.roles,
        is_complete=is_complete,
    )
