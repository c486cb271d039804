"""A network of its own, joined to this computer by one cable: what runs there reaches nothing that listens on loopback.

It goes with the process that holds it. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.apt import need
from tests.support.postgres import die_with_parent

_HOLD = "import ctypes, signal, sys; ctypes.CDLL(None).unshare(0x40000000) and sys.exit(1); print(1, flush=True); "


@dataclass(frozen=True)
class Apart:
    """``prefix`` before a command runs it there. ``here`` is our address on the cable, ``there`` that network's."""

    prefix: list[str]
    here: str
    there: str


@contextlib.contextmanager
def network() -> Iterator[Apart]:
    """For as long as the context lasts. Skips where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes a network")
    need(["ip", "nsenter"], ["iproute2", "util-linux"])
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", _HOLD + "signal.pause()"],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            pytest.skip("no network namespace can be made here")
        yield _joined(holder.pid)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()


def _joined(pid: int) -> Apart:
    inside = ["nsenter", "-t", str(pid), "-n"]
    for _ in range(20):  # another test may have the same addresses
        name, net = secrets.token_hex(4), f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(64) * 4}"
        head, _, last = net.rpartition(".")
        here, there = f"{head}.{int(last) + 1}", f"{head}.{int(last) + 2}"
        taken = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
        if f" {here}/" in taken:
            continue
        for command in (
            ["ip", "link", "add", f"hh{name}", "type", "veth", "peer", "name", f"ht{name}", "netns", str(pid)],
            ["ip", "addr", "add", f"{here}/30", "dev", f"hh{name}"],
            ["ip", "link", "set", f"hh{name}", "up"],
            [*inside, "ip", "link", "set", "lo", "up"],
            [*inside, "ip", "addr", "add", f"{there}/30", "dev", f"ht{name}"],
            [*inside, "ip", "link", "set", f"ht{name}", "up"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
        return Apart(inside, here, there)
    raise AssertionError("no addresses are free")
