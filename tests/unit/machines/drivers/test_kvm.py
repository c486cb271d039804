"""KVM is used only after a guest came up with it, and the answer is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.machines.drivers.qemu import kvm
from hansa.machines.drivers.qemu.command import Run, command


@pytest.mark.parametrize("works", [True, False])
async def test_a_device_that_opens_proves_nothing(works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, memory, kernel = tmp_path / "kvm", tmp_path / "memory" / "kvm.json", tmp_path / "vmlinuz"
    monkeypatch.setattr(kvm, "_DEVICE", device)
    tries: list[Path] = []

    async def boots(kernel: Path, _initrd: Path) -> bool:
        tries.append(kernel)
        return works

    monkeypatch.setattr(kvm, "_boots", boots)
    assert (await kvm.probe(memory, kernel, kernel)).works is False, "there is no device"
    device.touch()
    assert (await kvm.probe(memory, None, None)).works is None, "there is nothing to try it with"
    assert not tries
    for _ in range(2):
        assert (await kvm.probe(memory, kernel, kernel)).works is works
    assert tries == [kernel], "a guest is started once"
    memory.write_text("broken")
    assert (await kvm.probe(memory, kernel, kernel)).works is works
    assert len(tries) == 2


async def test_a_guest_that_says_nothing_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As QEMU is, whose firmware ran and whose guest spins: it is ended, and counts as one that did not come up."""
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\necho SeaBIOS\nexec sleep 600\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(kvm, "DEADLINE_S", 0.5)
    assert await kvm._boots(tmp_path, tmp_path) is False
    fake.write_text("#!/bin/sh\necho 'Run /init as init process'\nexec sleep 600\n")
    monkeypatch.setattr(kvm, "DEADLINE_S", 60.0)
    assert await kvm._boots(tmp_path, tmp_path) is True


def test_what_it_is_started_with() -> None:
    words = [command(Run("/m", "web", 2, 512, 2222, "52:54:00:00:00:01", name)) for name in ("kvm", "tcg")]
    assert [one[one.index("-accel") + 1] for one in words] == ["kvm", "tcg,thread=multi,tb-size=128"]
    assert [one[one.index("-cpu") + 1] for one in words] == ["host", "Nehalem"]
