"""The connection of a command: to the configured server, else to the embedded one, started when needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hansa.client.connect import Endpoint, connect, default_home
from hansa.client.transport import Transport


def home() -> Path:
    """HANSA_HOME of this user."""
    return default_home(os.environ)


def note(text: str) -> None:
    """A line of prose on stderr."""
    sys.stderr.write(f"hansa: {text}\n")
    sys.stderr.flush()


def start_embedded(place: Path) -> Endpoint:
    """Start the embedded server in this process' name, unless it runs."""
    from hansa.server.launch import ensure_server

    info = ensure_server(place)
    if info.started:
        note(f"started the server of {place} ({info.url}); hansa down stops it")
    return Endpoint(info.url.rstrip("/"), info.token, place)


def open_session() -> Transport:
    """A transport to the server; starts the embedded one where none is configured."""
    endpoint, reconnect = connect(environ=os.environ, starter=start_embedded)
    return Transport(endpoint, reconnect)
