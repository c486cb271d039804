"""Reading tar streams: ustar, GNU and PAX headers, long names, sparse files, extended attributes.

Names are bytes. Nothing is checked here but the format and the sizes of headers; what a name may be is decided by
whoever unpacks. Much faster than ``tarfile``, and it cannot be talked into seeking or guessing. Sources: POSIX
(pax interchange format), the GNU tar manual (basic format, sparse formats).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from .errors import BadImage, UnsafeArchive

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAX_HEADER_BYTES = 1 << 20
_MAX_SPARSE_PARTS = 1 << 16
_XATTR = b"SCHILY.xattr."

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_PLAIN_FILES = (b"0", b"\0", b"7")

Span = Tuple[int, int]
"""Offset in the file, and number of bytes."""


@dataclass
class Entry:
    """One member. ``size`` is that of its data in the archive, ``real_size`` that of the file."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    device: Tuple[int, int] = (0, 0)
    xattrs: Dict[str, bytes] = field(default_factory=dict)
    sparse: Optional[List[Span]] = None
    real_size: int = 0


class Source:
    """Pieces of bytes, taken in the lengths that a reader wants."""

    __slots__ = ("_at", "_pieces", "_view")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._view = b""
        self._at = 0

    def exactly(self, count: int) -> bytes:
        """``count`` bytes, or fewer at the end of the stream."""
        end = self._at + count
        if end <= len(self._view):
            out = self._view[self._at : end]
            self._at = end
            return out
        return b"".join(bytes(piece) for piece in self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes, without copying. Fewer at the end of the stream."""
        while count > 0:
            if self._at >= len(self._view):
                self._view = next(self._pieces, b"")
                self._at = 0
                if not self._view:
                    return
            part = memoryview(self._view)[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            yield part

    def skip(self, count: int) -> None:
        """Leave out ``count`` bytes."""
        for _ in self.pieces(count):
            pass

    def drain(self) -> None:
        """Read to the end: digests are of everything."""
        self._view = b""
        for _ in self._pieces:
            pass


class Reader:
    """Iterate over the entries; after each one its data may be read through :meth:`data`, once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0
        self._pad = 0
        self._global: Dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while True:
            entry = self._next()
            if entry is None:
                return
            yield entry

    def data(self) -> Iterator[memoryview]:
        """The data of the entry, in pieces. Raises BadImage if the archive ends too early."""
        for piece in self._source.pieces(self._left):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise BadImage("the archive ends in the middle of a file")

    def _next(self) -> Optional[Entry]:
        pax: Dict[bytes, bytes] = dict(self._global)
        spans: List[Span] = []
        while True:
            self._finish()
            block = self._source.exactly(BLOCK)
            if len(block) < BLOCK or block == _ZEROS:
                if block and block != _ZEROS[: len(block)]:
                    raise BadImage("the archive ends in the middle of a header")
                if block and self._source.exactly(BLOCK) not in (b"", _ZEROS):
                    raise BadImage("the archive has an empty block between its members")
                return None
            entry = _header(block)
            self._left, self._pad = entry.size, -entry.size % BLOCK
            if entry.kind in (b"x", b"g"):
                values = _pax(self._small(entry.size), spans)
                (self._global if entry.kind == b"g" else pax).update(values)
                if entry.kind == b"g":
                    pax.update(values)
            elif entry.kind == b"L":
                pax[b"path"] = self._small(entry.size).rstrip(b"\0")
            elif entry.kind == b"K":
                pax[b"linkpath"] = self._small(entry.size).rstrip(b"\0")
            else:
                break
        if pax:
            self._apply(entry, pax, spans)
        if entry.kind == b"S":
            entry.sparse, entry.real_size = self._gnu_sparse(block)
        if entry.kind in _PLAIN_FILES or entry.kind == b"S":
            old_directory = entry.kind == b"\0" and entry.name.endswith(b"/")
            entry.kind = DIRECTORY if old_directory else REGULAR
        elif entry.kind in (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
            self._left = self._pad = 0  # no data, whatever the size says: so do the writers and readers of images
        if entry.sparse is None:
            entry.real_size = entry.size
        else:
            _check_sparse(entry)
        return entry

    def _finish(self) -> None:
        self._source.skip(self._left + self._pad)
        self._left = self._pad = 0

    def _small(self, size: int) -> bytes:
        if size > _MAX_HEADER_BYTES:
            raise UnsafeArchive(f"the archive has a header of {size:,} bytes")
        out = self._source.exactly(size)
        if len(out) < size:
            raise BadImage("the archive ends in the middle of a header")
        self._left = 0
        return out

    def _apply(self, entry: Entry, pax: Dict[bytes, bytes], spans: List[Span]) -> None:
        if b"path" in pax:
            entry.name = pax[b"path"]
        if b"linkpath" in pax:
            entry.link = pax[b"linkpath"]
        if b"size" in pax:
            entry.size = _decimal(pax[b"size"], "size")
            self._left, self._pad = entry.size, -entry.size % BLOCK
        if b"uid" in pax:
            entry.uid = _decimal(pax[b"uid"], "uid")
        if b"gid" in pax:
            entry.gid = _decimal(pax[b"gid"], "gid")
        if b"mtime" in pax:
            entry.mtime_ns = _nanoseconds(pax[b"mtime"])
        for key, value in pax.items():
            if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :].decode("utf-8", "surrogateescape")] = value
        self._pax_sparse(entry, pax, spans)

    def _pax_sparse(self, entry: Entry, pax: Dict[bytes, bytes], spans: List[Span]) -> None:
        if b"GNU.sparse.name" in pax:
            entry.name = pax[b"GNU.sparse.name"]
        size = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
        if size is None:
            return
        entry.real_size = _decimal(size, "sparse size")
        if pax.get(b"GNU.sparse.major") == b"1":
            entry.sparse = self._sparse_map_in_data()
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(one, "sparse map") for one in pax[b"GNU.sparse.map"].split(b",") if one]
            entry.sparse = list(zip(numbers[0::2], numbers[1::2]))
        else:
            entry.sparse = spans

    def _sparse_map_in_data(self) -> List[Span]:
        """Version 1.0: decimal numbers, a line each, padded to whole blocks, before the data."""
        text, wanted = b"", 1
        numbers: List[int] = []
        while len(numbers) < wanted:
            block = self._source.exactly(BLOCK)
            self._left -= BLOCK
            if len(block) < BLOCK or self._left < 0:
                raise BadImage("the archive has a broken map of a sparse file")
            *lines, text = (text + block).split(b"\n")
            numbers += [
                _decimal(line, "sparse map") for line in lines if len(numbers) < wanted or not line.strip(b"\0")
            ]
            if wanted == 1 and numbers:
                wanted = 1 + 2 * numbers[0]
                if numbers[0] > _MAX_SPARSE_PARTS:
                    raise UnsafeArchive(f"a sparse file has {numbers[0]:,} parts")
        return list(zip(numbers[1:wanted:2], numbers[2:wanted:2]))

    def _gnu_sparse(self, header: bytes) -> Tuple[List[Span], int]:
        """The old format: the map is in the header and in blocks that follow it."""
        spans = _old_spans(header[386:482])
        is_extended = header[482] != 0
        while is_extended:
            block = self._source.exactly(BLOCK)
            if len(block) < BLOCK or len(spans) > _MAX_SPARSE_PARTS:
                raise BadImage("the archive has a broken map of a sparse file")
            spans += _old_spans(block[:504])
            is_extended = block[504] != 0
        return spans, _number(header[483:495])


