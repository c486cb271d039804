"""``qemu-img`` as a child process. It opens only what :mod:`hansa.images.formats` has let pass, its format given."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from hansa.kernel.errors import Permanent, Temporary

_CONVERT_S = 3600.0
_LOOK_S = 0.5
_GROWS, _ALWAYS = 32, 16 * 1024**3
ROOM = 1024**3
"""Bytes that stay free on a disk while something is converted there."""


class MissingProgramError(Permanent):
    """qemu-img is not installed on the server: apt install qemu-utils."""


async def qemu_img(*words: str, deadline_s: float = _CONVERT_S) -> str:
    """Run it; what it said. Raises Permanent where it is not installed, Temporary where it failed."""
    program = shutil.which("qemu-img")
    if program is None:
        raise MissingProgramError(str(MissingProgramError.__doc__))
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
    shared = ["-U"] if is_shared else []
    work = asyncio.ensure_future(qemu_img("convert", *shared, "-f", has, "-O", wanted, str(source), str(target)))
    try:
        await _within(work, target, room_of(source, folder))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def room_of(source: Path, folder: Path) -> int:
    """Bytes that an image may unpack to: 32 times its own size, at least 16 GiB, and what is free but for a rest."""
    free = max(0, shutil.disk_usage(folder).free - ROOM)
    return min(max(_GROWS * source.stat().st_size, _ALWAYS), free)


async def _within(work: asyncio.Task[str], target: Path, most: int) -> None:
    """Wait for a conversion. Raises Permanent where it writes more than so many bytes.

    A few bytes may stand for any number: the clusters of a qcow2 image are compressed, and named as often as one likes.
    """
    try:
        while not (await asyncio.wait({work}, timeout=_LOOK_S))[0]:
            if _written(target) > most:
                raise Permanent(f"It unpacks to more than {most:,} bytes, for which there is no room here.")
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _written(path: Path) -> int:
    """Bytes on the disk, not those that are only described."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


async def first_bytes(source: Path, form: str, folder: Path, size: int = 65536) -> bytes:
    """The beginning of the disk that an image describes. ``folder`` is the caller's own."""
    head = folder / secrets.token_hex(8)
    try:
        await qemu_img("dd", "-f", form, "-O", "raw", f"bs={size}", "count=1", f"if={source}", f"of={head}")
        return head.read_bytes()
    finally:
        head.unlink(missing_ok=True)
