"""Which server, and with which token: arguments, environment, config files, else the embedded server.

The settings of :mod:`hansa.kernel.settings` are the truth; here the few keys that a client needs are read
without pydantic, whose import alone takes longer than a job on a warm server.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hansa.client.errors import SERVER_AWAY, USAGE, HansaError, ServerAway

if TYPE_CHECKING:
    from hansa.client.agent import Agent
    from hansa.client.logins import Login

TIMEOUT_S = 30.0
START_TIMEOUT_S = 90.0

Starter = Callable[[Path], "Endpoint"]
"""Makes sure that the embedded server of a home runs, and says where it is."""


@dataclass(frozen=True)
class Endpoint:
    """A server: URL, token, and the home where it is the embedded server of that."""

    url: str
    token: str | None = None
    home: Path | None = None
    timeout_s: float = TIMEOUT_S
    ca_file: str | None = None
    pid: int | None = None
    since: float | None = None
    """Seconds since 1970; pid and since are known of an embedded server."""
    login: Login | Agent | None = None

    def bearer(self) -> str | None:
        """The token for a request; one of a stored sign-in is refreshed first where it is about to expire."""
        return self.token if self.login is None else self.login.token()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"


def default_home(environ: Mapping[str, str]) -> Path:
    """``$HANSA_HOME``, else ``~/.local/share/hansa`` (XDG); as hansa.kernel.settings.default_home."""
    if home := environ.get("HANSA_HOME"):
        return Path(home).expanduser().absolute()
    return Path(environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "hansa"


def configured(server: str | None, token: str | None, home: Path | None, environ: Mapping[str, str]) -> Endpoint | None:
    """The server that somebody named, or None: then it is the embedded one of the home."""
    folder = home or default_home(environ)
    client = {} if home and not server else _client_table(folder)
    url = server or (None if home else environ.get("HANSA_SERVER") or environ.get("HANSA_CLIENT__SERVER"))
    url = url or client.get("server")
    if not url and not home and "HANSA_HOME" not in environ:
        url = _signed_in_at(environ)
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise HansaError(
            USAGE,
            f"The address of the server is not a URL: {url}.",
            hint="Write it with its scheme, as in https://hansa.example.org or http://127.0.0.1:8642.",
        )
    timeout_s = float(environ.get("HANSA_CLIENT__TIMEOUT_S") or client.get("timeout_s") or TIMEOUT_S)
    ca_file = environ.get("HANSA_CA_FILE") or None
    given = token or _token(environ)
    login = None if given else _agent(environ) or _login(url.rstrip("/"), environ)
    return Endpoint(url.rstrip("/"), given, None, timeout_s, ca_file, login=login)


def running(home: Path) -> Endpoint | None:
    """The embedded server of a home, if it lives: a lock that no crash leaves behind says so.

    A port alone proves nothing: after a crash somebody else may have it, whom our token is not for.
    """
    run = home / "run"
    try:
        with (run / "server.lock").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pass
    except OSError:
        return None
    try:
        found = json.loads((run / "server.json").read_bytes())
        return Endpoint(
            found["url"].rstrip("/"),
            found["token"],
            home,
            ca_file=found.get("ca_file"),
            pid=int(found["pid"]),
            since=found.get("since"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is only just starting


def start(home: Path) -> Endpoint:
    """Start the embedded server with ``hansa up`` of the same Python, unless it runs."""
    command = [sys.executable, "-m", "hansa.cli.main", "up"]
    environ = dict(os.environ) | {"HANSA_HOME": str(home)}
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_start(home, str(error)) from error
    endpoint = running(home)
    if done.returncode or endpoint is None:
        raise _no_start(home, done.stderr.strip()[-500:])
    return endpoint


def connect(
    server: str | None = None,
    token: str | None = None,
    home: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    starter: Starter = start,
) -> tuple[Endpoint, Callable[[], Endpoint] | None]:
    """The endpoint, and how to bring it back when it does not answer (None: nothing but waiting helps)."""
    env = dict(os.environ) if environ is None else environ
    folder = Path(home).expanduser().absolute() if home else None
    if named := configured(server, token, folder, env):
        return named, None
    place = folder or default_home(env)
    return running(place) or starter(place), lambda: starter(place)


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("HANSA_TOKEN"):
        return token.strip()
    if file := environ.get("HANSA_TOKEN_FILE"):
        try:
            return Path(file).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise HansaError(
                USAGE,
                f"The token file {file} cannot be read: {error.strerror}.",
                hint="HANSA_TOKEN_FILE names it.",
            ) from error
    return None


def config_folder(environ: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/hansa``, else ``~/.config/hansa``."""
    return Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "hansa"


def _signed_in_at(environ: Mapping[str, str]) -> str | None:
    """The server of the last ``hansa login``, if that still stands."""
    try:
        return (config_folder(environ) / "logins" / "current").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _agent(environ: Mapping[str, str]) -> Agent | None:
    account = environ.get("HANSA_OIDC_AGENT")
    if not account:
        return None
    from hansa.client.agent import Agent

    return Agent(account)


def _login(url: str, environ: Mapping[str, str]) -> Login | None:
    if not (config_folder(environ) / "logins").is_dir():
        return None
    from hansa.client import logins

    return logins.find(url, environ)


def _client_table(home: Path) -> dict[str, Any]:
    # Not hansa.toml: a checkout that somebody else wrote must not choose who gets this user's token.
    merged: dict[str, Any] = {}
    for file in (Path("/etc/hansa/config.toml"), home / "config.toml"):
        if file.is_file():
            import tomllib

            try:
                table = tomllib.loads(file.read_text(encoding="utf-8")).get("client", {})
            except (OSError, ValueError) as error:
                raise HansaError(USAGE, f"{file} cannot be read: {error}.", hint="Correct it, or remove it.") from error
            merged |= table if isinstance(table, dict) else {}
    return merged


def _no_start(home: Path, why: str) -> ServerAway:
    return ServerAway(
        SERVER_AWAY,
        f"The embedded server of {home} could not be started{': ' + why if why else '.'}",
        hint="Run: hansa up, and look at hansa doctor.",
    )
