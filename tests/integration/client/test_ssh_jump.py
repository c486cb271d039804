"""A person comes into a machine through a jump host, with no key but Hansa's own: two real sshd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hansa.client.ssh_keys import own_key, ssh_command
from hansa.machines.wire import SshAccess
from tests.support.sshd import Sshd
from tests.unit.client.test_ssh_keys import machine_at


def test_through_a_jump_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "with space"))
    monkeypatch.setenv("HOME", str(tmp_path))
    public = own_key().with_suffix(".pub").read_text()
    gate, guest = Sshd(tmp_path / "gate"), Sshd(tmp_path / "guest")
    try:
        for one in (gate, guest):
            one.start()
            (one.folder / "authorized").write_text(public)
        access = SshAccess("127.0.0.1", guest.user, guest.port, [guest.host_key], f"{gate.user}@127.0.0.1:{gate.port}")
        words = ssh_command(machine_at(access), ["echo", "two words"])
        words[1:1] = ["-F", os.devnull, "-o", "ConnectionAttempts=1"]

        def ask() -> subprocess.CompletedProcess[str]:
            return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

        done = ask()
        assert (done.returncode, done.stdout) == (0, "two words\n"), done.stderr
        assert "Accepted publickey" in (gate.folder / "log").read_text()
        gate.stop()
        assert ask().returncode == 255, "there is no other way"
    finally:
        gate.stop()
        guest.stop()
