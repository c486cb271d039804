"""How the helper that needs root is run, and what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers.base import Refused, Why
from hansa.machines.drivers.nspawn.helper.words import VERSION

INSTALLED = Path("/usr/local/libexec/hansa-nspawn")
INSTALL = f"hansa admin nspawn-helper | sudo install -D -m 755 /dev/stdin {INSTALLED}"
MODULE = "hansa.machines.drivers.nspawn.helper"
_DEADLINE_S = 600.0
_WHY = {"network": Why.NETWORK, "image": Why.IMAGE, "usage": Why.REFUSED, "taken": Why.UNABLE}


class NotThereError(Permanent):
    """The machine, or the base that it needs, is not there."""


@dataclass(frozen=True)
class Helper:
    """The helper as a command. ``prefix`` are the words before its verb."""

    prefix: tuple[str, ...]

    @property
    def store(self) -> str:
        """The folder of its machines."""
        given = [word.partition("=")[2] for word in self.prefix if word.startswith("--store=")]
        return given[0] if given else f"/var/lib/hansa/nspawn/{os.getuid()}"

    async def ask(self, verb: str, wish: dict[str, Any]) -> dict[str, Any]:
        """The answer to a verb. Raises NotThereError, Refused, Temporary or Permanent."""
        said = await self.run([verb], text=json.dumps(wish).encode())
        found: dict[str, Any] = json.loads(said)
        return found

    async def run(
        self, words: Sequence[str], text: bytes = b"", stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> bytes:
        """Run it to its end. It is not cut off in the middle of its work when the caller is cancelled."""
        return await asyncio.shield(self._run(words, text, stdin, stdout))

    async def _run(self, words: Sequence[str], text: bytes, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *words,
            stdin=stdin or asyncio.subprocess.PIPE,
            stdout=stdout or asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        )
        try:
            async with asyncio.timeout(_DEADLINE_S):
                out, said = await process.communicate(None if stdin else text)
        except TimeoutError as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise Temporary(f"The helper did not end {words[0]} within {_DEADLINE_S:.0f} s.") from error
        if process.returncode:
            raise problem(said.decode("utf-8", "replace"))
        return out or b""


def problem(said: str) -> Exception:
    """What the helper's last words mean. Pure."""
    try:
        found = json.loads(said)
    except ValueError:
        last = (said.strip().splitlines() or ["it left no word"])[-1]
        return Permanent(f"The helper of nspawn machines does not work: {last[:400]}")
    why, message = found["why"], f"{found['message']}."
    if why == "usage" and found.get("version", 1) != VERSION:
        return Permanent(f"The helper of nspawn machines is of another version of Hansa. Install it again: {INSTALL}")
    if why in ("absent", "no_base"):
        return NotThereError(message)
    if why in _WHY:
        return Refused(_WHY[why], message)
    return Temporary(message, 10) if found["passing"] else Permanent(message)


def find_helper(folder: Path) -> Helper | None:
    """How the helper can be run here: by root at once (``folder`` is then its store), else by sudo; None: it cannot."""
    if os.geteuid() == 0:
        return Helper((sys.executable, "-I", "-m", MODULE, f"--store={folder}"))
    if INSTALLED.is_file() and shutil.which("sudo"):
        return Helper(("sudo", "-n", str(INSTALLED)))
    return None


def pack() -> bytes:
    """The helper as one executable file: the same sources give the same bytes."""
    stream = io.BytesIO(b"#!/usr/bin/python3 -I\n")
    stream.seek(0, io.SEEK_END)
    main = f"import sys\nfrom {MODULE}.__main__ import main\nsys.exit(main())\n"
    members = {"__main__.py": main.encode()}
    names = MODULE.split(".")
    members |= {f"{'/'.join(names[:depth])}/__init__.py": b"" for depth in range(1, len(names) + 1)}
    for entry in resources.files(MODULE).iterdir():
        if entry.name.endswith(".py"):
            members[f"{'/'.join(names)}/{entry.name}"] = entry.read_bytes()
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return stream.getvalue()


@dataclass(frozen=True)
class Probe:
    """Whether machines of this kind can be had here. ``problem``: why not; ``hint``: what to do about it."""

    works: bool
    is_isolated: bool
    problem: str = ""
    hint: str = ""


def probe(folder: Path) -> Probe:
    """Look whether nspawn machines work here; makes none. Blocks for a moment: for starts and doctors."""
    helper = find_helper(folder / "store")
    if helper is None:
        hint = f"{INSTALL}; in /etc/sudoers.d/hansa: {os.environ.get('USER', 'USER')} ALL=(root) NOPASSWD: {INSTALLED}"
        return Probe(False, False, "what needs root is not installed", hint)
    more = f"sudo -n {INSTALLED} probe </dev/null tells more."
    try:
        done = subprocess.run([*helper.prefix, "probe"], input=b"{}", capture_output=True, timeout=20, check=False)
        if done.returncode:
            return Probe(False, False, str(problem(done.stderr.decode("utf-8", "replace"))), more)
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return Probe(False, False, f"the helper does not answer: {error}", more)
    if (version := found.get("version", 1)) != VERSION:
        said = f"the helper that is installed is of another version of Hansa ({version}, and {VERSION} is needed)"
        return Probe(False, False, said, INSTALL)
    if found["problems"]:
        return Probe(False, False, "; ".join(found["problems"]), "apt install systemd-container nftables e2fsprogs")
    return Probe(True, not found["userns"], found["userns"])