def _old_spans(data: bytes) -> List[Span]:
    places = [at for at in range(0, len(data), 24) if data[at : at + 1] not in (b"\0", b"")]
    return [(_number(data[at : at + 12]), _number(data[at + 12 : at + 24])) for at in places]


def _check_sparse(entry: Entry) -> None:
    end = 0
    for offset, count in entry.sparse or ():
        if offset < end or count < 0:
            raise BadImage(f"the map of the sparse file {entry.name!r} is not in order")
        end = offset + count
    if end > entry.real_size:
        raise BadImage(f"the map of the sparse file {entry.name!r} is beyond its end")


def _header(block: bytes) -> Entry:
    told = _number(block[148:156])
    if sum(block) - sum(block[148:156]) + 256 != told and _signed_sum(block) != told:
        raise BadImage("the archive has a header with a wrong checksum: it is damaged, or no tar")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    kind = block[156:157]
    device = (0, 0)
    if kind in (CHARACTER, BLOCK_DEVICE):
        device = (_number(block[329:337]), _number(block[337:345]))
    size = _number(block[124:136])
    if size < 0:
        raise BadImage("the archive has a member with a negative size")
    return Entry(
        name,
        kind,
        _number(block[100:108]) & 0o7777,
        _number(block[108:116]),
        _number(block[116:124]),
        size,
        _number(block[136:148]) * 1_000_000_000,
        block[157:257].partition(b"\0")[0],
        device,
    )


def _signed_sum(block: bytes) -> int:
    """Some old programs added signed bytes."""
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    return signed - sum(byte - 256 if byte > 127 else byte for byte in block[148:156]) + 256


def _number(field_bytes: bytes) -> int:
    """Octal text, or, for big and negative numbers, GNU's base 256."""
    if field_bytes[0] & 0x80:
        value = int.from_bytes(field_bytes, "big", signed=False) & ((1 << (8 * len(field_bytes) - 1)) - 1)
        if field_bytes[0] & 0x40:
            value -= 1 << (8 * len(field_bytes) - 1)
        return value
    text = field_bytes.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise BadImage("the archive has a header with a number that is none") from error


def _decimal(text: bytes, what: str) -> int:
    text = text.strip()
    if not text.isdigit() or len(text) > 20:
        raise BadImage(f"the archive has a header with a {what} that is no number")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    whole, _, part = text.partition(b".")
    try:
        seconds = int(whole or b"0")
        fraction = int(part[:9].ljust(9, b"0")) if part else 0
    except ValueError as error:
        raise BadImage("the archive has a header with a time that is none") from error
    return seconds * 1_000_000_000 + (-fraction if whole.startswith(b"-") else fraction)


def _pax(data: bytes, spans: List[Span]) -> Dict[bytes, bytes]:
    """The records of a pax header; pairs of sparse offsets and lengths (version 0.0) go to ``spans``."""
    values: Dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space], "length") if space > 0 else 0
        record = data[space + 1 : at + length - 1]
        key, equals, value = record.partition(b"=")
        if length < 5 or at + length > len(data) or not equals or data[at + length - 1 : at + length] != b"\n":
            raise BadImage("the archive has a broken pax header")
        if key == b"GNU.sparse.offset":
            values[b"GNU.sparse.offset"] = value
        elif key == b"GNU.sparse.numbytes":
            if len(spans) > _MAX_SPARSE_PARTS:
                raise UnsafeArchive("a sparse file has too many parts")
            spans.append((_decimal(values.get(b"GNU.sparse.offset", b"0"), "offset"), _decimal(value, "length")))
        else:
            values[key] = value
        at += length
    return values
