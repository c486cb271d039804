"""An EC2 that listens on loopback: moto, with the name space that Amazon's own answers have."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_NAMESPACE = re.compile(rb'xmlns="http://ec2\.amazonaws\.com/doc/[^"]*"')
_KNOWN = b'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'
Start = Callable[..., Any]


class Front:
    """moto answers in name spaces of several versions, without the slash by which Libcloud finds what it looks for.

    ``lost``: actions of which the next answer is lost on its way back, when all is done.
    """

    def __init__(self, app: Callable[[Any, Start], Iterable[bytes]], lost: set[str]) -> None:
        self._app = app
        self._lost = lost

    def __call__(self, environ: dict[str, Any], start: Start) -> list[bytes]:
        said: list[Any] = []

        def note(*words: Any) -> None:
            said.extend(words)

        body = _NAMESPACE.sub(_KNOWN, b"".join(self._app(environ, note)))
        body = body.replace(b"<Response " + _KNOWN, b"<Response")  # Amazon's errors are in none
        for action in [one for one in self._lost if f"Action={one}&" in f"{environ['QUERY_STRING']}&"]:
            self._lost.discard(action)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(f"the answer to {action} is lost")
        status, headers = said[0], [(name, value) for name, value in said[1] if name.lower() != "content-length"]
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def ec2_server(lost: set[str] | None = None) -> Iterator[str]:
    """Its address, for as long as it is wanted. What is in it is shared by all that run in this process.

    ``lost``: see :class:`Front`; filled and looked at while it runs.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app: Any = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, Front(app, set() if lost is None else lost), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
