#!/usr/bin/env python3
"""Fetch the pilot's program from its server, check it, run it. Stands alone: copy this one file to a node.

    python3 bootstrap.py --config FILE

FILE is the pilot's configuration (JSON, mode 0600) with ``node_digest`` ("sha256:…") beside what the pilot
needs. The program is kept in ``work_dir`` and fetched once. Exit code 2: wrong configuration, 3: it cannot be
had.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import stat
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Dict, NoReturn, Optional, Sequence

OLDEST = (3, 9)
ROUNDS = 5
TIMEOUT_S = 60.0
LIMIT_BYTES = 64 * 1024 * 1024


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the token to another place."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def fail(code: int, text: str) -> NoReturn:
    """Say what is wrong and leave."""
    sys.stderr.write(f"bootstrap: {text}\n")
    sys.exit(code)


def read_private(path: str) -> str:
    """A file that only its owner can read."""
    try:
        with open(path, encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & 0o077:
                fail(2, f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
            return stream.read()
    except OSError as error:
        fail(2, f"cannot read {path}: {error.strerror}")


def read_config(path: str) -> Dict[str, Any]:
    """The configuration, with what is needed here."""
    try:
        config = json.loads(read_private(path))
    except ValueError as error:
        fail(2, f"{path} is not JSON: {error}")
    for key in ("pilot", "urls", "token_file", "work_dir", "node_digest"):
        if not isinstance(config, dict) or not config.get(key):
            fail(2, f"{path} lacks '{key}'")
    if not str(config["node_digest"]).startswith("sha256:"):
        fail(2, f"{path}: 'node_digest' must begin with sha256:")
    return dict(config)


def digest_of(content: bytes) -> str:
    """As in the configuration."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_good(path: str, digest: str) -> bool:
    """True if the program is there and is the right one."""
    try:
        with open(path, "rb") as stream:
            return digest_of(stream.read()) == digest
    except OSError:
        return False


def download(url: str, token: str, ca_file: Optional[str]) -> bytes:
    """The program from one address."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
        return bytes(answer.read(LIMIT_BYTES))


def fetch(config: Dict[str, Any], token: str) -> bytes:
    """The program from the first address that has it; a few rounds over all addresses."""
    problems: Dict[str, str] = {}
    for attempt in range(ROUNDS):
        if attempt:
            time.sleep(2.0**attempt)
        for base in config["urls"]:
            url = f"{base.rstrip('/')}/api/v1/pilots/{config['pilot']}/node.pyz"
            try:
                content = download(url, token, config.get("ca_file"))
            except urllib.error.HTTPError as error:
                error.close()
                problems[url] = f"the server answered {error.code}"
                if error.code in (401, 403, 404, 410):
                    fail(
                        3,
                        f"{url}: the server answered {error.code}: pilot not wanted, or its token is old",
                    )
                continue
            except (OSError, ValueError) as error:
                problems[url] = str(getattr(error, "reason", error))
                continue
            if digest_of(content) == config["node_digest"]:
                return content
            problems[url] = f"{len(content)} bytes with {digest_of(content)}, expected {config['node_digest']}"
    fail(3, "no program: " + "; ".join(f"{url}: {problem}" for url, problem in problems.items()))


def main(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the pilot."""
    if sys.version_info[:2] < OLDEST:
        fail(2, f"Python {sys.version.split()[0]} is too old: 3.9 or newer is needed")
    if len(arguments) < 2 or arguments[0] != "--config":
        fail(2, "usage: bootstrap.py --config FILE")
    config = read_config(arguments[1])
    token = read_private(config["token_file"]).strip()
    digest = str(config["node_digest"])
    place = os.path.join(config["work_dir"], f"node-{digest[7:23]}.pyz")
    try:
        os.makedirs(config["work_dir"], mode=0o700, exist_ok=True)
        if not is_good(place, digest):
            content = fetch(config, token)
            temporary = f"{place}.{os.getpid()}"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(content)
            os.rename(temporary, place)
    except OSError as error:
        fail(3, f"{config['work_dir']}: {error.strerror}")
    os.execv(sys.executable, [sys.executable, "-I", place, "pilot", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
