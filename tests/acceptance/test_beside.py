"""A shell beside a running task, and its ports, as a user has them."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.support.cli import PATIENCE_S, Desk

SERVES = """
import http.server, pathlib, sys
pathlib.Path("there").write_text("hello")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
pathlib.Path("port").write_text(str(server.server_address[1]))
print("up", flush=True)
server.serve_forever()
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_terminal(desk: Desk, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    here, there = pty.openpty()
    command = [sys.executable, "-m", "hansa.cli.main", *words]
    process = subprocess.Popen(
        command, cwd=desk.folder, env=desk.environment() | {"TERM": "dumb"}, stdin=there, stdout=there, stderr=there
    )
    os.close(there)
    return process, here


def read_until(fd: int, word: str) -> str:
    text, deadline = "", time.monotonic() + PATIENCE_S
    while word not in text:
        assert time.monotonic() < deadline, text
        if select.select([fd], [], [], 0.2)[0]:
            try:
                text += os.read(fd, 4096).decode(errors="replace")
            except OSError:
                break
    assert word in text, text
    return text


def test_a_shell_and_a_forward_beside_a_running_task(desk: Desk) -> None:
    desk.write("serve.py", SERVES)
    python = sys.executable
    job = desk.hansa("job", "submit", "-q", "--time", "1h", "--", python, "serve.py").out.strip()
    refused = desk.hansa("job", "shell", "999", "--", "ls", code=None)
    assert refused.code == 4
    until(lambda: desk.hansa("job", "show", job, "-o", "json").json()["counts"]["running"] == 1)

    said = desk.hansa("job", "shell", job, "--", "sh", "-c", "cat there; echo $HANSA_JOB >&2; exit 7", code=7)
    assert (said.out, said.err) == ("hello", f"{job}\n")
    port = desk.hansa("job", "shell", job, "--", "cat", "port").out
    assert desk.hansa("job", "shell", job, code=2).err.count("no terminal") == 1
    # 1.5 MB: several pieces, and more than may be on its way at once
    assert len(desk.hansa("job", "shell", job, "--", "head", "-c", "1500000", "/dev/zero").out) == 1_500_000

    forward = desk.popen("job", "forward", job, port, "--local", "0")
    assert forward.stdout is not None
    address = forward.stdout.readline().decode().strip()
    for _ in range(3):
        with urllib.request.urlopen(f"http://{address}/there", timeout=PATIENCE_S) as answer:
            assert answer.read() == b"hello"
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as idle:
        process, terminal = in_terminal(desk, "job", "shell", job)
        os.write(terminal, b"stty size; echo an''swer $((6*7))\n")
        assert "answer 42" in read_until(terminal, "answer 42")
        desk.hansa("job", "kill", job)
        assert process.wait(PATIENCE_S) in (1, 129), "it ends with its task"
        forward.communicate(timeout=PATIENCE_S)
        assert forward.returncode == 1
        assert idle.recv(1) == b""
    os.close(terminal)
    desk.hansa("job", "wait", job, "-q", code=1)
    home = Path(desk.home)
    until(lambda: not list(home.glob("run/pilots/*/tasks/*/door")))
    assert desk.hansa("job", "shell", job, "--", "ls", code=5).err.count("needs a task that runs") == 1
