"""Makes a disk of an installed tree: runs where that tree belongs to root, as the last step of a build.

``python -m hansa.machines.build.finish RECIPE DISK TREE``: RECIPE is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hansa.machines.build.boot import GRUB_CFG, ROOT_AT, make_bootable
from hansa.machines.build.initrd import make_initrd
from hansa.machines.build.recipe import Recipe, pack_command
from hansa.machines.build.still import still

CLOUD = """# For first boots without waiting: NoCloud is there at once, or whatever the cloud offers.
datasource_list: [ NoCloud, ConfigDrive, OpenStack, Ec2, None ]
"""
DEFAULTS = """users: [default]
disable_root: true
preserve_hostname: false
apt: {preserve_sources_list: true}
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
cloud_init_modules: [seed_random, bootcmd, write-files, growpart, resizefs, disk_setup, mounts, set_hostname,
  update_hostname, update_etc_hosts, ca-certs, users-groups, ssh]
cloud_config_modules: [set-passwords, apt-configure, ntp, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, write-files-deferred, scripts-vendor, scripts-per-once,
  scripts-per-boot, scripts-per-instance, scripts-user, keys-to-console, phone-home, final-message,
  power-state-change]
ssh: {emit_keys_to_console: true}
system_info:
  distro: debian
  default_user: {name: debian, lock_passwd: true, gecos: Debian, groups: [adm, sudo], shell: /bin/bash,
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
  network: {renderers: [networkd]}
  ssh_svcname: ssh
"""
ENABLED = ("systemd-networkd.service", "systemd-resolved.service", "ssh.service")
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "systemd-networkd-wait-online.service", "systemd-pstore.service", "getty@tty1.service",
    "cloud-init-hotplugd.socket", "modprobe@drm.service", "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount",
    "dpkg-db-backup.timer", "systemd-hwdb-update.service",
)  # fmt: skip
GONE = (
    "etc/ssh/ssh_host_*", "etc/hostname", "var/log/**/*.log", "var/log/apt/*", "var/log/journal/*",
    "var/cache/apt/*", "var/lib/apt/lists/*", "var/cache/ldconfig/aux-cache", "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "etc/passwd-", "etc/shadow-",
    "etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "run/*", "tmp/*", "var/tmp/*", "boot/initrd.img*",
    "initrd.img*", "vmlinuz*", "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
)  # fmt: skip


def configure(tree: Path) -> None:
    """The guest's own configuration."""
    files = {
        "etc/cloud/ds-identify.cfg": "policy: enabled\n",
        "etc/cloud/cloud.cfg": DEFAULTS,
        "etc/cloud/cloud.cfg.d/90_hansa.cfg": CLOUD,
        "etc/machine-id": "",
        "etc/sysctl.d/99-hansa.conf": "net.ipv4.ping_group_range = 0 65534\n",
        "etc/fstab": "LABEL=cloudroot / ext4 defaults,noatime 0 0\n",
        "etc/network/interfaces": "",
    }
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    resolv = tree / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    there = [name for name in ENABLED if (tree / "lib/systemd/system" / name).exists()]
    subprocess.run(["systemctl", "--quiet", f"--root={tree}", "enable", *there], check=True)
    subprocess.run(["systemctl", "--quiet", f"--root={tree}", "mask", *MASKED], check=True)


def clean(tree: Path) -> None:
    """Remove what differs from build to build, and what a machine makes for itself."""
    for pattern in GONE:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def add_boot(tree: Path) -> None:
    """What starts the kernel, by the links that Debian keeps to its newest one; nothing where there is no kernel."""
    content, kernels = make_initrd(tree), sorted(tree.glob("boot/vmlinuz-*"))
    if content is None or not kernels:
        return
    (tree / "boot/hansa-initrd.img").write_bytes(content)
    (tree / "boot/grub").mkdir(exist_ok=True)
    (tree / "boot/grub/grub.cfg").write_text(GRUB_CFG, encoding="ascii")
    (tree / "initrd.img").symlink_to("boot/hansa-initrd.img")
    (tree / "vmlinuz").symlink_to(f"boot/{kernels[-1].name}")


def clamp_times(tree: Path, date: int) -> None:
    """No file is newer than the recipe says."""
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files, "."):
            path = os.path.join(folder, name)  # noqa: PTH118 - a million times
            if os.lstat(path).st_mtime > date:
                os.utime(path, (date, date), follow_symlinks=False)


@contextmanager
def alone(tree: Path) -> Iterator[Path]:
    """The tree without what is mounted in it: /proc, /sys and /dev are there while packages are installed."""
    view = Path(tempfile.mkdtemp(prefix="hansa-tree-"))
    subprocess.run(["mount", "--bind", str(tree), str(view)], check=True)
    try:
        yield view
    finally:
        subprocess.run(["umount", str(view)], check=True)
        view.rmdir()


def main() -> None:
    recipe = Recipe(**{**json.loads(sys.argv[1])})
    disk, installed = Path(sys.argv[2]), Path(sys.argv[3])
    configure(installed)
    with alone(installed) as tree:
        clean(tree)
        add_boot(tree)
        clamp_times(tree, recipe.date)
        argv, environment = pack_command(recipe, tree, disk, ROOT_AT)
        subprocess.run(argv, env={**os.environ, **environment}, check=True)
    still(disk, ROOT_AT, recipe.date)
    make_bootable(disk, recipe.disk_gib * 1024**3, uuid.UUID(recipe.disk_id), recipe.date)


if __name__ == "__main__":
    main()
