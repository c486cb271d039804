"""Commands and files over a real OpenSSH server: words stay words, hosts are checked, connections are made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.engines.shell import LocalShell, Shell
from hansa.engines.ssh import OpensshShell, SshShell, SshTarget
from hansa.kernel.errors import Permanent, Temporary
from tests.support.sshd import Sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd")).start()
    yield server
    server.stop()


def target(sshd: Sshd) -> SshTarget:
    return SshTarget("127.0.0.1", sshd.user, sshd.port, sshd.known_hosts, sshd.key)


def openssh(sshd: Sshd, folder: Path) -> OpensshShell:
    (folder / "known_hosts").write_text(sshd.known_hosts)
    options = ["-F", "none", "-i", f"{sshd.folder}/user_key", "-p", str(sshd.port)]
    options += ["-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "IdentitiesOnly=yes"]
    return OpensshShell(f"{sshd.user}@127.0.0.1", folder / "c", options)


@pytest.fixture(params=["local", "asyncssh", "openssh"])
async def shell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shell]:
    made: Shell
    if request.param == "local":
        made = LocalShell()
    else:
        sshd = request.getfixturevalue("sshd")
        made = SshShell(target(sshd)) if request.param == "asyncssh" else openssh(sshd, tmp_path)
    yield made
    await made.close()


async def test_where_addresses_are_given_the_name_is_only_for_the_host_key(sshd: Sshd) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("cluster.example.org", sshd.port)
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    known = sshd.known_hosts.replace("[127.0.0.1]", "[cluster.example.org]")
    assert known != sshd.known_hosts
    there = replace(target(sshd), host="cluster.example.org", known_hosts=known, resolve=resolve)
    made = SshShell(there)
    assert (await made.run(["echo", "hansa"])).text == "hansa\n"
    await made.close()


async def test_words_stay_words(shell: Shell) -> None:
    words = ["a b", "", "$HOME", "`id`", "'", '"', "*", "\\", "ä\n€", "-n", "; exit 3"]
    done = await shell.run(["printf", "%s|", *words])
    assert done.text == "|".join(words) + "|"
    assert done.status == 0


async def test_exit_code_and_both_streams(shell: Shell) -> None:
    done = await shell.script('cat; echo "oh no" >&2; exit 7', stdin=b"\0\xff\n")
    assert (done.status, done.stdout, done.complaint) == (7, b"\0\xff\n", "oh no")


async def test_files_are_private_and_whole(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "it's a file"
    content = bytes(range(256)) * 2000
    await shell.put(str(path), content)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert await shell.get(str(path)) == content
    assert await shell.get(str(tmp_path / "none")) is None
    with pytest.raises(Temporary):
        await shell.put(str(tmp_path / "no" / "such"), b"")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("it")] == ["it's a file"]


async def test_a_deadline_is_kept(shell: Shell) -> None:
    await shell.run(["true"])  # connected, which is said differently where it takes longer than the deadline
    with pytest.raises(Temporary, match="no answer"):
        await shell.run(["sleep", "60"], deadline_s=0.3)


async def test_a_stream_goes_both_ways_and_ends_with_its_context(shell: Shell, tmp_path: Path) -> None:
    async with shell.open(
        ["/bin/sh", "-c", 'while read line; do echo "got $line"; done; touch "$1"', "sh", str(tmp_path / "end")]
    ) as stream:
        for word in (b"one\n", b"two\n"):
            await stream.write(word)
            assert await stream.read() == b"got " + word
    for _ in range(500):
        if (tmp_path / "end").exists():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("its input was not closed")


async def test_many_at_once_share_a_connection(sshd: Sshd) -> None:
    shell = SshShell(target(sshd))
    before = (sshd.folder / "log").read_text().count("Accepted publickey")
    done = await asyncio.gather(*(shell.run(["echo", str(n)]) for n in range(20)))
    assert [one.text for one in done] == [f"{n}\n" for n in range(20)]
    await shell.close()
    assert (sshd.folder / "log").read_text().count("Accepted publickey") - before == 1


async def test_a_host_that_is_not_the_one_gets_nothing(sshd: Sshd, tmp_path: Path) -> None:
    other = Sshd(tmp_path / "other").start()
    try:
        liar = replace(target(sshd), known_hosts=f"[127.0.0.1]:{sshd.port} {other.host_key}\n")
        with pytest.raises(Permanent, match="host key"):
            await SshShell(liar).run(["true"])
        stranger = replace(target(sshd), known_hosts="[192.0.2.1]:22 " + other.host_key)
        with pytest.raises(Permanent, match="host key"):
            await SshShell(stranger).run(["true"])
        with pytest.raises(Permanent, match="does not let"):
            await SshShell(replace(target(sshd), key=other.key)).run(["true"])
    finally:
        other.stop()


async def test_a_wrong_key_is_said_so(sshd: Sshd) -> None:
    with pytest.raises(Permanent, match="private key"):
        await SshShell(replace(target(sshd), key="no key")).run(["true"])


async def test_through_a_jump_host_and_to_a_port_behind_it(sshd: Sshd) -> None:
    shell = SshShell(replace(target(sshd), jump=target(sshd)))
    assert (await shell.run(["echo", "there"])).text == "there\n"
    async with shell.forward(sshd.port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"SSH-2.0")
        writer.close()
        await writer.wait_closed()
    await shell.close()


async def test_a_server_that_was_away_is_found_again(tmp_path: Path) -> None:
    sshd = Sshd(tmp_path / "sshd").start()
    shell = SshShell(target(sshd))
    try:
        assert (await shell.run(["true"])).status == 0
        sshd.stop()
        with pytest.raises(Temporary):
            await shell.run(["true"], deadline_s=10)
        with pytest.raises(Temporary, match="cannot be reached"):
            await shell.run(["true"], deadline_s=10)
        sshd.restart()
        assert (await shell.run(["true"])).status == 0
    finally:
        await shell.close()
        sshd.stop()


async def test_openssh_says_what_a_person_has_to_type(sshd: Sshd, tmp_path: Path) -> None:
    shell = openssh(sshd, tmp_path)
    shell._options[3] = "/dev/null"
    with pytest.raises(Permanent, match="Sign in once: ssh"):
        await shell.run(["true"])
    await shell.close()
    stranger = openssh(sshd, tmp_path)
    (tmp_path / "known_hosts").write_text("")
    with pytest.raises(Permanent, match="verification failed"):
        await stranger.run(["true"])
    await stranger.close()
