"""``qemu-img`` as a child process. It opens only what :mod:`hansa.images.formats` has let pass, its format given."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from hansa.kernel.errors import Permanent, Temporary

_CONVERT_S = 3600.0


async def qemu_img(*words: str, deadline_s: float = _CONVERT_S) -> str:
    """Run it; what it said. Raises Permanent where it is not installed, Temporary where it failed."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Permanent("qemu-img is not installed on the server: apt install qemu-utils.")
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, said = await asyncio.wait_for(process.communicate(), deadline_s)
    except TimeoutError as error:
        raise Temporary(f"qemu-img {words[0]} did not end within {deadline_s:.0f} s.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Temporary(f"qemu-img {words[0]}: {said.decode(errors='replace').strip()[-300:]}")
    return out.decode(errors="replace")


async def convert(source: Path, has: str, wanted: str, folder: Path, *, is_shared: bool = False) -> Path:
    """The image in another format, as a new file in ``folder`` that is the caller's to remove.

    ``is_shared``: a machine has it open, and stands still.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{secrets.token_hex(8)}.{wanted}"
    try:
        shared = ["-U"] if is_shared else []
        await qemu_img("convert", *shared, "-f", has, "-O", wanted, str(source), str(target))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


async def first_bytes(source: Path, form: str, folder: Path, size: int = 65536) -> bytes:
    """The beginning of the disk that an image describes. ``folder`` is the caller's own."""
    head = folder / secrets.token_hex(8)
    try:
        await qemu_img("dd", "-f", form, "-O", "raw", f"bs={size}", "count=1", f"if={source}", f"of={head}")
        return head.read_bytes()
    finally:
        head.unlink(missing_ok=True)
