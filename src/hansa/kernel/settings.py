"""Settings: read once at start, passed in, never global.

Order: flag > environment (``HANSA_SERVER__PORT``) > project file ``hansa.toml`` > user
(``$HANSA_HOME/config.toml``) > system (``/etc/hansa/config.toml``) > default. A project file may set only the
``client`` and ``job`` tables: a checkout that somebody else wrote must not reconfigure a server.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hansa.kernel import errors

SYSTEM_FILE = Path("/etc/hansa/config.toml")
PROJECT_TABLES = {"client", "job"}

Seconds = Annotated[float, Gt(0)]
Bytes = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServerSettings(_Table):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on. The embedded server listens on loopback only."""

    port: Annotated[int, Ge(0), Le(65535)] = 0
    """TCP port. 0: chosen at the first start, written to config.toml and kept."""

    url: str | None = None
    """The URL that clients and pilots use. Default: made of host and port."""

    tls_certificate: Path | None = None
    """PEM file of the certificate chain. Default: plain HTTP, for loopback or behind a proxy."""

    tls_key: Path | None = None
    """PEM file of the private key that belongs to tls_certificate."""

    ca_file: Path | None = None
    """PEM file of the authority that signed tls_certificate, for pilots, where computers do not know it."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses of proxies whose X-Forwarded headers are believed."""

    graceful_s: Seconds = 10.0
    """Seconds that open requests get at a stop."""

    request_limit_bytes: Bytes = 64 * 1024**2
    """Bytes that the body of one request may have; uploads of files have their own limit."""


class IssuerSettings(_Table):
    """An OpenID Connect issuer that people of this server may sign in at (``[[identity.issuers]]``)."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    """Short name, as in ``check-in``. It is part of the redirect URI that the issuer is given."""

    url: str
    """The issuer, exactly as it calls itself in its tokens."""

    client_id: str
    """This server's name as a client of the issuer."""

    client_secret_file: Path | None = None
    """File (0600) with the client's secret. Default: a public client."""

    preset: Literal["egi-check-in", "keycloak"] | None = None
    """Defaults for scopes, claims, patterns and roles of such an issuer."""

    title: str | None = None
    """What the login page calls it. Default: the preset's, else the name."""

    login: bool = True
    """Whether the login page offers it. Tokens may be accepted all the same."""

    ca_file: Path | None = None
    """PEM file of the authority that signed the issuer's certificate, where computers do not know it."""

    scopes: tuple[str, ...] | None = None
    """Scopes that are asked for at a login. Default: the preset's, else openid, profile and entitlements."""

    offline: bool = True
    """Whether a lasting sign-in (offline_access) may be asked for, so that work goes on while its user is away."""

    claims: tuple[str, ...] | None = None
    """Claims that hold entitlements. Default: eduperson_entitlement and entitlements."""

    patterns: tuple[str, ...] | None = None
    """Which entitlements are memberships, as ``urn:mace:egi.eu:group:{vo}[:{groups}][:role={role}]#aai.egi.eu``.
    What is in brackets may be missing. Default: the preset's; without preset and pattern none are."""

    roles: dict[str, str] = {}
    """Roles of the issuer that are other words for ours: ``{"vo-admin" = "manager"}``. Unknown roles give nothing."""

    assurance: tuple[str, ...] = ()
    """Values of eduperson_assurance, one of which everybody needs who signs in here. Default: none needed."""

    audiences: tuple[str, ...] = ()
    """The API takes the issuer's access tokens that name one of these as their audience."""

    clients: tuple[str, ...] = ()
    """The API takes the issuer's access tokens that were given to one of these clients (azp, client_id)."""

    api_scopes: tuple[str, ...] = ()
    """Scopes that such tokens must have, all of them."""

    introspect: bool = True
    """Whether the issuer is asked every minute if such a token is still good. Needs a client secret."""

    @field_validator("url")
    @classmethod
    def _is_private(cls, url: str) -> str:
        parts = urlsplit(url)
        on_loopback = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or on_loopback) or parts.query or parts.fragment:
            raise ValueError("an issuer is an https address without query and fragment")
        return url


