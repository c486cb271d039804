"""OpenNebula's OCCI interface as Libcloud's driver (3.8) speaks it: a cloud without computers."""

from __future__ import annotations

import itertools
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPES = {"small": (1, 1024), "large": (4, 8192)}
IMAGES = {"7": "debian-12"}


@dataclass
class Occi:
    """The machines that are there, by id, as they were ordered."""

    url: str = ""
    machines: dict[str, ET.Element] = field(default_factory=dict)
    orders: list[str] = field(default_factory=list)
    """The documents that were sent to make machines."""
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def get(self, path: str) -> ET.Element | None:
        kind, _, name = path.strip("/").partition("/")
        if not name:
            return self._collection(kind)
        if kind == "compute":
            return self.machines.get(name)
        if kind == "storage" and name in IMAGES:
            return _element("STORAGE", ID=name, NAME=IMAGES[name], TYPE="OS", SIZE="2048")
        if kind == "instance_type" and name in TYPES:
            cores, memory = TYPES[name]
            return _element("INSTANCE_TYPE", ID=name, NAME=name, CPU=str(cores), MEMORY=str(memory))
        return None

    def _collection(self, kind: str) -> ET.Element:
        types = {one: one for one in TYPES}
        names = {"compute": dict.fromkeys(self.machines, ""), "storage": IMAGES, "instance_type": types}
        found = ET.Element(f"{kind.upper()}_COLLECTION")
        for number, name in names.get(kind, {}).items():
            ET.SubElement(found, kind.upper(), href=f"{self.url}/{kind}/{number}", name=name)
        return found

    def order(self, document: bytes) -> ET.Element:
        wanted, number = ET.fromstring(document), str(next(self.numbers))
        self.orders.append(document.decode())
        made = _element("COMPUTE", ID=number, NAME=wanted.findtext("NAME") or "", STATE="ACTIVE")
        nic = ET.SubElement(made, "NIC")
        ET.SubElement(nic, "NETWORK", href=f"{self.url}/network/1", name="lab")
        nic.append(_element("IP", f"192.0.2.{int(number) % 250 + 1}"))
        made.extend(wanted.findall("CONTEXT") + wanted.findall("INSTANCE_TYPE") + wanted.findall("DISK"))
        self.machines[number] = made
        return made


def _element(tag: str, text: str = "", **children: str) -> ET.Element:
    made = ET.Element(tag)
    made.text = text or None
    for name, value in children.items():
        ET.SubElement(made, name).text = value
    return made


@contextmanager
def serve_occi() -> Iterator[Occi]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, occi.get(self.path))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(201, occi.order(content))

        def do_DELETE(self) -> None:
            gone = occi.machines.pop(self.path.rpartition("/")[2], None)
            self._answer(204 if gone is not None else 404, None)

        def _answer(self, status: int, found: ET.Element | None) -> None:
            body = ET.tostring(found) if found is not None else b""
            self.send_response(404 if status == 200 and found is None else status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    occi = Occi(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield occi
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
