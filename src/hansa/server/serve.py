"""The server in the foreground, and the upgrade of its database."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from hansa.kernel.database import open_database
from hansa.kernel.errors import Fault
from hansa.kernel.logging import configure_logging
from hansa.kernel.secrets import write_private
from hansa.server import errors
from hansa.server.app import create_app
from hansa.server.home import Home, open_home
from hansa.server.launch import ServerInfo, take_server_lock
from hansa.server.rooms import Rooms, build_rooms
from hansa.server.schema import back_up_file, prepare_schema, upgrade
from hansa.version import __version__

log = structlog.get_logger(__name__)


def serve(home_path: Path, flags: dict[str, Any] | None = None) -> None:
    """Run the server of a home in the foreground until SIGTERM or SIGINT. ``flags`` override its settings.

    Raises Fault ``server.runs`` if one runs already, and what :func:`open_home` and the schema raise.
    """
    home = open_home(home_path, flags)
    configure_logging(home.settings.log)
    if not home.is_embedded and os.geteuid() == 0 and not os.environ.get("HANSA_ALLOW_ROOT"):
        raise Fault(
            errors.ROOT,
            "A server with a shared database does not run as root.",
            hint="Run it as a user of its own (deploy/systemd), or set HANSA_ALLOW_ROOT=1 for a test.",
        )
    lock = take_server_lock(home)
    try:
        prepare_schema(home)
        _serve(home)
    finally:
        (home.run / "server.json").unlink(missing_ok=True)
        os.close(lock)


def _serve(home: Home) -> None:
    server = home.settings.server

    async def main() -> None:
        database = await open_database(home.database_url)
        rooms = build_rooms(home.settings, home, database)
        config = uvicorn.Config(
            create_app(rooms),
            host=server.host,
            port=server.port,
            log_config=None,
            access_log=False,
            ssl_certfile=server.tls_certificate,
            ssl_keyfile=server.tls_key,
            proxy_headers=bool(server.trusted_proxies),
            forwarded_allow_ips=list(server.trusted_proxies),
            timeout_graceful_shutdown=round(server.graceful_s),
            timeout_keep_alive=75,
            server_header=False,
        )
        gc.freeze()  # what is there now lives as long as the server
        gc.enable()
        await _Announced(config, rooms).serve()

    try:
        asyncio.run(main())
    except SystemExit as error:  # how uvicorn says that it cannot listen
        raise Fault(
            errors.PORT,
            f"The server cannot listen on {server.host}:{server.port}.",
            hint=f"Another program has the port: end it, or set server.port in {home.path / 'config.toml'}.",
        ) from error


class _Announced(uvicorn.Server):
    """Writes ``run/server.json`` once it listens, and answers whoever waits for news when it stops."""

    def __init__(self, config: uvicorn.Config, rooms: Rooms) -> None:
        super().__init__(config)
        self._rooms = rooms
        self._home = rooms.home

    async def startup(self, *arguments: Any, **options: Any) -> None:
        await super().startup(*arguments, **options)
        if self.started:
            ca_file = self._home.settings.server.ca_file
            trust = str(ca_file) if ca_file else None
            info = ServerInfo(self._home.url, self._home.local_token(), os.getpid(), __version__, time.time(), trust)
            write_private(self._home.run / "server.json", json.dumps(asdict(info)))
            log.info("server.ready", url=info.url, version=info.version, pid=info.pid)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but a signal that was obeyed is not raised again: a stop that was asked for is no failure.

        Raised again, it would end the process before it has tidied up.
        """
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, *arguments: Any, **options: Any) -> None:
        self._rooms.database.bells.close()
        log.info("server.stopping")
        await super().shutdown(*arguments, **options)


def upgrade_database(home_path: Path) -> str:
    """Bring the schema up to this server's, with a copy of an embedded database before; what happened, in words.

    Raises Fault ``server.runs`` while a server of this home runs, ``kernel.schema`` where the schema is newer.
    """
    home = open_home(home_path)
    lock = take_server_lock(home)
    try:
        copy = back_up_file(home.database_file) if home.is_embedded and home.database_file.exists() else None
        before, after = upgrade(home)
    finally:
        os.close(lock)
    if before == after:
        return f"the schema is {after} already"
    return f"the schema is now {after}" + (f"; the database as it was: {copy}" if copy else "")