class IdentitySettings(_Table):
    """Sign-in."""

    issuer: str | None = None
    """Name of this server as an issuer of accounts. Chosen at the first start, then kept."""

    access_token_s: Annotated[int, Gt(0), Le(86_400)] = 3600
    """Seconds that an access token is good for."""

    session_s: Annotated[int, Gt(0)] = 12 * 3600
    """Seconds that a sign-in of a browser lasts, and the refresh tokens that were given under it."""

    offline_s: Annotated[int, Gt(0)] = 30 * 86_400
    """Seconds without use after which a sign-in with the scope offline_access (as the command line's) ends."""

    invitation_s: Annotated[int, Gt(0)] = 7 * 86_400
    """Seconds that an invitation is good for, unless it says otherwise."""

    device_interval_s: Annotated[int, Gt(0)] = 5
    """Seconds between two questions of a device that waits for its user."""

    passwords: bool = True
    """Whether the login page offers name and password."""

    introspect_s: Annotated[int, Gt(0), Le(900)] = 60
    """Seconds after which an issuer is asked again about a token of its own that is used here."""

    away_s: Annotated[int, Gt(0), Le(900)] = 900
    """Seconds, 900 at most, that tokens of an issuer are believed while it is away; never beyond their own end."""

    issuers: tuple[IssuerSettings, ...] = ()
    """Issuers to sign in at: ``[[identity.issuers]]`` once for each in config.toml."""

    @field_validator("issuers", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("issuers")
    @classmethod
    def _are_different(cls, issuers: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
        for what in ("name", "url"):
            if len({getattr(one, what) for one in issuers}) != len(issuers):
                raise ValueError(f"two issuers have the same {what}")
        return issuers


class DatabaseSettings(_Table):
    """The database."""

    url: str | None = None
    """``postgresql://USER@HOST/NAME`` for a federation. Default: SQLite in HANSA_HOME/db."""


class ObjectSettings(_Table):
    """Where contents of job files and logs are kept."""

    url: str | None = None
    """A folder, or ``s3://BUCKET/PREFIX``. Default: ``blobs`` in HANSA_HOME. Several servers share one."""

    endpoint: str | None = None
    """URL of the S3 server. Default: AWS's for the region. Its keys come from where AWS's tools look for them:
    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or ``~/.aws/credentials``."""

    region: str | None = None
    """Region of the S3 server. Default: that of AWS's configuration."""

    profile: str | None = None
    """Section of ``~/.aws/credentials``. Default: ``AWS_PROFILE``, else ``default``."""

    path_style: bool = True
    """Whether buckets are named in the path, as most S3 servers want it, or in the host name."""


class LogSettings(_Table):
    """Logs of the server."""

    level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""

    format: str = "auto"
    """``json``, ``text``, or ``auto``: text on a terminal, JSON otherwise."""


class FileSettings(_Table):
    """Files of jobs."""

    limit_bytes: Bytes = 2 * 1024**3
    """Bytes of the largest single file that travels with a job."""

    job_limit_bytes: Bytes = 10 * 1024**3
    """Bytes of all input files of one job together."""

    job_limit_files: Annotated[int, Gt(0)] = 20_000
    """Number of input files of one job."""

    user_limit_bytes: Count = 0
    """Bytes of uploaded files that one user may keep here. 0: as many as there is room for."""

    free_bytes: Count = 256 * 1024**2
    """Bytes that stay free on the server's disk: uploads are refused below."""


class JobSettings(_Table):
    """Defaults and limits of jobs."""

    cores: Annotated[int, Gt(0)] = 1
    """Cores of a task, unless it says otherwise."""

    memory_mib: Annotated[int, Gt(0)] = 1024
    """Memory of a task in MiB, unless it says otherwise."""

    wall_time_s: Annotated[int, Gt(0)] = 3600
    """Wall time of a task in seconds, unless it says otherwise."""

    array_limit: Annotated[int, Gt(0)] = 10_000_000
    """Tasks that one array may have."""

    crash_limit: Annotated[int, Gt(0)] = 3
    """A task whose pilots died under it so many times is stopped."""

    node_retries: Count = 3
    """How often a task is run again after faults that were not its own."""

    log_limit_bytes: Bytes = 64 * 1024**2
    """Bytes that are kept of one log stream of one task."""

    usage_series_limit: Count = 10_000
    """Tasks of one job of which the use over time is kept after their end, about 1 KiB each. It is told of tasks that
    run for two seconds or longer."""

    share_half_life_s: Seconds = 7 * 86_400.0
    """Seconds in which what was used loses half its weight in fair shares. A change forgets what was used."""


class MailSettings(_Table):
    """Mail that the server sends: notices of jobs (``--notify``)."""

    host: str | None = None
    """The SMTP server that takes it. None: no mail is sent."""

    port: Annotated[int, Gt(0), Le(65_535)] = 587
    """Its port."""

    security: Literal["starttls", "tls", "none"] = "starttls"
    """``starttls``, ``tls`` from the beginning (port 465), or ``none``: for a server on this computer."""

    user: str | None = None
    """Name to sign in with. None: without."""

    password_file: Path | None = None
    """File with the password, mode 0600."""

    ca_file: Path | None = None
    """Certificates that sign the SMTP server's. None: those of the system."""

    sender: str | None = None
    """Address that it comes from. None: hansa@ the host."""

    domains: list[str] = []
    """Domains to which mail may go, so that nobody uses the server to write to strangers. Empty: all."""


class PilotSettings(_Table):
    """Pilots, which run the tasks at a site."""

    idle_timeout_s: Seconds = 300.0
    """Seconds after which a pilot without work ends."""

    batch_idle_timeout_s: Seconds = 60.0
    """The same of pilots that a batch system or another computer runs: what they hold, others may want."""

    silence_s: Seconds = 60.0
    """Seconds without a word after which the server asks the batch system whether a pilot lives."""

    lost_s: Seconds = 1800.0
    """Seconds without a word after which a pilot that the batch system calls running counts as lost."""


class LocalSettings(_Table):
    """The embedded site: this computer."""

    enabled: bool = True
    """Whether jobs of the owner may run here. Off where several people share the server."""

    cores: Annotated[int, Gt(0)] | None = None
    """Cores offered. Default: all that this process may use."""

    memory_mib: Annotated[int, Gt(0)] | None = None
    """Memory offered in MiB. Default: all of the computer's."""


class ImageSettings(_Table):
    """VM images."""

    folder: Path | None = None
    """Where contents are kept. Default: ``images`` in HANSA_HOME; several servers share one."""

    limit_bytes: Bytes = 64 * 1024**3
    """Bytes that the content of one VM image may have."""

    free_bytes: Count = 1024**3
    """Bytes that stay free on that disk: images are not fetched below."""


class MachineSettings(_Table):
    """Machines."""

    local: tuple[str, ...] = ("nspawn", "qemu")
    """How this computer runs machines for its owner, the preferred way first; ways that do not work here are left
    out. ``fake``: nothing really runs, and all is forgotten at a restart: for tests, and to look around."""

    start_s: Seconds = 1800.0
    """Seconds that a machine may take to start at a site before the next one is tried."""

    attempts: Annotated[int, Gt(0)] = 3
    """Sites that are tried for one machine."""

    history_days: Annotated[int, Gt(0)] = 30
    """Days that deleted machines can still be looked at."""

    @field_validator("local", mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        return tuple(word for word in value.replace(",", " ").split()) if isinstance(value, str) else value


class SiteSettings(_Table):
    """Sites: how often they are looked at, and which addresses they may have."""

    probe_s: Seconds = 300.0
    """Seconds between two probes of an endpoint."""

    probe_timeout_s: Seconds = 20.0
    """Seconds that a probe may take."""

    discover_s: Seconds = 3600.0
    """Seconds after which an endpoint is asked anew for flavours, VM images, networks and quotas."""

    discover_timeout_s: Seconds = 120.0
    """Seconds that it may take to answer that, for each VO."""

    canary_s: Seconds = 6 * 3600.0
    """Seconds without any start at an endpoint after which a canary is sent there, the smallest job or machine that
    there is. Only where the site's policy has ``canaries``."""

    canary_wait_s: Seconds = 3600.0
    """Seconds that a canary may wait in a site's queue before it is taken back. That says nothing against the site."""

    networks: tuple[str, ...] = ()
    """Private networks (``10.1.0.0/16``) in which sites may have addresses. An embedded server allows all private
    ones and loopback; link-local addresses are never allowed."""

    history_days: Annotated[int, Gt(0)] = 400
    """Days that the history of probes is kept."""


class RetentionSettings(_Table):
    """What is deleted when."""

    events_days: Annotated[int, Gt(0)] = 365
    """Days that events are kept."""

    attempts_days: Count = 365
    """Days that a job's earlier attempts are kept after its end. 0: for ever."""

    job_files_days: Count = 365
    """Days that input and output files are kept after the end of their job. 0: for ever."""

    logs_days: Count = 365
    """Days that output of tasks (stdout, stderr) is kept after the end of their job. 0: for ever."""

    uploads_days: Annotated[int, Gt(0)] = 30
    """Days without use after which an uploaded file is deleted that no job has."""

    unclaimed_days: Annotated[int, Gt(0)] = 14
    """Days after which content is deleted that nobody claimed: an upload that broke off, an output never reported."""

    idempotency_hours: Annotated[int, Gt(0)] = 48
    """Hours for which the answer to an Idempotency-Key is remembered."""


class ClientSettings(_Table):
    """The command line and the Python API."""

    server: str | None = None
    """URL of the server. Default: the embedded server of HANSA_HOME, started on first use."""

    timeout_s: Seconds = 30.0
    """Seconds to wait for an answer of the server."""


class Settings(_Table):
    """All settings."""

    server: ServerSettings = ServerSettings()
    identity: IdentitySettings = IdentitySettings()
    database: DatabaseSettings = DatabaseSettings()
    log: LogSettings = LogSettings()
    files: FileSettings = FileSettings()
    objects: ObjectSettings = ObjectSettings()
    job: JobSettings = JobSettings()
    mail: MailSettings = MailSettings()
    pilot: PilotSettings = PilotSettings()
    local: LocalSettings = LocalSettings()
    images: ImageSettings = ImageSettings()
    machines: MachineSettings = MachineSettings()
    sites: SiteSettings = SiteSettings()
    retention: RetentionSettings = RetentionSettings()
    client: ClientSettings = ClientSettings()


def read_settings(
    home: Path,
    *,
    flags: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    project: Path | None = None,
    system: Path = SYSTEM_FILE,
) -> Settings:
    """Merge all sources. Raises Fault ``kernel.setting`` naming the source and the key that is wrong."""
    merged: dict[str, Any] = {}
    for file in (system, home / "config.toml"):
        _merge(merged, _read_file(file))
    if project is not None:
        found = _read_file(project)
        if foreign := sorted(set(found) - PROJECT_TABLES):
            raise errors.Fault(
                errors.SETTING,
                f"{project} sets {', '.join(foreign)}; such a file may set only {', '.join(sorted(PROJECT_TABLES))}.",
                hint=f"Move it to {home / 'config.toml'}.",
            )
        _merge(merged, found)
    _merge(merged, _from_environment(dict(os.environ) if environ is None else environ))
    _merge(merged, flags or {})
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise errors.Fault(
            errors.SETTING,
            f"The setting {key} is not valid: {first['msg']}.",
            hint="hansa.toml, config.toml and HANSA_ variables are read; the settings reference lists all keys.",
        ) from error


def find_project_file(start: Path) -> Path | None:
    """The nearest ``hansa.toml`` at or above ``start``."""
    for folder in (start, *start.parents):
        if (folder / "hansa.toml").is_file():
            return folder / "hansa.toml"
    return None


def default_home(environ: dict[str, str] | None = None) -> Path:
    """``$HANSA_HOME``, else ``~/.local/share/hansa`` (XDG)."""
    env = dict(os.environ) if environ is None else environ
    if home := env.get("HANSA_HOME"):
        return Path(home).expanduser().absolute()
    data = env.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "hansa"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.Fault(errors.SETTING, f"{path} cannot be read: {error}.") from error


def _from_environment(environ: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environ.items():
        table, separator, key = name.removeprefix("HANSA_").lower().partition("__")
        if name.startswith("HANSA_") and separator and table in Settings.model_fields:
            is_list = _is_list(Settings.model_fields[table].annotation, key)
            found.setdefault(table, {})[key] = value.replace(",", " ").split() if is_list else value
    return found


def _is_list(table: Any, key: str) -> bool:
    """Whether a setting is a list of words: in the environment they stand beside each other, with commas or spaces."""
    field = getattr(table, "model_fields", {}).get(key)
    wanted = tuple[str, ...]
    return field is not None and wanted in (field.annotation, *get_args(field.annotation))


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for table, values in more.items():
        if isinstance(values, dict) and isinstance(into.get(table), dict):
            into[table].update(values)
        else:
            into[table] = dict(values) if isinstance(values, dict) else values
