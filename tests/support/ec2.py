"""An EC2 that listens on loopback: moto, with the name space that Amazon's own answers have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

NAMESPACE = b'xmlns="http://ec2.amazonaws.com/doc/2016-11-15'
Start = Callable[..., Any]


class Slashed:
    """moto leaves out the slash at the end of the name space, by which Libcloud finds what it looks for."""

    def __init__(self, app: Callable[[Any, Start], Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start: Start) -> list[bytes]:
        said: list[Any] = []

        def note(*words: Any) -> None:
            said.extend(words)

        body = b"".join(self._app(environ, note)).replace(NAMESPACE + b'"', NAMESPACE + b'/"')
        status, headers = said[0], [(name, value) for name, value in said[1] if name.lower() != "content-length"]
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def ec2_server() -> Iterator[str]:
    """Its address, for as long as it is wanted. What is in it is shared by all that run in this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app: Any = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, Slashed(app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
