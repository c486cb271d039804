"""What makes first boots short: what a container has no use for is left out, and cloud-init is done in one go. Pure.

Nothing of it is written into the machine's disk: a snapshot of it starts elsewhere as any other image does.
"""

from __future__ import annotations

GENERATOR = "lib/systemd/system-generators/systemd-gpt-auto-generator"
"""In whose place a guest's systemd runs ours: it looks for partitions, and containers have none.

What it says of units counts less than what the guest's administrator wrote in /etc.
"""

USELESS = (
    "systemd-remount-fs.service",  # there are no disks of its own, and it fails
    "systemd-tmpfiles-setup-dev.service",  # it may make no device nodes
    "systemd-network-generator.service",  # there is no kernel command line
    "systemd-binfmt.service",  # the kernel is not its own
    "systemd-update-utmp-runlevel.service",
    "console-getty.service",  # its console is read, nobody types there
)

NETWORK = ("#include", "bootcmd", "mounts", "disk_setup", "random_seed", "datasource", "://", "jinja")
"""What in user data may ask for the network before the modules of cloud-init's first stage are over."""


def is_local(user_data: str) -> bool:
    """Whether cloud-init can do its first stage before the network is there, and so in one go instead of two.

    Where it cannot be told, it waits for the network. Source: cloud-init's NoCloud, ``dsmode: local``.
    """
    text = user_data.strip().lower()
    is_known = not text or text.startswith(("#cloud-config\n", "#!"))
    return is_known and not any(word in text for word in NETWORK)


def generator(local: bool) -> str:
    """The program: a script that gets the folder for its units as its first word. Source: systemd.generator(7)."""
    lines = ["#!/bin/sh", f"for unit in {' '.join(USELESS)}; do", '    ln -s /dev/null "$1/$unit"', "done"]
    if local:  # it would load Python again only to see that there is nothing left to do
        lines += ['mkdir -p "$1/cloud-init.service.d"']
        lines += ["printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' >\"$1/cloud-init.service.d/50-hansa.conf\""]
    return "\n".join([*lines, ""])
