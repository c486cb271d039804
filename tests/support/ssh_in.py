"""Commands in a machine, over SSH, its host key checked."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from hansa.machines.drivers.base import Observed
from tests.support import apt


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


async def ansible_ping(machines: list[Observed], key_file: Path) -> str:
    """What Ansible says of machines that it reaches by SSH and whose Python answers."""
    apt.need(["ansible"], ["ansible-core"])
    lines = []
    for seen in machines:
        assert seen.ssh is not None
        hosts = key_file.with_name(f"hosts-{seen.provider_id}")
        more = f"-o UserKnownHostsFile={hosts} -o StrictHostKeyChecking=yes"
        words = {
            "ansible_host": seen.ssh.host, "ansible_port": seen.ssh.port, "ansible_user": seen.ssh.user,
            "ansible_ssh_private_key_file": key_file, "ansible_ssh_common_args": f"'{more}'",
            "ansible_python_interpreter": "/usr/bin/python3",
        }  # fmt: skip
        lines.append(" ".join([seen.provider_id, *(f"{name}={value}" for name, value in words.items())]))
    inventory = key_file.with_name("inventory.ini")
    inventory.write_text("\n".join(["[machines]", *lines, ""]))
    environ = {**os.environ, "ANSIBLE_HOME": str(key_file.with_name("ansible")), "ANSIBLE_NOCOLOR": "1"}
    environ |= {
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_TIMEOUT": "60",
        "ANSIBLE_LOCAL_TEMP": str(key_file.with_name("ansible-tmp")),
    }
    argv = ["ansible", "-i", str(inventory), "machines", "-o", "-m", "ping"]
    done = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, timeout=300, check=False, env=environ
    )
    return done.stdout + done.stderr
