#!/usr/bin/env python3
"""Give a ticket for a pilot's token, and become that pilot. Stands alone: cloud-init writes this one file.

    python3 enrol.py FILE

FILE is JSON: ``pilot``, ``urls``, ``ticket``, ``folder``, and ``ca`` (PEM) or null. A machine's user data can be read
by all its users and through its provider, so there is no token in it: the ticket is good for one machine, which shows
by a secret of its own that it asks again. Exit code 2: wrong configuration, 3: it gets no token.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Dict, NoReturn, Optional, Sequence

PATIENCE_S = 900.0
TIMEOUT_S = 30.0
LIMIT_BYTES = 1024 * 1024


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the ticket to another place."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def fail(code: int, text: str) -> NoReturn:
    """Say what is wrong, where the console shows it, and leave."""
    sys.stderr.write(f"hansa: {text}\n")
    sys.exit(code)


def write_private(path: str, text: str) -> None:
    """A file for its owner's eyes only, whole or not at all."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)


def own_secret(folder: str) -> str:
    """What this machine, and no other, shows beside the ticket; the same after a restart."""
    path = os.path.join(folder, "secret")
    if not os.path.exists(path):
        write_private(path, os.urandom(32).hex())
    with open(path, encoding="utf-8") as stream:
        return stream.read().strip()


def post(url: str, body: bytes, ca: Optional[str]) -> Dict[str, Any]:
    """One question to one address."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca)))
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
        return dict(json.loads(answer.read(LIMIT_BYTES)))


def ask(given: Dict[str, Any], secret: str) -> Dict[str, Any]:
    """The token and what goes with it, from the first address that answers; the network may come up late."""
    body = json.dumps({"ticket": given["ticket"], "secret": secret}).encode()
    until, pause_s = time.monotonic() + PATIENCE_S, 1.0
    while True:
        problem = "no address was given"
        for base in given["urls"]:
            url = f"{base.rstrip('/')}/api/v1/pilots/{given['pilot']}/enrol"
            try:
                return post(url, body, given.get("ca"))
            except urllib.error.HTTPError as error:
                error.close()
                problem = f"{url}: the server answered {error.code}"
                if error.code in (401, 403, 404, 410):
                    fail(3, f"{problem}: this machine is not wanted, or somebody else has used its ticket")
            except (OSError, ValueError) as error:
                problem = f"{url}: {getattr(error, 'reason', error)}"
        if time.monotonic() > until:
            fail(3, f"no token: {problem}")
        time.sleep(pause_s)
        pause_s = min(15.0, pause_s * 1.5)


def main(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the pilot's bootstrap."""
    if len(arguments) != 1:
        fail(2, "usage: enrol.py FILE")
    try:
        with open(arguments[0], encoding="utf-8") as stream:
            given = dict(json.load(stream))
        folder = str(given["folder"])
        os.makedirs(folder, mode=0o700, exist_ok=True)
        answer = ask(given, own_secret(folder))
        paths = {name: os.path.join(folder, name) for name in ("token", "ca.pem", "config.json", "bootstrap.py")}
        config = dict(answer["config"], token_file=paths["token"], work_dir=folder)
        if given.get("ca"):
            write_private(paths["ca.pem"], given["ca"])
            config["ca_file"] = paths["ca.pem"]
        write_private(paths["token"], answer["token"])
        write_private(paths["config.json"], json.dumps(config))
        write_private(paths["bootstrap.py"], answer["bootstrap"])
        os.unlink(arguments[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(2, f"{type(error).__name__}: {error}")
    os.execv(sys.executable, [sys.executable, "-I", paths["bootstrap.py"], "--config", paths["config.json"]])


if __name__ == "__main__":
    main(sys.argv[1:])
