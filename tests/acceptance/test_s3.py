"""A server whose contents are in a real S3 store: input files, outputs, logs, and what is not kept any more."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import s3
from tests.support.cli import PATIENCE_S, Desk


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    with s3.serving(tmp_path_factory.mktemp("s3")) as server:
        server.client().create_bucket(Bucket="hansa")
        yield server


def keys(store: s3.S3) -> list[str]:
    return [one["Key"] for one in store.client().list_objects_v2(Bucket="hansa").get("Contents", [])]


def test_files_and_logs_are_in_the_store_and_go_when_their_time_is_over(
    store: s3.S3, make_desk: Callable[..., Desk]
) -> None:
    desk = make_desk(
        **store.environ,
        HANSA_OBJECTS__URL="s3://hansa/one",
        HANSA_OBJECTS__ENDPOINT=store.endpoint,
        HANSA_OBJECTS__REGION=store.region,
    )
    large = "0123456789abcdef" * 16 * 1024  # more than an exchange carries
    desk.write("in.txt", large)
    script = "cat in.txt > out.txt; echo said {i}; echo small > small.txt"
    said = desk.hansa(
        "run", "--array", "0-2", "--memory", "64M", "--input", "in.txt", "--output", "*.txt", "--", "sh", "-c", script
    )
    assert said.code == 0
    (folder,) = desk.folder.glob("hansa-*")
    fetched = sorted(path.relative_to(folder).name for path in folder.rglob("*.txt"))
    assert fetched.count("out.txt") == fetched.count("small.txt") == 3
    assert all(path.read_text() == large for path in folder.rglob("out.txt"))
    assert desk.hansa("job", "logs", "1.2").out == "said 2\n"
    assert desk.hansa("job", "logs", "1", "--grep", "said [01]").out.count("said") == 2
    kept = keys(store)
    assert any("/logs/" in key for key in kept)
    digest = hashlib.sha256(large.encode()).hexdigest()
    (one,) = [one for one in store.client().list_objects_v2(Bucket="hansa")["Contents"] if digest in one["Key"]]
    assert one["Size"] < len(large) // 10, "one input and three outputs are one content, compressed"
    blobs = desk.home / "blobs"
    assert not blobs.exists() or not [path for path in blobs.rglob("*") if path.is_file()], "nothing is kept here"

    desk.hansa("down")
    years = 3 * 365 * 24 * 3600 * 10**6
    with contextlib.closing(sqlite3.connect(desk.home / "db" / "hansa.db")) as file, file:
        file.execute("UPDATE jobs SET created = created - ?, ended = ended - ?", (years, years))
        file.execute("UPDATE contents SET used = used - ?", (years,))
        file.execute("UPDATE files SET time = time - ?", (years,))
    desk.hansa("up")
    deadline = time.monotonic() + PATIENCE_S
    while left := keys(store):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert "was kept until" in desk.hansa("job", "logs", "1", "--grep", "said", code=None).err
    assert "kept until" in desk.hansa("job", "fetch", "1", code=None).err
    desk.hansa("run", "--memory", "64M", "--input", "in.txt", "--", "cmp", "in.txt", "in.txt")
    assert keys(store), "what is gone is brought again"
