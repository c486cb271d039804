"""Bad input gets a clear error with a fitting status, and nothing half-done."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.integration.server.test_access import code_of
from tests.support.serverprocess import ServerProcess

GIB = 1024**3


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def stored(server: ServerProcess) -> list[str]:
    """Every object and every temporary file."""
    return [path.name for path in (server.home / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"command": ["true"], "array": True, "count": 0}, 422, "kernel.invalid"),
        ({"command": ["true"], "array": True, "count": 10**9}, 422, "jobs.array_limit"),
        ({"command": ["true"], "array": True, "first": 2**62, "count": 5}, 422, "kernel.invalid"),
        ({"command": []}, 422, "kernel.invalid"),
        ({"command": "true"}, 422, "kernel.invalid"),
        ({"command": ["true"], "cores": 2}, 422, "kernel.invalid"),
        ({"command": ["true"], "priority": 11}, 422, "kernel.invalid"),
        ({"command": ["true"], "requirements": {"coers": 2}}, 422, "kernel.invalid"),
        ({"command": ["true"], "requirements": {"cores": 4096}}, 422, "jobs.no_site"),
        ({"command": ["true"], "requirements": {"gpus": 1000}}, 422, "jobs.no_site"),
        ({"command": ["true"], "requirements": {"memory_mib": 10**12}}, 422, "jobs.no_site"),
        ({"command": ["true"], "requirements": {"wall_time_s": 10**12}}, 422, "kernel.invalid"),
        ({"command": ["true"], "requirements": {"site": "nowhere"}}, 422, "jobs.no_site"),
        ({"command": ["true"], "name": "a\0b"}, 422, "jobs.bad_spec"),
        ({"command": ["echo", "\ud800"]}, 422, "jobs.bad_spec"),
        ({"command": ["true"], "vo": "biomed"}, 422, "identity.no_vo"),
        ({"command": ["true"], "inputs": [{"path": "a", "digest": "sha256:1", "size": 1}]}, 409, "jobs.file_missing"),
        (
            {"command": ["true"], "inputs": [{"path": "a", "digest": "sha256:" + "0" * 64, "size": 3 * GIB}]},
            413,
            "jobs.file_limit",
        ),
    ],
)
def test_submissions(shared_server: ServerProcess, body: dict[str, Any], status: int, code: str) -> None:
    with shared_server.client() as client:
        answer = client.post("/jobs", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert (answer.status_code, code_of(answer)) == (status, code), answer.text
        assert answer.json()["detail"]
        assert client.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/jobs/99999999999999999999", 422),
        ("GET", "/jobs/-1", 404),
        ("GET", "/jobs/abc", 422),
        ("GET", "/jobs/0/tasks/0/files/a", 404),
        ("GET", "/jobs?after=nonsense", 422),
        ("GET", "/jobs?after=WyJ4Il0", 422),  # ["x"]
        ("GET", "/jobs?after=W1sxXV0", 422),  # [[1]]
        ("GET", "/jobs?after=WzFlMzBd", 422),  # [1e30]
        ("GET", "/jobs?limit=0", 422),
        ("GET", "/pilots?after=WzFd", 422),  # [1]
        ("GET", "/events?after=99999999999999999999", 422),
        ("GET", "/usage?since=yesterday", 422),
        ("GET", "/nothing", 404),
        ("DELETE", "/jobs", 405),
        ("PUT", "/files/sha256:short", 422),
        ("PUT", "/files/..%2f..%2fkeys%2flocal.token", 404),
    ],
)
def test_addresses(shared_server: ServerProcess, method: str, path: str, status: int) -> None:
    with shared_server.client() as client:
        answer = client.request(method, path)
        assert answer.status_code == status, answer.text
        code_of(answer)
        assert client.get("/jobs?name=%00").status_code < 500  # SQLite finds none, PostgreSQL cannot even look


def test_odd_numbers_in_paths_of_a_job(any_server: ServerProcess) -> None:
    number = any_server.submit("true")
    huge = 10**20
    with any_server.client() as client:
        for path in (f"logs?task={huge}", f"tasks?task={huge}", f"files?task={huge}", f"explain?task={huge}",
                     f"tasks/{huge}/files/a", "follow?cursor=WyJ4IiwieSJd", "tasks?after=WyJ4Il0",
                     f"logs?attempt={huge}", "files?after=WzEsMl0"):  # fmt: skip
            answer = client.get(f"/jobs/{number}/{path}")
            assert answer.status_code < 500, f"{path}: {answer.text}"
        for tasks in ([huge], [-1]):
            assert code_of(client.post(f"/jobs/{number}/kill", json={"tasks": tasks})) in ("jobs.no_task", "jobs.ended")
        assert code_of(client.post(f"/jobs/{number}/kill", json={"tasks": []})) == "kernel.invalid"
        assert code_of(client.post(f"/jobs/{number}/kill", json={"task": [0]})) == "kernel.invalid"


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(one_server: ServerProcess) -> None:
    digest = "sha256:" + "0" * 64
    with one_server.client() as client:
        answer = client.post("/files/missing", json={"files": [{"digest": digest, "size": 3 * GIB}]})
        assert (answer.status_code, code_of(answer)) == (413, "jobs.file_limit")
        assert "2,147,483,648" in answer.json()["detail"]
        assert answer.json()["hint"]
    address = httpx.URL(one_server.url)
    head = f"PUT /api/v1/files/{digest} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one_server.token}\r\n"
    with socket.create_connection((address.host, address.port or 80), timeout=120) as connection:
        connection.sendall(f"{head}Content-Length: {3 * GIB}\r\n\r\n".encode())
        answer_line = connection.makefile("rb").readline()
    assert b" 413 " in answer_line  # before a byte of it was sent
    assert stored(one_server) == []


def test_content_that_is_not_what_it_says(one_server: ServerProcess) -> None:
    with one_server.client() as client:
        answer = client.put(f"/files/{digest_of(b'other')}", content=b"content")
        assert (answer.status_code, code_of(answer)) == (422, "jobs.digest_mismatch")
        missing = {"files": [{"digest": digest_of(b"other"), "size": 5}]}
        assert client.post("/files/missing", json=missing).json()["missing"] == [digest_of(b"other")]
    assert stored(one_server) == []


def test_an_upload_that_breaks_off_leaves_nothing(one_server: ServerProcess) -> None:
    def body() -> Iterator[bytes]:
        yield bytes(1024**2)
        raise KeyError("gone")

    with one_server.client() as client, pytest.raises(KeyError):
        client.put(f"/files/{digest_of(b'x')}", content=body(), headers={"Content-Length": str(3 * 1024**2)})
    with one_server.client() as client:
        client.get("/whoami").raise_for_status()
    from tests.support.serverprocess import eventually

    eventually(lambda: stored(one_server) == [], "nothing is left")


def test_a_body_that_is_too_large(make_server: Callable[..., ServerProcess]) -> None:
    server = make_server(server__request_limit_bytes="100000").start()
    body = json.dumps({"command": ["echo", "x" * 100_000]}).encode()

    def pieces() -> Iterator[bytes]:  # without Content-Length
        yield from (body[start : start + 10_000] for start in range(0, len(body), 10_000))

    with server.client() as client:
        for content in (body, pieces()):
            headers = {"Content-Type": "application/json"}
            answer = client.post("/jobs", content=content, headers=headers)
            assert (answer.status_code, code_of(answer)) == (413, "kernel.too_large"), answer.text


def test_bodies_that_are_no_json(one_server: ServerProcess) -> None:
    with one_server.client() as client:
        for content in (b"{", b"\xff\xfe", b"[" * 100_000, b"null", b""):
            answer = client.post("/jobs", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, answer.text
            code_of(answer)


@pytest.fixture
def small_disk(make_server: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    """A server whose blobs are on a disk of four MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    server = make_server(files__free_bytes="0")
    blobs = server.home / "blobs"
    blobs.mkdir(parents=True, mode=0o700)
    server.home.chmod(0o700)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", blobs], capture_output=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield server.start()
    finally:
        server.end()
        subprocess.run(["umount", blobs], check=True)


