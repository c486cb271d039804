"""For people with an OpenStack client: how to sign in at a site with a token of Hansa, and the client at many sites.

A token goes to a site only narrowed: it says who you are and in which VOs, and is not good for Hansa itself.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hansa.client.errors import SITE, USAGE, HansaError
from hansa.kernel.secrets import write_private
from hansa.sites.wire import Site

SCOPE = "openid profile voperson_id eduperson_entitlement entitlements"
"""What a site may know of you."""
CLOUD = "hansa"
TIMEOUT_S = 30.0
COMMAND_S = 600.0
SITES_AT_ONCE = 32


@dataclass(frozen=True)
class SiteAccess:
    """How to sign in at the OpenStack of a site. ``project``: an id or a name; None: to be found by its VO."""

    site: str
    auth_url: str
    vo: str
    project: str | None
    provider: str = "egi.eu"
    protocol: str = "openid"
    region: str | None = None
    ca: str | None = None
    project_property: str = "egi.VO"


@dataclass(frozen=True)
class Ran:
    """What the client said at one site: ``rows`` where it gave a table."""

    site: str
    code: int
    output: str
    words: str
    rows: list[dict[str, Any]] | None = None


def access_of(site: Site, vo: str) -> SiteAccess:
    """Raises HansaError where the site has no OpenStack that serves the VO and trusts tokens."""
    ends = [one for one in site.endpoints if one.kind == "openstack" and one.url]
    if not ends:
        raise HansaError(SITE, f"{site.name} has no OpenStack.", hint="hansa site list shows the kinds of sites.")
    for one in ends:
        for served in one.vos:
            if served.vo == vo:
                return _access(site.name, one.url or "", vo, served.project, one.sign_in)
    vos = ", ".join(site.vos) or "none of yours"
    raise HansaError(SITE, f"{site.name} does not serve {vo} with OpenStack.", hint=f"It serves: {vos}.")


def _access(site: str, url: str, vo: str, project: str | None, said: Mapping[str, Any]) -> SiteAccess:
    if said.get("auth", "v3oidcaccesstoken") != "v3oidcaccesstoken":
        raise HansaError(USAGE, f"{site} does not take tokens: it signs users in by {said['auth']}.")
    names = {"identity_provider": "provider", "protocol": "protocol", "project_property": "project_property"}
    given = {field: str(said[name]) for name, field in names.items() if said.get(name)}
    return SiteAccess(site, url.rstrip("/"), vo, project, region=said.get("region"), ca=said.get("ca"), **given)


def find_project(access: SiteAccess, token: str) -> str:
    """The id of the VO's project, asked of the site. Raises HansaError with what the site said."""
    import httpx

    base = access.auth_url
    provider, protocol = quote(access.provider, safe=""), quote(access.protocol, safe="")
    sign_in = f"{base}/OS-FEDERATION/identity_providers/{provider}/protocols/{protocol}/auth"
    try:
        with httpx.Client(timeout=TIMEOUT_S, verify=_trust(access)) as http:
            answer = http.post(sign_in, headers={"Authorization": f"Bearer {token}"})
            if answer.status_code == 401:
                raise HansaError(
                    USAGE,
                    f"{access.site} refused your token.",
                    hint=f"Perhaps its administrators do not know {access.vo}, or you are no member: hansa vo list",
                )
            answer.raise_for_status()
            signed_in = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
            found = http.get(f"{base}/auth/projects", headers=signed_in).raise_for_status().json()["projects"]
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise HansaError(SITE, f"{access.site} did not let us in: {error}.") from error
    for one in found:
        if access.project in (one["id"], one["name"]) if access.project else _is_of(one, access):
            return str(one["id"])
    names = ", ".join(one["name"] for one in found) or "none"
    raise HansaError(SITE, f"{access.site} has no project of {access.vo} for you.", hint=f"It has: {names}.")


def _is_of(project: Mapping[str, Any], access: SiteAccess) -> bool:
    return access.vo in (project.get(access.project_property), project["name"])


def _trust(access: SiteAccess) -> Any:
    import ssl

    return ssl.create_default_context(cadata=access.ca) if access.ca else True


def exports(access: SiteAccess, project_id: str) -> str:
    """Lines for a shell. The token is not in them: the shell asks for a fresh one."""
    values = {
        "OS_AUTH_TYPE": "v3oidcaccesstoken",
        "OS_AUTH_URL": access.auth_url,
        "OS_IDENTITY_PROVIDER": access.provider,
        "OS_PROTOCOL": access.protocol,
        "OS_PROJECT_ID": project_id,
        "OS_IDENTITY_API_VERSION": "3",
        **({"OS_REGION_NAME": access.region} if access.region else {}),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, 'export OS_ACCESS_TOKEN="$(hansa token --for-sites)"'])


