"""Who gets at what, over HTTP, with the real server on both databases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.serverprocess import ServerProcess, bearer_of, eventually


def add_user(server: ServerProcess, name: str) -> str:
    with server.client() as owner:
        answer = owner.post("/users", json={"name": name}).raise_for_status()
    return str(answer.json()["token"])


def code_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    return str(body["code"])


def upload(client: httpx.Client, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    client.put(f"/files/{digest}", content=data).raise_for_status()
    return digest


def one_that_lives(server: ServerProcess) -> Path:
    """The folder of a pilot. Another one may be about to start."""
    return next(one for one in (server.home / "run" / "pilots").iterdir() if (one / "pilot.lock").exists())


def test_two_users_do_not_meet(any_server: ServerProcess) -> None:
    server = any_server
    number = server.array(2, "sh", "-c", "echo secret; echo secret > out.txt")
    server.await_end(number)
    with server.client(add_user(server, "bob")) as bob, server.client() as owner:
        digest = upload(owner, b"mine")
        assert owner.get("/jobs").json()["items"]
        assert bob.get("/jobs").json()["items"] == []
        for path in ("", "/follow", "/logs", "/tasks", "/files", "/tasks/0/files/out.txt", "/explain"):
            assert owner.get(f"/jobs/{number}{path}").status_code == 200, path
            answer = bob.get(f"/jobs/{number}{path}")
            assert (answer.status_code, code_of(answer)) == (404, "jobs.not_found"), path
        for verb in ("kill", "retry"):
            assert code_of(bob.post(f"/jobs/{number}/{verb}", json={})) == "jobs.not_found"
        assert bob.post("/files/missing", json={"files": [{"digest": digest, "size": 4}]}).json()["missing"] == [digest]
        assert owner.get("/pilots").json()["items"]
        assert bob.get("/pilots").json()["items"] == []
        assert bob.get("/sites").json()["items"] == []
        assert code_of(bob.get("/sites/local")) == "sites.not_found"
        assert owner.get("/usage").json()["items"]
        assert bob.get("/usage").json()["items"] == []
        lines: list[str] = []
        patience = httpx.Timeout(120, read=3.0)
        with pytest.raises(httpx.ReadTimeout), bob.stream("GET", "/events?after=0", timeout=patience) as stream:
            lines.extend(stream.iter_lines())
        assert not [line for line in lines if "job/" in line or "pilot/" in line]


def test_whom_no_site_serves(one_server: ServerProcess) -> None:
    with one_server.client(add_user(one_server, "rob")) as rob:
        answer = rob.post("/jobs", json={"command": ["true"]})
        assert (answer.status_code, code_of(answer)) == (422, "jobs.no_site")
        assert answer.json()["hint"]


def test_operators_and_others(one_server: ServerProcess) -> None:
    with (
        one_server.client(add_user(one_server, "bob")) as bob,
        one_server.client() as owner,
        one_server.client(None) as nobody,
    ):
        for client, status in ((owner, 200), (bob, 403), (nobody, 401)):
            assert client.get(f"{one_server.url}/metrics").status_code == status
        assert "hansa_jobs" in owner.get(f"{one_server.url}/metrics").text
        assert code_of(bob.post("/users", json={"name": "eve"})) == "identity.forbidden"
        assert code_of(bob.post("/server/drain")) == "identity.forbidden"
        assert code_of(owner.post("/users", json={"name": "bob"})) == "identity.name_taken"
        assert nobody.get(f"{one_server.url}/health").json()["status"] == "ok"


@pytest.mark.parametrize("token", ["wrong", "hansa_local_" + "x" * 43, "ä", "a b"])
def test_wrong_tokens(shared_server: ServerProcess, token: str) -> None:
    headers = {b"Authorization": f"Bearer {token}".encode()}
    answer = httpx.get(f"{shared_server.url}/api/v1/whoami", headers=headers, trust_env=False)
    assert (answer.status_code, code_of(answer)) == (401, "identity.bad_token")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_pilots_token_opens_nothing_but_its_own_exchange(one_server: ServerProcess) -> None:
    number = one_server.submit("sleep", "600")
    eventually(lambda: one_server.job(number)["counts"]["running"], "the task runs")
    folder = one_that_lives(one_server)
    request = {"protocol": 1, "session": "forged", "sequence": 1}
    with one_server.client(bearer_of(folder)) as pilot:
        for path in ("/whoami", "/jobs", f"/jobs/{number}", "/pilots", "/sites", "/usage", "/events", "/../../metrics"):
            assert pilot.get(path).status_code == 403, path
        for path in ("/jobs", f"/jobs/{number}/kill", "/files/missing", "/users", "/server/drain"):
            assert pilot.post(path, json={}).status_code == 403, path
        assert code_of(pilot.post("/pilots/pilot_of_another/exchange", json=request)) == "identity.forbidden"
        assert pilot.get(f"/pilots/{folder.name}/node.pyz").status_code == 200
        foreign = f"/pilots/{folder.name}/files/sha256:{'0' * 64}"
        assert code_of(pilot.get(foreign)) == "jobs.no_file"
    with one_server.client() as owner:
        assert code_of(owner.post(f"/pilots/{folder.name}/exchange", json=request)) == "identity.forbidden"
        owner.post(f"/jobs/{number}/kill", json={}).raise_for_status()
    one_server.await_end(number)


def test_the_token_of_a_pilot_that_has_ended_is_void(make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = make_server(pilot__idle_timeout_s="0.5").start()
    go_on = tmp_path / "go-on"
    number = server.submit("sh", "-c", f"while [ ! -e {go_on} ]; do sleep 0.1; done")
    eventually(lambda: server.job(number)["counts"]["running"], "the task runs")
    folder = one_that_lives(server)
    token = bearer_of(folder)
    go_on.touch()
    eventually(lambda: not folder.exists(), "the pilot has ended and its folder is gone")
    with server.client(token) as pilot:
        request = {"protocol": 1, "session": "late", "sequence": 1}
        answer = pilot.post(f"/pilots/{folder.name}/exchange", json=request)
        assert (answer.status_code, code_of(answer)) == (401, "identity.bad_token")


def test_a_task_cannot_read_the_home_nor_its_pilots_secrets(server: ServerProcess) -> None:
    script = f"""
        find {server.home} -type f 2>/dev/null
        cat {server.home}/keys/local.token {server.home}/run/server.json 2>/dev/null
        cat {server.home}/run/pilots/*/token {server.home}/run/pilots/*/key 2>/dev/null
        cat {server.home}/run/pilots/*/config.json 2>/dev/null
        for process in /proc/[0-9]*; do
            grep -q pilot $process/cmdline 2>/dev/null || continue
            cat $process/root{server.home}/keys/local.token $process/root{server.home}/run/pilots/*/token 2>/dev/null
            cat $process/cwd/token $process/cwd/key $process/environ 2>/dev/null
            for file in $process/fd/*; do timeout 1 head -c 100 $file </dev/null 2>/dev/null; done
        done
        cat /proc/1/root{server.home}/keys/local.token 2>/dev/null
        env
        true
    """
    number = server.submit("sh", "-c", script)
    eventually(lambda: server.pilots(), "there is a pilot")
    folders = (server.home / "run" / "pilots").iterdir()  # a second one starts where the first is slow
    secrets = [folder / name for folder in folders for name in ("token", "key")]
    pilot_tokens = [secret.read_text().strip() for secret in secrets if secret.exists()]
    assert pilot_tokens
    assert server.await_end(number)["status"]["phase"] == "done"
    with server.client() as owner:
        said = owner.get(f"/jobs/{number}/logs").text
        pilots = owner.get("/pilots").json()["items"]
    if all(pilot["isolation"] in (None, "none") for pilot in pilots):
        pytest.skip("this computer allows no namespaces: tasks are not isolated")
    assert server.token not in said
    assert not [token for token in pilot_tokens if token in said]
    assert "server.json" not in said


def test_the_embedded_server_listens_on_loopback_only(one_server: ServerProcess) -> None:
    assert one_server.process is not None
    found = psutil.Process(one_server.process.pid).net_connections(kind="inet")
    listening = [one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_the_home_is_private(one_server: ServerProcess) -> None:
    for path in [one_server.home, *one_server.home.iterdir()]:
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700, path
    for path in (one_server.home / "keys" / "local.token", one_server.home / "run" / "server.json"):
        assert path.stat().st_mode & 0o777 == 0o600
