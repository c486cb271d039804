"""User data for cloud-init, with more in it than its author wrote: SSH keys, and disks to mount. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

_KINDS = (
    ("#cloud-config-archive", "cloud-config-archive"),
    ("#cloud-config", "cloud-config"),
    ("#cloud-boothook", "cloud-boothook"),
    ("#include", "x-include-url"),
    ("#!", "x-shellscript"),
    ("## template: jinja", "jinja2"),
)
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"


def with_keys(user_data: bytes, keys: Sequence[str]) -> bytes:
    """The user data, and a part beside it that adds these keys to the image's user. Without keys: as it is.

    Source: cloud-init's user-data formats (MIME multi part archive) and its merging of parts.
    """
    if not keys:
        return user_data
    config = json.dumps({"ssh_authorized_keys": list(keys)})  # JSON is YAML
    return _beside(user_data, _part(f"#cloud-config\n{config}\n", "cloud-config"), "=====hansa=====")


def with_mounts(user_data: bytes, mounts: Sequence[tuple[str, str]]) -> bytes:
    """The user data, and a script beside it that mounts disks at paths. Without any: as it is.

    A disk may come later than the guest: systemd waits for it, makes a file system where it is empty, and mounts it
    when somebody looks at the path. Source: systemd.mount(5), x-systemd.makefs and x-systemd.automount.
    """
    if not mounts:
        return user_data
    options = "defaults,nofail,x-systemd.automount,x-systemd.makefs,x-systemd.device-timeout=900"
    lines = ["#!/bin/sh", "set -e"]
    for device, path in mounts:
        lines += [f"mkdir -p {path}", f"echo '{device} {path} ext4 {options} 0 2' >> /etc/fstab"]
    lines.append("systemctl daemon-reload")
    lines += [f'systemctl start "$(systemd-escape --path --suffix=automount {path})"' for _, path in mounts]
    return _beside(user_data, _part("\n".join([*lines, ""]), "x-shellscript"), "=====hansa-volumes=====")


def _beside(user_data: bytes, part: MIMEText, boundary: str) -> bytes:
    whole = MIMEMultipart(boundary=boundary)
    if user_data:
        whole.attach(_part(user_data.decode(), _kind(user_data)))
    whole.attach(part)
    return whole.as_bytes()


def _kind(user_data: bytes) -> str:
    start = user_data.lstrip()[:64].decode(errors="replace")
    return next((kind for head, kind in _KINDS if start.startswith(head)), "x-not-multipart")


def _part(text: str, kind: str) -> MIMEText:
    part = MIMEText(text, kind, "utf-8")
    part["Merge-Type"] = _MERGE
    return part
