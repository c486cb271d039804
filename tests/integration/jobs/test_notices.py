"""Notices over real servers on loopback: webhooks and mail, refused, away and back again."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

import hansa.server.tables  # noqa: F401 - all tables belong to the schema
from hansa.engines.egress import EgressPolicy
from hansa.jobs import notices
from hansa.jobs.notices import NoticePolicy, NoticeRoom
from hansa.jobs.wire import Notify
from hansa.kernel.database import open_database
from hansa.kernel.errors import Fault
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import MailSettings
from tests.contract.conftest import create_schema
from tests.support.jobworld import World

HERE = EgressPolicy(allow_private=True)


class Hook:
    """A receiver of webhooks; ``answers`` are the codes that it gives first."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, Any], str]] = []
        self.answers: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.heard.append((body, self.headers["Idempotency-Key"]))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = await open_database(f"sqlite:///{tmp_path}/hansa.db")
    await create_schema(database)
    yield await World(database, tmp_path).open()
    await database.close()


async def tell(world: World, mail: MailSettings | None = None, minutes: float = 0) -> list[tuple[str, str]]:
    """Tell what is due, after so many minutes; state and message of all notices."""
    world.manual.advance(minutes * 60)
    room = NoticeRoom(world.events, world.clock, mail or MailSettings(), HERE, "https://hansa.example.org/")
    engine: Engine[str, Any, Any, Any] = Engine(world.database, world.clock, room, chance=lambda: 1.0)
    await engine.run_once()
    async with world.database.read() as tx:
        return [(one.phase, one.message) for one in await notices.of_job(tx, 1)]


async def finish(world: World, exit_code: int = 0) -> None:
    pilot = await world.pilot()
    await pilot.take(1)
    await pilot.finish(exit_code)


async def submit(world: World, to: str, *on: Any, policy: NoticePolicy | None = None, **spec: Any) -> None:
    world.jobs._notices = policy or NoticePolicy(MailSettings(), HERE)
    await world.submit(notify=[Notify(to, list(on) or ["ended"])], **spec)


async def test_a_webhook_is_told_once_of_each_thing_that_was_asked_for(world: World, hook: Hook) -> None:
    await submit(world, hook.url, "started", "done", name="fit")
    await finish(world)
    assert await tell(world) == [("sent", ""), ("sent", "")]
    assert await tell(world, minutes=60) == [("sent", ""), ("sent", "")]
    (started, _), (done, key) = sorted(hook.heard, key=lambda one: str(one[0]["phase"]), reverse=True)
    assert (started["phase"], done["phase"], done["job"], done["name"]) == ("running", "done", 1, "fit")
    assert (done["tasks"]["done"], done["exit_code"], done["id"]) == (1, 0, key)
    assert done["url"] == "https://hansa.example.org/jobs/1"
    said = (await world.jobs.explain(world.owner, 1, None)).lines
    assert f"{hook.url} was told that it is done." in said


async def test_a_receiver_that_is_away_is_told_later(world: World, hook: Hook) -> None:
    hook.answers = [503, 429]
    await submit(world, hook.url)
    await finish(world, 3)
    assert await tell(world) == [("waiting", "It answered 503.")]
    assert await tell(world, minutes=30) == [("waiting", "It answered 429.")]
    assert await tell(world, minutes=60) == [("sent", "")]
    assert len({key for _, key in hook.heard}) == 1, "all of the same notice"
    assert hook.heard[0][0]["phase"] == "failed"


@pytest.mark.parametrize("code", [404, 302])
async def test_a_refusal_or_a_redirect_ends_it(world: World, hook: Hook, code: int) -> None:
    hook.answers = [code]
    await submit(world, hook.url)
    await finish(world)
    assert await tell(world) == [("failed", f"It answered {code}.")]
    timeline = await world.jobs.timeline(world.owner, 1)
    assert timeline[-1].reason == "jobs.not_notified"


async def test_after_a_day_it_is_given_up(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    await submit(world, f"http://127.0.0.1:{port}/")
    await finish(world)
    ((phase, _),) = await tell(world)
    assert phase == "waiting"
    ((phase, message),) = await tell(world, minutes=25 * 60)
    assert (phase, message[:20]) == ("failed", "Given up after a day")


async def test_what_was_not_asked_for_is_not_told(world: World, hook: Hook) -> None:
    await submit(world, hook.url, "failed")
    await finish(world)
    assert await tell(world) == []


class Box:
    """Mail that arrived; ``refuses`` is what is answered to a recipient."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuses = ""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if self.refuses:
            return self.refuses
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append((envelope, session.ssl is not None, session.authenticated))
        return "250 OK"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[Box, MailSettings]]:
    """A mail server that wants TLS and a password."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "password").write_text("hush\n")

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, said: LoginPassword) -> AuthResult:
        return AuthResult(success=(said.login, said.password) == (b"hansa", b"hush"))

    box = Box()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    server = Controller(
        box, "127.0.0.1", port, tls_context=context, require_starttls=True, authenticator=check, auth_required=True
    )
    server.start()
    yield (
        box,
        MailSettings(
            host="localhost",
            port=port,
            user="hansa",
            password_file=tmp_path / "password",
            ca_file=tmp_path / "ca.pem",
            sender="hansa@example.org",
            domains=["example.org"],
        ),
    )
    server.stop()


async def test_mail_goes_over_tls_with_a_password(world: World, box: tuple[Box, MailSettings]) -> None:
    inbox, settings = box
    policy = NoticePolicy(settings, HERE)
    await submit(world, "mailto:ada@example.org", policy=policy, name="fit\r\nBcc: eve@example.com", count=3)
    pilot = await world.pilot()
    await pilot.take(3)
    await pilot.finish()
    assert await tell(world, settings) == [("sent", "")]
    ((envelope, is_encrypted, is_signed_in),) = inbox.mails
    assert (is_encrypted, is_signed_in) == (True, True)
    assert (envelope.mail_from, envelope.rcpt_tos) == ("hansa@example.org", ["ada@example.org"])
    text = envelope.content.decode()
    assert "Subject: Job 1 (fit Bcc: eve@example.com) done" in text
    assert "Tasks: 3 done" in text
    assert "https://hansa.example.org/jobs/1" in text


async def test_a_refused_recipient_and_a_busy_server(world: World, box: tuple[Box, MailSettings]) -> None:
    inbox, settings = box
    inbox.refuses = "451 greylisted"
    await submit(world, "mailto:ada@example.org", policy=NoticePolicy(settings, HERE))
    await finish(world)
    ((phase, message),) = await tell(world, settings)
    assert (phase, "greylisted" in message) == ("waiting", True)
    inbox.refuses = "550 no such user"
    ((phase, message),) = await tell(world, settings, minutes=60)
    assert (phase, "no such user" in message) == ("failed", True)


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("https://169.254.169.254/", "link-local"),
        ("http://example.org/", "not encrypted"),
        ("ftp://example.org/", "no URL of the web"),
        ("https://u:p@example.org/", "password"),
        ("mailto:ada@example.com", "example.org only"),
        ("mailto:ada", "no mail address"),
        ("mailto:a@example.org\nBcc: e@example.org", "no mail address"),
    ],
)
def test_who_must_not_be_told(to: str, why: str) -> None:
    policy = NoticePolicy(MailSettings(host="mail", domains=["example.org"]), EgressPolicy())
    with pytest.raises(Fault, match=why) as caught:
        policy.check([Notify(to)])
    assert caught.value.code.code == "jobs.bad_spec"


def test_a_server_without_mail_says_so() -> None:
    with pytest.raises(Fault, match="sends no mail"):
        NoticePolicy(MailSettings(), EgressPolicy()).check([Notify("mailto:ada@example.org")])