def test_a_disk_that_is_too_small(small_disk: ServerProcess) -> None:
    with small_disk.client() as client:
        data = bytes(6 * 1024**2)
        answer = client.put(f"/files/{digest_of(data)}", content=data)
        assert (answer.status_code, code_of(answer)) == (507, "kernel.storage_full")
        assert answer.json()["hint"]
        assert answer.headers["retry-after"]
    assert stored(small_disk) == []


def test_a_disk_that_fills_up_while_uploading(small_disk: ServerProcess) -> None:
    data = os.urandom(3 * 1024**2)
    filler = small_disk.home / "blobs" / "filler"

    def body() -> Iterator[bytes]:
        yield data[: 1024**2]
        filler.write_bytes(bytes(2 * 1024**2))
        yield data[1024**2 :]

    with small_disk.client() as client:
        answer = client.put(f"/files/{digest_of(data)}", content=body(), headers={"Content-Length": str(len(data))})
        assert (answer.status_code, code_of(answer)) == (507, "kernel.storage_full"), answer.text
        assert stored(small_disk) == ["filler"]
        filler.unlink()
        client.put(f"/files/{digest_of(data)}", content=data).raise_for_status()
        assert client.get("/whoami").status_code == 200


def test_the_free_space_that_the_operator_keeps(make_server: Callable[..., ServerProcess]) -> None:
    server = make_server(files__free_bytes=str(2**60)).start()
    with server.client() as client:
        answer = client.put(f"/files/{digest_of(b'x')}", content=b"x")
        assert (answer.status_code, code_of(answer)) == (507, "kernel.storage_full")
    assert stored(server) == []


def test_exchanges_that_are_nonsense(server: ServerProcess) -> None:
    server.submit("sleep", "0.1")
    from tests.support.serverprocess import bearer_of, eventually

    eventually(lambda: server.pilots(), "there is a pilot")
    folder = next(one for one in (server.home / "run" / "pilots").iterdir() if (one / "key").exists())
    address = f"/pilots/{folder.name}/exchange"
    good = {"protocol": 1, "session": "x", "sequence": 1}
    with server.client(bearer_of(folder)) as pilot:
        for content in (b"", b"{", b"[]", json.dumps(good | {"want": "many"}).encode()):
            answer = pilot.post(address, content=content)
            assert (answer.status_code, code_of(answer)) == (422, "kernel.invalid")
        answer = pilot.post(address, json=good | {"protocol": 99})
        assert (answer.status_code, code_of(answer)) == (426, "jobs.protocol")
        log = {"lease": 1, "index": 0, "stream": "stdout", "offset": 0, "data": "no base64!"}
        assert pilot.post(address, json=good | {"logs": [log]}).status_code in (200, 422)
        log["data"] = base64.b64encode(b"x").decode()
        assert pilot.post(address, json=good | {"logs": [log]}).status_code == 200
