"""Whether KVM works here: told by a guest that came up, not by a device that can be opened.

There are computers whose /dev/kvm opens, whose firmware runs, and whose guests then spin for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 20.0
_DEVICE = Path("/dev/kvm")
_MARK = b"Run /"
"""Linux says so when it hands over to its first process."""


@dataclass(frozen=True)
class Kvm:
    """``works`` None: not known yet, as there was no kernel to try it with."""

    works: bool | None
    reason: str


def glance() -> Kvm:
    """What can be said without starting anything."""
    if not _DEVICE.exists():
        return Kvm(False, "there is no /dev/kvm")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Kvm(False, "this user may not open /dev/kvm (add it to the group kvm)")
    return Kvm(None, "it is tried with the first image that brings a kernel")


async def probe(memory: Path, kernel: Path | None, initrd: Path | None) -> Kvm:
    """The same after a guest was started, once for each kernel of this computer. ``memory``: a file for the answer."""
    seen = glance()
    if seen.works is False:
        return seen
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        kept = json.loads(memory.read_text(encoding="utf-8"))
        if kept["kernel"] == platform.release():
            return Kvm(kept["works"], kept["reason"])
    if kernel is None or initrd is None:
        return seen
    works = await _boots(kernel, initrd)
    reason = (
        "a guest came up" if works else f"a guest did not come up within {DEADLINE_S:.0f} s: it is emulated instead"
    )
    memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    memory.write_text(json.dumps({"kernel": platform.release(), "works": works, "reason": reason}), encoding="utf-8")
    return Kvm(works, reason)


async def _boots(kernel: Path, initrd: Path) -> bool:
    process = await asyncio.create_subprocess_exec(
        "qemu-system-x86_64", "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
        "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", "console=ttyS0 loglevel=8 panic=-1", "-serial", "stdio",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - for the type checker
    said = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while piece := await process.stdout.read(4096):
                said = (said + piece)[-8192:]
                if _MARK in said:
                    return True
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return False
