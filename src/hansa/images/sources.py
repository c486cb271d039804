"""Where contents of images come from: the web, and registries of OCI artefacts. Streamed to disk, and resumed.

An address is looked at by an egress policy before it is asked, and so is every address that it redirects to.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from hansa.kernel.errors import Permanent, Temporary
from hansa.node.containers.errors import ContainerError, RegistryAway
from hansa.node.containers.model import Reference
from hansa.node.containers.registry import Registry
from hansa.node.containers.web import Response, Web, WebSettings

Allow = Callable[[str], Awaitable[None]]
"""Raises Permanent where the server must not connect to this address."""
Progress = Callable[[int, int | None], Awaitable[None]]
"""Hears bytes so far and, where it is known, of how many."""

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_PIECE = 1024**2
_NOTE_EVERY_S = 1.0
_MOST_TEXT = 4 * 1024**2
_SUM_LINE = re.compile(r"^(?P<sum>[0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s+[* ]?(?:\./)?(?P<name>\S.*?)\s*$")
_BSD_LINE = re.compile(r"^SHA(?P<bits>256|512) \((?P<name>.+)\) = (?P<sum>[0-9a-fA-F]+)$")
_DISK_SUFFIXES = (".qcow2", ".raw", ".img")


async def allow_all(_url: str) -> None:
    """No egress policy: for tests."""


@dataclass(frozen=True)
class Pinned:
    """The checksum that an address stands for now, and the size where it is told."""

    checksum: str
    size_bytes: int | None = None


class Sources:
    """Opens addresses. One per server."""

    def __init__(self, limit_bytes: int, allow: Allow, web: WebSettings | None = None, trust: Any = True) -> None:
        self._limit = limit_bytes
        self._allow = allow
        self._web = web or WebSettings()
        self._trust = trust

    async def pin(self, source: str, sums: str | None) -> Pinned:
        """What an address without a checksum stands for: by its digest, or a file of checksums beside it."""
        if source.startswith("oci://"):
            await self._allow(_registry_url(source))
            return await asyncio.to_thread(self._pin_oci, source, asyncio.get_running_loop())
        if sums is None:
            raise Permanent(f"{source} has no checksum, so nobody could tell whether it was changed.")
        return Pinned(find_sum(await self.text(sums), urlsplit(source).path.rsplit("/", 1)[-1]))

    async def text(self, url: str, most: int = _MOST_TEXT) -> str:
        """A small document. Raises Temporary or Permanent."""
        pieces: list[bytes] = []

        async def add(piece: bytes) -> None:
            pieces.append(piece)
            if sum(map(len, pieces)) > most:
                raise Permanent(f"{url} sends more than {most:,} bytes where a document belongs.")

        await self._stream(url, 0, add, None)
        return b"".join(pieces).decode(errors="replace")

    async def fetch(self, source: str, checksum: str, into: Path, progress: Progress) -> None:
        """Bring the content into a file, going on where an earlier try ended. Its checksum is not checked here."""
        if source.startswith("oci://"):
            await self._fetch_oci(source, checksum, into, progress)
            return
        with await asyncio.to_thread(into.open, "ab") as file:
            done = file.tell()
            sink = _Sink(file, done, self._limit, progress)
            try:
                await self._stream(source, done, sink.add, sink.begin)
            finally:  # what arrived is kept: the next try goes on there
                await sink.flush()
        await sink.end()

    async def _stream(
        self,
        url: str,
        offset: int,
        add: Callable[[bytes], Awaitable[None]],
        begin: Callable[[int, int | None], None] | None,
    ) -> None:
        """The body from ``offset`` on; ``begin`` hears where it begins and how long the whole is."""
        timeout = httpx.Timeout(30.0, read=60.0)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        async with httpx.AsyncClient(timeout=timeout, verify=self._trust, follow_redirects=False) as client:
            for _ in range(_MOST_REDIRECTS + 1):
                await self._allow(url)
                try:
                    async with client.stream("GET", url, headers=headers) as response:
                        if response.status_code in _REDIRECTS:
                            url = urljoin(url, response.headers.get("location", ""))
                            continue
                        if response.status_code == 416 and offset:
                            return  # it is whole: the checksum decides
                        _check_status(response, url)
                        if begin is not None:
                            begin(*_where(response, offset))
                        async for piece in response.aiter_raw():
                            await add(piece)
                        return
                except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
                    raise Temporary(f"{url} cannot be read: {error or type(error).__name__}.") from error
        raise Permanent(f"{url} redirects more than {_MOST_REDIRECTS} times.")

    # Registries.

    def _registry(self, source: str, loop: asyncio.AbstractEventLoop) -> tuple[Registry, Reference]:
        reference = Reference.parse(source.removeprefix("oci://"))
        return Registry(reference.registry, _Guarded(self._web, self._allow, loop)), reference

    def _pin_oci(self, source: str, loop: asyncio.AbstractEventLoop) -> Pinned:
        try:
            registry, reference = self._registry(source, loop)
            layer = _disk_layer(json.loads(registry.manifest(reference).data), source)
            registry.close()
        except RegistryAway as error:
            raise Temporary(str(error)) from error
        except (ContainerError, ValueError) as error:
            raise Permanent(str(error)) from error
        return Pinned(layer["digest"], int(layer["size"]))

    async def _fetch_oci(self, source: str, checksum: str, into: Path, progress: Progress) -> None:
        await self._allow(_registry_url(source))
        registry, reference = await asyncio.to_thread(self._registry, source, asyncio.get_running_loop())
        with await asyncio.to_thread(into.open, "ab") as file:
            sink = _Sink(file, file.tell(), self._limit, progress)
            try:
                pieces = await asyncio.to_thread(registry.opener(reference.repository, checksum), sink.done)
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    await sink.add(piece)
            except RegistryAway as error:
                raise Temporary(str(error)) from error
            except ContainerError as error:
                raise Permanent(str(error)) from error
            finally:
                registry.close()
                await sink.flush()
        await sink.end()


class _Guarded(Web):
    """Every address is allowed before it is asked: a registry names others, for tokens and by redirects.

    Only for threads beside the event loop.
    """

    def __init__(self, settings: WebSettings, allow: Allow, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(settings)
        self._allow, self._loop = allow, loop

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Response:
        asyncio.run_coroutine_threadsafe(_done(self._allow(url)), self._loop).result()
        return super()._once(method, url, headers, body)


async def _done(work: Awaitable[None]) -> None:
    await work


class _Sink:
    """Writes pieces to a file, within a limit, and tells how far it is."""

    def __init__(self, file: Any, done: int, limit: int, progress: Progress) -> None:
        self.done = done
        self._file = file
        self._limit = limit
        self._progress = progress
        self._total: int | None = None
        self._noted = 0.0
        self._held: list[bytes] = []
        self._held_bytes = 0

    def begin(self, start: int, total: int | None) -> None:
        """The server sends from ``start`` on: it may not know ranges."""
        if start != self.done:
            self._file.seek(start)
            self._file.truncate(start)
            self.done = start
        self._total = total
        if total is not None and total > self._limit:
            raise Permanent(f"It has {total:,} bytes; {self._limit:,} is the most (setting images.limit_bytes).")

    async def add(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece)
        self.done += len(piece)
        if self.done > self._limit:
            raise Permanent(f"It has more than {self._limit:,} bytes (setting images.limit_bytes).")
        if self._held_bytes >= _PIECE:
            await self.flush()
        now = time.monotonic()
        if now - self._noted >= _NOTE_EVERY_S:
            self._noted = now
            await self._progress(self.done, self._total)

    async def flush(self) -> None:
        held, self._held, self._held_bytes = b"".join(self._held), [], 0
        await asyncio.to_thread(self._write, held)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    async def end(self) -> None:
        if self._total is not None and self.done < self._total:
            raise Temporary(f"The connection ended after {self.done:,} of {self._total:,} bytes.", 1)
        await self._progress(self.done, self._total)


def _registry_url(source: str) -> str:
    return f"https://{Reference.parse(source.removeprefix('oci://')).registry}/"


def find_sum(text: str, name: str) -> str:
    """The checksum of a file in a list as ``sha256sum`` writes it, plain or BSD style. Raises Permanent."""
    for line in text.splitlines():
        if found := _BSD_LINE.match(line.strip()):
            if found["name"].rsplit("/", 1)[-1] == name:
                return f"sha{found['bits']}:{found['sum'].lower()}"
        elif (found := _SUM_LINE.match(line)) and found["name"].rsplit("/", 1)[-1] == name:
            return f"sha{'256' if len(found['sum']) == 64 else '512'}:{found['sum'].lower()}"
    raise Permanent(f"The file of checksums does not name {name}.")


def _disk_layer(manifest: Any, source: str) -> dict[str, Any]:
    """The one layer of an artefact that is a disk: by its title, or because there is no other."""
    layers: Sequence[Any] = manifest.get("layers") or () if isinstance(manifest, dict) else ()
    disks = [one for one in layers if _title(one).endswith(_DISK_SUFFIXES)]
    chosen = disks if disks else list(layers)
    if len(chosen) != 1:
        raise Permanent(f"{source} has {len(chosen)} layers that could be the disk; exactly one must be.")
    digest = str(chosen[0].get("digest") or "")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Permanent(f"{source} names its disk by {digest[:80]!r}, which is no SHA-256.")
    return dict(chosen[0])


def _title(layer: Any) -> str:
    annotations = layer.get("annotations") if isinstance(layer, dict) else None
    return str((annotations or {}).get("org.opencontainers.image.title") or "").lower()


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (408, 425, 429) or status >= 500:
        raise Temporary(f"{url} answers {status}.")
    raise Permanent(f"{url} answers {status}: check the address.")


def _where(response: httpx.Response, offset: int) -> tuple[int, int | None]:
    """Where an answer begins, and how long the whole content is."""
    length = response.headers.get("content-length", "")
    size = int(length) if length.isdigit() and "content-encoding" not in response.headers else None
    if response.status_code != 206:
        return 0, size
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
    if found is None or int(found[1]) > offset:
        raise Temporary(f"{response.url} sends a range that nobody asked for.")
    return int(found[1]), int(found[2]) if found[2].isdigit() else None
