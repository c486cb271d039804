"""What people do with the command line: sign in, virtual organisations, suspension; jobs in the name of a VO."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.identity import Browser, Server, claims


class Person:
    """A shell of somebody elsewhere, with a configuration of their own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.config = folder / "config"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HANSA_", "DISPLAY"))}
        self.environ = inherited | {"XDG_CONFIG_HOME": str(self.config), "HANSA_KEYRING": "0", "HOME": str(folder)}

    def popen(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hansa.cli.main", *words]
        return subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.config.parent
        )

    def run(self, *words: str, code: int = 0) -> str:
        process = self.popen(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, (words, process.returncode, out, err)
        return out if code == 0 else err

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "-o", "json"))

    def login(self, browser: Browser) -> str:
        """Run ``hansa login`` and say yes in the browser; what the command said."""
        process = self.popen("login", self.server.url)
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"enter the code (\S+)", line)
        assert found, line
        browser.get(f"{self.server.issuer}/device", user_code=found[1])
        browser.submit(decision="allow")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return err

    @property
    def file(self) -> Path:
        return next((self.config / "hansa" / "logins").glob("*.json"))


@pytest.fixture(scope="module")
def maria(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Signed in from the command line."""
    person = Person(server, tmp_path_factory.mktemp("maria"))
    person.config.mkdir()
    said = person.login(server.account("maria"))
    assert f"signed in at {server.url} as maria" in said
    return person


def operator(server: Server, tmp_path: Path) -> Person:
    person = Person(server, tmp_path)
    person.environ |= {"HANSA_SERVER": server.url, "HANSA_TOKEN": server.info["token"]}
    return person


def test_after_a_login_commands_know_the_server_and_the_user(server: Server, maria: Person) -> None:
    assert maria.json("whoami")["name"] == "maria"
    assert maria.json("job", "list") == []
    assert maria.file.stat().st_mode & 0o077 == 0
    token = maria.run("token").strip()
    assert claims(token)["preferred_username"] == "maria"
    assert server.whoami(token) == 200


def make_stale(person: Person) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(person.file.read_text())
    person.file.write_text(json.dumps(stored | {"expires": time.time() - 1}))
    return stored


def test_many_commands_at_once_refresh_once(maria: Person) -> None:
    before = make_stale(maria)
    with ThreadPoolExecutor(4) as pool:
        tokens = set(pool.map(lambda _: maria.run("token").strip(), range(4)))
    assert len(tokens) == 1
    after = json.loads(maria.file.read_text())
    assert after["refresh_token"] != before["refresh_token"]
    assert maria.json("whoami")["name"] == "maria"


def test_no_token_is_in_any_command_line(maria: Person) -> None:
    stored = make_stale(maria)
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(file.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    maria.run("token")
    done.set()
    watcher.join()
    secrets = [stored["access_token"], stored["refresh_token"]]
    assert not any(secret.encode() in line for line in set(seen) for secret in secrets)


def test_a_vo_from_the_command_line(server: Server, maria: Person, tmp_path: Path) -> None:
    olga = operator(server, tmp_path)
    assert olga.json("vo", "create", "vo.lab", "--describe", "Galaxies", "--manager", "maria")["members"] == 1
    maria.run("vo", "group", "vo.lab", "astro")
    link = maria.json("vo", "invite", "vo.lab", "--role", "vm-operator", "--group", "astro")["link"]
    paul_browser = server.account("paul")
    paul_browser.get(link)
    assert "Join vo.lab?" in paul_browser.follow().text
    assert paul_browser.submit().headers["location"].endswith("/account")
    assert "vo.lab" in paul_browser.follow().text
    paul = Person(server, tmp_path)
    paul.config.mkdir()
    paul.login(paul_browser)
    assert paul.json("vo", "show", "vo.lab")["my_groups"] == ["astro"]
    held = claims(paul.run("token").strip())["entitlements"]
    assert "urn:mace:hansa:group:vo.lab:astro:role=member#127.0.0.1" in held
    assert "urn:mace:hansa:group:vo.lab:role=vm-operator#127.0.0.1" in held
    assert [one["name"] for one in maria.json("vo", "member", "list", "vo.lab")] == ["maria", "paul"]
    assert "Only its managers" in paul.run("vo", "invite", "vo.lab", code=5)
    second = maria.json("vo", "invite", "vo.lab", "--expires", "1h")["link"]
    assert paul.json("vo", "join", second)["name"] == "vo.lab"
    assert "not valid" in paul.run("vo", "join", second, code=5)
    assert maria.json("vo", "member", "suspend", "vo.lab", "paul", "--why", "Away")["suspended"] is True
    maria.run("vo", "member", "remove", "vo.lab", "paul")
    assert paul.json("vo", "list") == []
    assert "left without a manager" in maria.run("vo", "member", "remove", "vo.lab", "maria", code=5)
    assert olga.json("vo", "suspend", "vo.lab", "--why", "Ended")["suspended"] is True
    assert olga.json("vo", "resume", "vo.lab")["suspended"] is False
    paul.run("logout")
    assert "not signed in" in paul.run("token", server.url, code=3)


def test_clients_and_keys_from_the_command_line(server: Server, tmp_path: Path) -> None:
    olga = operator(server, tmp_path)
    made = olga.json("admin", "client", "add", "wiki", "--confidential", "--redirect", "https://wiki.example.org/cb")
    assert made["secret"].startswith("hansa_client_")
    assert [one["id"] for one in olga.json("admin", "client", "list")] == ["wiki"]
    assert "cannot be a redirect URI" in olga.run("admin", "client", "add", "bad", "--redirect", "http://a/", code=2)
    olga.run("admin", "client", "remove", "wiki")
    assert len(olga.run("admin", "key", "rotate").strip()) == 16
    assert olga.json("admin", "user", "invite", "nina")["link"].startswith(server.issuer)
    assert olga.json("admin", "user", "suspend", "nina")["suspended"] is True
    assert "nina" in olga.run("admin", "user", "list")


def test_a_new_master_key_while_the_server_is_down(server: Server, maria: Person, tmp_path: Path) -> None:
    olga = operator(server, tmp_path)
    olga.environ["HANSA_HOME"] = str(server.home)
    file = server.home / "keys" / "master.key"
    before = file.read_text()
    assert "runs already" in olga.run("admin", "key", "master", code=5)
    token = maria.run("token").strip()
    server.stop()
    olga.run("admin", "key", "master")
    server.start()
    assert file.read_text() != before
    assert len(file.read_text().split()) == 1
    assert server.whoami(token) == 200


def test_logout_ends_it_at_the_server_too(server: Server, maria: Person) -> None:
    token = maria.run("token").strip()
    maria.run("logout")
    assert server.whoami(token) == 401
    assert "not signed in" in maria.run("token", server.url, code=3)