def find_client(environ: Mapping[str, str]) -> str:
    """The real client: on PATH, or beside this Python. Raises HansaError with how to get it."""
    found = shutil.which("openstack", path=environ.get("PATH"))
    beside = Path(sys.executable).with_name("openstack")
    if found or beside.exists():
        return found or str(beside)
    raise HansaError(
        SITE,
        "The OpenStack client is not installed.",
        hint="uv tool install python-openstackclient, or: pip install python-openstackclient",
    )


def run_at(accesses: Sequence[SiteAccess], token: str, command: Sequence[str], environ: Mapping[str, str]) -> list[Ran]:
    """The client at all these sites at once, in their order. The token is only in 0600 files that are then removed."""
    program = find_client(environ)
    wanted = _with_format(command)
    with tempfile.TemporaryDirectory(prefix="hansa-openstack-") as folder:

        def one(numbered: tuple[int, SiteAccess]) -> Ran:
            place = Path(folder) / str(numbered[0])
            place.mkdir(mode=0o700)
            return _run_one(numbered[1], token, [program, *wanted], place, environ)

        with ThreadPoolExecutor(min(SITES_AT_ONCE, len(accesses) or 1)) as pool:
            return list(pool.map(one, enumerate(accesses)))


def _run_one(access: SiteAccess, token: str, command: Sequence[str], place: Path, environ: Mapping[str, str]) -> Ran:
    try:
        project_id = find_project(access, token)
    except HansaError as error:
        return Ran(access.site, 1, "", str(error))
    write_private(place / "clouds.yaml", json.dumps(_clouds(access, project_id, token, place)))  # JSON is YAML
    clean = {name: value for name, value in environ.items() if not name.startswith("OS_")}
    told = {"OS_CLIENT_CONFIG_FILE": str(place / "clouds.yaml"), "OS_CLOUD": CLOUD}
    try:
        done = subprocess.run(
            command,
            env=clean | told,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(access.site, 1, "", f"The client did not end within {COMMAND_S:.0f} s.")
    return Ran(access.site, done.returncode, done.stdout, done.stderr.strip(), _rows(done.stdout))


def _clouds(access: SiteAccess, project_id: str, token: str, place: Path) -> dict[str, Any]:
    cloud: dict[str, Any] = {
        "auth_type": "v3oidcaccesstoken",
        "auth": {
            "auth_url": access.auth_url,
            "identity_provider": access.provider,
            "protocol": access.protocol,
            "project_id": project_id,
            "access_token": token,
        },
        "identity_api_version": "3",
        "region_name": access.region or "",
    }
    if access.ca:
        (place / "ca.pem").write_text(access.ca, encoding="ascii")
        cloud["cacert"] = str(place / "ca.pem")
    return {"clouds": {CLOUD: {name: value for name, value in cloud.items() if value}}}


def _with_format(command: Sequence[str]) -> list[str]:
    """Tables are asked for as JSON, so that they can be put together; whoever chose a format gets that."""
    words = list(command)
    has_format = any(word in ("-f", "--format") or word.startswith(("-f", "--format=")) for word in words)
    is_table = bool({"list", "show"} & set(words[:4]))
    return words if has_format or not is_table else [*words, "-f", "json"]


def _rows(output: str) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(output)
    except ValueError:
        return None
    rows = found if isinstance(found, list) else [found]
    return rows if all(isinstance(row, dict) for row in rows) else None


def site_token(environ: Mapping[str, str]) -> str:
    """A token for sites: of the stored sign-in, narrowed; else of oidc-agent or ``HANSA_TOKEN``, as it is: who sets
    these has chosen for whom it is good. Raises HansaError where you are not signed in."""
    from hansa.client import oidc
    from hansa.client.connect import configured
    from hansa.client.errors import NO_LOGIN
    from hansa.client.logins import Login

    hidden = ("HANSA_TOKEN", "HANSA_TOKEN_FILE")
    endpoint = configured(None, None, None, {key: value for key, value in environ.items() if key not in hidden})
    login = endpoint.login if endpoint is not None else None
    if isinstance(login, Login):
        return oidc.narrowed(login.token_endpoint, login.token(), SCOPE, login.ca_file)
    if login is not None:
        return login.token()
    if given := os.environ.get("HANSA_TOKEN"):
        return given
    raise HansaError(NO_LOGIN, "You are not signed in: sites want a token.", hint="Sign in: hansa login SERVER")
