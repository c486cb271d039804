"""Commands in a machine, over SSH, its host key checked."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from hansa.machines.drivers.base import Observed


def new_key(folder: Path) -> Path:
    """The file of a new private key; its public key is beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    return folder / "key"


async def inside(seen: Observed, key_file: Path, command: str) -> tuple[int, str]:
    """How a command in the guest ended, and what it said."""
    assert seen.ssh is not None
    name = seen.ssh.host if seen.ssh.port == 22 else f"[{seen.ssh.host}]:{seen.ssh.port}"
    hosts = key_file.with_name(f"hosts-{seen.provider_id}")
    hosts.write_text("".join(f"{name} {one}\n" for one in seen.ssh.host_keys))
    options = [f"-oUserKnownHostsFile={hosts}", "-oStrictHostKeyChecking=yes", "-oBatchMode=yes", "-oConnectTimeout=60"]
    argv = ["ssh", "-p", str(seen.ssh.port), "-i", str(key_file), *options, f"{seen.ssh.user}@{seen.ssh.host}", command]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr
