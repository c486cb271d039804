"""Real servers that hang, lie and point elsewhere: they harm only themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncssh
import pytest

from hansa.engines.egress import EgressPolicy
from hansa.engines.web import Web
from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds.base import Target, parse_settings
from hansa.sites.kinds.ssh import make_shell

KEY = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
KNOWN = f"h.example.org {asyncssh.generate_private_key('ssh-ed25519').export_public_key().decode()}"
Say = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


@asynccontextmanager
async def server(say: Say) -> AsyncIterator[str]:
    """A server that reads a request and says what the test wants; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await say(writer, head.decode())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as started:
        yield f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}"
        started.close()


def text(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


HERE = EgressPolicy(allow_private=True)


async def test_an_answer() -> None:
    async def say(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(text("200 OK", b"hello"))

    async with server(say) as url, Web(HERE) as web:
        response, body = await web.ask("GET", url)
        assert (response.status_code, body) == (200, b"hello")


async def test_one_that_hangs_and_one_that_drips() -> None:
    async def hang(_writer: asyncio.StreamWriter, _: str) -> None:
        await asyncio.sleep(30)

    async with server(hang) as url, Web(HERE, timeout_s=0.2) as web:
        with pytest.raises(Temporary, match="in time"):
            await web.ask("GET", url)


async def test_one_that_never_ends() -> None:
    async def pour(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with server(pour) as url, Web(HERE) as web:
        with pytest.raises(Permanent, match="more than 1,000,000 bytes"):
            await web.ask("GET", url, most_bytes=1_000_000)


@pytest.mark.parametrize("garbage", [b"\x00\xff" * 5000, b"HTTP/9.9 what\r\n\r\n", b""])
async def test_garbage(garbage: bytes) -> None:
    async def say(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(garbage)

    async with server(say) as url, Web(HERE) as web:
        with pytest.raises(Temporary, match="cannot be asked"):
            await web.ask("GET", url)


@pytest.mark.parametrize("where", ["http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "/again"])
async def test_redirects_are_looked_at_and_are_few(where: str) -> None:
    async def say(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(text("302 Found", b"", f"Location: {where}"))

    async with server(say) as url, Web(HERE) as web:
        with pytest.raises(Permanent):
            await web.ask("GET", url)


async def test_a_secret_does_not_follow_a_redirect_to_another_host() -> None:
    heads: list[str] = []

    async def last(writer: asyncio.StreamWriter, head: str) -> None:
        heads.append(head)
        writer.write(text("200 OK"))

    async with server(last) as target:

        async def first(writer: asyncio.StreamWriter, head: str) -> None:
            heads.append(head)
            writer.write(text("302 Found", b"", f"Location: {target}/v3"))

        async with server(first) as url, Web(HERE) as web:
            response, _ = await web.ask("GET", url, headers={"X-Auth-Token": "s3cret"})
    assert response.status_code == 200
    assert ["s3cret" in head for head in heads] == [True, False]


async def test_a_name_that_points_elsewhere_a_moment_later() -> None:
    """DNS rebinding: the first answer is harmless, the next is this very computer."""
    reached: list[str] = []

    async def say(writer: asyncio.StreamWriter, head: str) -> None:
        reached.append(head)
        writer.write(text("200 OK"))

    answers = iter([["8.8.8.8"], ["127.0.0.1"]])

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return next(answers)

    async with server(say) as url:
        port = url.rpartition(":")[2]
        policy = EgressPolicy(["192.0.2.0/24"], resolve=resolve)
        await policy.allow(f"http://rebound.example.org:{port}/v3")
        async with Web(policy) as web:
            with pytest.raises(Permanent, match="must not connect"):
                await web.ask("GET", f"http://rebound.example.org:{port}/v3")
    assert reached == []


async def test_a_host_behind_ssh_is_reached_at_the_address_that_was_looked_at() -> None:
    """The same by SSH, where the name leads to this very computer when the connection is made."""
    reached: list[str] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("a connection")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1") as started:
        port = started.sockets[0].getsockname()[1]
        settings = parse_settings("ssh", {"host": "h.example.org", "user": "ada", "port": port, "known_hosts": KNOWN})

        async def answers(policy: EgressPolicy) -> None:
            where = Target("e", "S", "ssh", None, settings, credential={"private_key": KEY}, egress=policy)
            shell = await make_shell(where)
            try:
                await shell.run(["true"], deadline_s=30)
            finally:
                await shell.close()

        async def here(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        with pytest.raises(Temporary, match="cannot be reached"):
            await answers(EgressPolicy(allow_private=True, resolve=here))
        assert reached == ["a connection"], "where it may, it goes there without asking for the name again"
        turns = iter([["8.8.8.8"], ["127.0.0.1"]])

        async def elsewhere(_host: str, _port: int) -> Sequence[str]:
            return next(turns)

        with pytest.raises(Permanent, match="must not connect"):
            await answers(EgressPolicy(resolve=elsewhere))
        assert reached == ["a connection"]
