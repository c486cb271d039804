"""Before ssh is started, its port is waited for."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

from hansa.client.ssh_keys import await_answer
from hansa.machines.wire import SshAccess
from tests.support.postgres import free_port
from tests.unit.client.test_ssh_keys import machine_at


def test_it_waits_for_an_answer_and_for_nothing_that_ssh_can_tell() -> None:
    access = SshAccess("127.0.0.1", "debian", free_port())
    await_answer(machine_at(access), patience_s=0.2)  # nobody listens: ssh says so
    await_answer(machine_at(None))
    await_answer(machine_at(replace(access, jump="gate")))
    with socket.create_server(("127.0.0.1", access.port)) as server:
        guest = threading.Thread(target=answer, args=[server])
        guest.start()
        await_answer(machine_at(access), patience_s=60)
        guest.join(60)
        assert not guest.is_alive()


def answer(server: socket.socket) -> None:
    link, _ = server.accept()
    with link:
        link.sendall(b"SSH-2.0-x\r\n")
