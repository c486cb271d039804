"""Tokens of oidc-agent: it keeps a person's sign-ins at any issuer, and gives out access tokens on request."""

from __future__ import annotations

import subprocess
import threading
import time

from hansa.client.errors import NO_LOGIN, HansaError

VARIABLE = "HANSA_OIDC_AGENT"
_MARGIN_S = 60
_TIMEOUT_S = 60.0


class Agent:
    """An account of the agent (``HANSA_OIDC_AGENT=account``). A token is asked for when the last one nears its end."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._token = ""
        self._expires = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Agent({self._account!r})"

    def token(self) -> str:
        """An access token that is good for another minute. Raises HansaError ``client.no_login``."""
        with self._lock:
            if time.time() > self._expires - _MARGIN_S:
                self._token, self._expires = self._ask()
            return self._token

    def _ask(self) -> tuple[str, float]:
        command = ["oidc-token", "--all", f"--time={_MARGIN_S + 10}", "--", self._account]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HansaError(
                NO_LOGIN,
                f"oidc-token gave no token of the account {self._account}: {error}.",
                hint=f"{VARIABLE} names an account of oidc-agent; is the agent installed?",
            ) from error
        try:
            token, _issuer, expires = done.stdout.split()
            return token, float(expires)
        except ValueError:
            said = (done.stderr or done.stdout).strip()[-300:]
            raise HansaError(
                NO_LOGIN,
                f"oidc-agent gave no token of the account {self._account}: {said or f'exit code {done.returncode}'}",
                hint=f"Is the agent running (OIDC_SOCK)? oidc-add {self._account} loads the account.",
            ) from None
