"""What every object store must do, and what is built on it: content by digest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hansa.engines.content import ContentStore, ShortError, WrongDigestError, WrongOffsetError
from hansa.engines.objects import FolderObjects, Objects, open_objects
from hansa.kernel.errors import Fault
from hansa.kernel.settings import ObjectSettings
from tests.support import s3

PART = 1024


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    with s3.serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    if request.param == "folder":
        return open_objects(ObjectSettings(), tmp_path / "blobs")
    server: s3.S3 = request.getfixturevalue("s3_server")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{hashlib.sha256(os.fsencode(tmp_path)).hexdigest()[:16]}"
    server.client().create_bucket(Bucket=bucket)
    settings = ObjectSettings(url=f"s3://{bucket}/some/prefix", endpoint=server.endpoint, region=server.region)
    return open_objects(settings, tmp_path)


async def keys(objects: Objects, prefix: str) -> list[str]:
    return [key async for key in objects.list(prefix)]


async def test_objects_by_key(objects: Objects) -> None:
    with pytest.raises(FileNotFoundError):
        await objects.get("a/none")
    assert not await objects.has("a/none")
    await objects.delete("a/none")
    await objects.put("a/one", b"1")
    await objects.put("a/one", b"11")
    await objects.put("a/b/two", b"")
    await objects.put("ab/three", bytes(range(256)))
    assert (await objects.get("a/one"), await objects.get("a/b/two")) == (b"11", b"")
    assert await objects.get("ab/three") == bytes(range(256))
    assert await objects.has("a/one")
    assert await keys(objects, "a/") == ["a/b/two", "a/one"]
    assert await keys(objects, "none/") == []
    await objects.delete("a/one")
    assert await keys(objects, "a/") == ["a/b/two"]
    for wrong in ("../x", "/x", "a//b", "a/../b", ""):
        with pytest.raises(ValueError, match="not a key"):
            await objects.put(wrong, b"")
    await asyncio.gather(*(objects.put(f"many/{n}", b"x") for n in range(20)))
    await asyncio.gather(*(objects.delete(f"many/{n}") for n in range(20)), objects.put("many/kept", b"y"))
    assert await keys(objects, "many/") == ["many/kept"]


async def pieces(data: bytes, size: int = 300) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def read(contents: ContentStore, digest: str, start: int = 0) -> bytes:
    return b"".join([piece async for piece in contents.read(digest, start)])


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 5 * PART, 5 * PART + 17])
async def test_content_comes_back_whole_and_from_anywhere(objects: Objects, size: int) -> None:
    contents = ContentStore(objects, PART)
    data = random.Random(size).randbytes(size // 2) + b"a" * (size - size // 2)
    name = digest_of(data)
    assert not await contents.has(name)
    await contents.put_stream(name, size, pieces(data), "ada")
    assert await contents.has(name)
    for start in {0, 1, size // 2, max(0, size - 1), size}:
        assert await read(contents, name, min(start, size)) == data[start:]
    await contents.put_stream(name, size, pieces(data), "bob")  # the same again
    assert await read(contents, name) == data
    await contents.delete(name)
    assert not await contents.has(name)
    assert await keys(objects, "parts/") + await keys(objects, "content/") == []


async def test_what_is_not_what_it_says_is_not_kept(objects: Objects) -> None:
    contents = ContentStore(objects, PART)
    data = b"x" * (3 * PART)
    for wrong in (data[:-1] + b"y", b"y" * len(data)):
        with pytest.raises(WrongDigestError):
            await contents.put_stream(digest_of(data), len(data), pieces(wrong), "ada")
        assert not await contents.has(digest_of(data))
        assert await contents.received(digest_of(data), len(data), "ada") == 0, "wrong parts are not gone on from"
    await contents.put_stream(digest_of(data), len(data), pieces(data), "ada")
    with pytest.raises(WrongDigestError):  # of what is there already, too
        await contents.put_stream(digest_of(data), len(data), pieces(wrong), "bob")
    assert await read(contents, digest_of(data)) == data


async def test_an_upload_that_broke_off_goes_on(objects: Objects) -> None:
    contents = ContentStore(objects, PART)
    data = random.Random(1).randbytes(4 * PART + 5)
    name, size = digest_of(data), len(data)

    async def broken() -> AsyncIterator[bytes]:
        yield data[: 2 * PART + 100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await contents.put_stream(name, size, broken(), "ada")
    assert await contents.received(name, size, "ada") == 2 * PART
    assert await contents.received(name, size, "bob") == 0, "nobody learns what others send"
    with pytest.raises(WrongOffsetError) as caught:
        await contents.put_stream(name, size, pieces(data[3 * PART :]), "ada", 3 * PART)
    assert caught.value.offset == 2 * PART
    with pytest.raises(ShortError):
        await contents.put_stream(name, size, pieces(data[2 * PART : -1]), "ada", 2 * PART)
    assert await contents.received(name, size, "ada") == 4 * PART
    await contents.put_stream(name, size, pieces(data[4 * PART :]), "ada", 4 * PART)
    assert await read(contents, name) == data
    await contents.put_stream(name, size, pieces(b""), "ada", size)  # all of it was there: only checked once more


async def test_uploads_of_the_same_at_once(objects: Objects) -> None:
    contents = ContentStore(objects, PART)
    data = random.Random(2).randbytes(3 * PART)
    await asyncio.gather(*(contents.put_stream(digest_of(data), len(data), pieces(data), "ada") for _ in range(4)))
    assert await read(contents, digest_of(data)) == data


async def test_content_is_compressed_where_that_helps(tmp_path: Path) -> None:
    contents = ContentStore(FolderObjects(tmp_path), PART)
    for data, most in ((b"abc" * 100_000, 50_000), (random.Random(3).randbytes(100_000), 110_000)):
        await contents.put_stream(digest_of(data), len(data), pieces(data, 7000), "ada")
        kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert kept < most
        assert await read(contents, digest_of(data)) == data
        await contents.delete(digest_of(data))


def test_a_wrong_address_is_said(tmp_path: Path) -> None:
    for wrong in ("ftp://x/y", "relative/folder", "s3://"):
        with pytest.raises(Fault) as caught:
            open_objects(ObjectSettings(url=wrong), tmp_path)
        assert caught.value.code.code == "kernel.setting"


async def test_a_store_that_is_away_or_refuses_is_said(
    s3_server: s3.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    settings = ObjectSettings(url="s3://some-bucket", endpoint=s3_server.endpoint, region=s3_server.region)
    with pytest.raises(Fault, match="refuses") as caught:
        await open_objects(settings, tmp_path).put("a", b"")
    assert caught.value.code.status == 503
