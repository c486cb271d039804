"""Runs a build: a child process that is heard line by line, so that people see how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.build import boot
from hansa.machines.build.recipe import Recipe, command, step_of
from hansa.machines.build.workspace import guarded, scratch, workspace

BUILD_S = 1800.0
Tell = Callable[[str, float], Awaitable[None]]
"""Hears what is being done, and how much of all is done: 0 to 1."""


def missing_programs() -> list[str]:
    """Debian packages that a build needs and this computer does not have."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    wanted = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils", "systemctl": "systemd"}
    wanted |= {"setpriv": "util-linux", "unshare": "util-linux"}
    if os.geteuid() != 0:
        wanted["newuidmap"] = "uidmap"
    absent = {package for program, package in wanted.items() if shutil.which(program, path=path) is None}
    return sorted(absent | boot.missing())


async def build(recipe: Recipe, folder: Path, tell: Tell) -> Path:
    """The image, as qcow2, in a folder that is this build's own.

    Raises Permanent where programs are missing or packages are not to be had, Temporary where it took too long.
    """
    if missing := missing_programs():
        raise Permanent(f"Images cannot be made here: {', '.join(missing)} must be installed (apt install …).")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # root of the build's own user namespace must reach the disk
    disk, image = folder / "disk.raw", folder / "image.qcow2"
    for path in (disk, image):
        path.unlink(missing_ok=True)
    disk.touch()
    disk.chmod(0o666)  # of a folder that is ours alone: the build has a user id of its own
    mode = "root" if os.geteuid() == 0 else "unshare"
    finish = [sys.executable, "-m", "hansa.machines.build.finish", json.dumps(asdict(recipe)), str(disk)]
    argv = command(recipe, [shlex.quote(word) for word in finish], mode)
    with workspace() as work:
        environment = _environment(recipe, work)
        try:
            await _run(guarded(argv, is_alone=mode == "root"), environment, tell)
            await tell("writes the image", 0.96)
            write = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(image)]
            await _run(guarded(write), environment, tell)
        finally:
            disk.unlink(missing_ok=True)
    return image


def _environment(recipe: Recipe, work: Path) -> dict[str, str]:
    return {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "SOURCE_DATE_EPOCH": str(recipe.date),
        "PYTHONHASHSEED": "0",  # or byte code differs from build to build
        "INITRD": "No",  # Debian's own initial RAM disk is made when the guest has another kernel
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(scratch(work)),
        "HOME": str(Path.home()),
        **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
    }


async def _run(argv: list[str], environment: dict[str, str], tell: Tell) -> None:
    """A command to its end, its words told. It ends with this call, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    last: list[str] = []
    try:
        async with asyncio.timeout(BUILD_S):
            async for raw in process.stdout:
                line = raw.decode("utf-8", "replace").strip()
                last = [*last, line][-20:] if line else last
                if (step := step_of(line)) is not None:
                    await tell(*step)
            await process.wait()
    except TimeoutError as error:
        raise Temporary(f"The build took longer than {BUILD_S:.0f} s.", 600) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its mounts go with it, and its folder is ours
            await process.wait()
    if process.returncode:
        raise Permanent(f"{argv[0]} failed: {_why(last)}")


def _why(last: list[str]) -> str:
    """The words that say most of the last ones: apt's or dpkg's error, or what came before mmdebstrap gave up."""
    said = [line for line in last if not line.startswith(("I: ", "W: ")) and "failed to run" not in line]
    telling = [line for line in said if line.startswith(("E: ", "dpkg: error"))]
    return " / ".join(telling[-2:] or said[-3:] or ["it left no word"])[:600]
