"""What a registry wants to see: challenges of 401 answers, and tokens from token servers.

Sources: RFC 9110 (challenges), the token authentication specification of the distribution project.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .credentials import IDENTITY_TOKEN_USER, Credential
from .errors import RegistryAway, RegistryRefused, SignInNeeded
from .web import Web, is_away

Challenge = Tuple[str, Dict[str, str]]
"""Scheme in lower case, parameters."""

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=\s|$|,)(?!\s*=)")
_PARAMETER = re.compile(r"\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]*))")
_TRUSTED_REALMS = {"docker.io": ("auth.docker.io",), "registry-1.docker.io": ("auth.docker.io",)}


def parse_challenges(header: str) -> List[Challenge]:
    """The challenges of one ``WWW-Authenticate`` header; what cannot be read is left out."""
    found: List[Challenge] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            quoted, plain = parameter.group(2), parameter.group(3)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1][1].setdefault(parameter.group(1).lower(), value)
            at = parameter.end()
            continue
        scheme = _SCHEME.match(header, at)
        if not scheme:
            break
        found.append((scheme.group(1).lower(), {}))
        at = scheme.end()
    return found


def may_have_credentials(registry: str, realm_host: str, allowed: Tuple[str, ...]) -> bool:
    """May the token server get the registry's credentials? Only on the same host, in its domain, or if allowed."""
    registry_name = urllib.parse.urlsplit(f"//{registry}").hostname or ""
    realm_name = urllib.parse.urlsplit(f"//{realm_host}").hostname or ""
    if realm_name == registry_name or realm_name in allowed or realm_host in allowed:
        return True
    if realm_name in _TRUSTED_REALMS.get(registry_name, ()):
        return True
    for domain in (registry_name, registry_name.partition(".")[2]):
        is_name = domain.count(".") >= 1 and not domain.replace(".", "").isdigit()
        if is_name and (realm_name == domain or realm_name.endswith("." + domain)):
            return True
    return False


class Authorizer:
    """Authorization for one registry host. Thread-safe. Tokens are kept by scope, in memory only."""

    def __init__(self, web: Web, host: str, credential: Optional[Credential]) -> None:
        self._web = web
        self._host = host
        self._credential = credential
        self._tokens: Dict[str, str] = {}
        self._is_basic = False
        self._lock = threading.Lock()

    def header(self, scope: str) -> Dict[str, str]:
        """What is known to be wanted so far."""
        if self._is_basic and self._credential is not None:
            return {"Authorization": self._credential.basic()}
        token = self._tokens.get(scope)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def answer(self, challenges: List[str], scope: str, refused: Mapping[str, str]) -> None:
        """After a 401 to a request with the headers ``refused``. Raises SignInNeeded where there is nothing better."""
        with self._lock:
            if self.header(scope) != dict(refused):
                return  # another thread was faster
            parsed = [one for header in challenges for one in parse_challenges(header)]
            for scheme, parameters in parsed:
                if scheme == "bearer" and parameters.get("realm"):
                    was_there = self._tokens.pop(scope, None)
                    token = self._fetch_token(parameters, scope)
                    if token == was_there:
                        raise self._refusal()
                    self._tokens[scope] = token
                    return
            if any(scheme == "basic" for scheme, _ in parsed) and self._credential is not None and not self._is_basic:
                self._is_basic = True
                return
            raise self._refusal()

    def _refusal(self) -> SignInNeeded:
        if self._credential is None:
            return SignInNeeded(f"{self._host} wants to know who asks", f"hansa container login {self._host}")
        return SignInNeeded(
            f"{self._host} does not accept the credentials of {self._credential.user!r}",
            f"hansa container login {self._host}",
        )

    def _fetch_token(self, parameters: Mapping[str, str], scope: str) -> str:
        realm = parameters["realm"]
        parts = urllib.parse.urlsplit(realm)
        place = parts.netloc
        if "@" in place or not (parts.scheme == "https" or (parts.scheme == "http" and self._web.is_plain(place))):
            raise RegistryRefused(
                f"{self._host} sends to the token server {parts.scheme}://{parts.hostname}: not allowed"
            )
        credential = self._credential
        is_trusted = may_have_credentials(self._host, place, self._web.settings.token_hosts)
        if not is_trusted:
            credential = None
        query = {"service": parameters.get("service", ""), "scope": scope or parameters.get("scope", "")}
        response = self._ask(realm, {key: value for key, value in query.items() if value}, credential)
        if response.status in (400, 401, 403):
            response.close()
            if self._credential is not None and not is_trusted:
                raise SignInNeeded(
                    f"the token server {place} of {self._host} is of another domain and did not get the credentials",
                    f"if that is right, allow it: token_hosts = [{place!r}]",
                )
            raise self._refusal()
        if is_away(response.status):
            response.close()
            raise RegistryAway(f"the token server {place} answers {response.status}")
        token = _token_in(response.body(1 << 20)) if response.status == 200 else ""
        if not token:
            raise RegistryRefused(f"the token server {place} answers {response.status} without a token")
        return token

    def _ask(self, realm: str, query: Dict[str, str], credential: Optional[Credential]) -> Any:
        if credential is not None and credential.user == IDENTITY_TOKEN_USER:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credential.secret, "client_id": "hansa"}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._web.request("POST", realm, headers, urllib.parse.urlencode(form).encode())
        joint = "&" if urllib.parse.urlsplit(realm).query else "?"
        headers = {} if credential is None else {"Authorization": credential.basic()}
        return self._web.request("GET", realm + joint + urllib.parse.urlencode(query), headers)


def _token_in(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    token = document.get("token") or document.get("access_token") or ""
    is_clean = isinstance(token, str) and not any(character.isspace() for character in token)
    return token if is_clean else ""
