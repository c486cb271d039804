"""The command that signs in at a machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hansa.client.errors import HansaError
from hansa.client.ssh_keys import ssh_command
from hansa.kernel.status import Party, Status
from hansa.machines.wire import Machine, MachineSize, SshAccess


def machine_at(ssh: SshAccess | None) -> Machine:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    status = Status("running", "machines.running", "It runs.", Party.HANSA, now)
    return Machine("web", "machine_1", "ada", status, "running", "debian", "1", MachineSize(1, 512), now, ssh=ssh)


def test_a_key_of_its_own_a_host_key_by_its_id_and_the_way_through_a_jump_host(tmp_path: Path) -> None:
    access = SshAccess("10.0.0.7", "debian", 2222, ["ssh-ed25519 AAAA"], "ada@gate.example.org:22")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    words = ssh_command(machine_at(access), ["echo", "two words"], environ)
    assert words[:5] == ["ssh", "-i", str(tmp_path / "hansa/ssh/id_ed25519"), "-p", "2222"]
    (through,) = [word for word in words if word.startswith("ProxyCommand=ssh ")]
    assert through.endswith(" -W %h:%p ssh://ada@gate.example.org:22")
    assert words[-2:] == ["debian@10.0.0.7", "echo 'two words'"]
    assert "StrictHostKeyChecking=yes" in words
    assert (tmp_path / "hansa/ssh/known_hosts.machine_1").read_text() == "machine_1 ssh-ed25519 AAAA\n"
    plain = ssh_command(machine_at(replace(access, host_keys=[], jump=None)), [], environ)
    assert not [word for word in plain if "ProxyCommand" in word]
    assert "StrictHostKeyChecking=accept-new" in plain
    with pytest.raises(HansaError, match="no address"):
        ssh_command(machine_at(None), [], environ)
