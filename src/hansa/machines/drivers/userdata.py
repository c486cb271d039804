"""User data for cloud-init, with more in it than its author wrote: SSH keys, and disks to mount. Pure."""

from __future__ import annotations

import email
import gzip
import json
from collections.abc import Sequence
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from hansa.machines.drivers.base import Refused, Why

_BOUNDARY = "=====hansa"
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
    return _beside(user_data, _part(f"#cloud-config\n{config}\n", "cloud-config"), f"{_BOUNDARY}=====")


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
    return _beside(user_data, _part("\n".join([*lines, ""]), "x-shellscript"), f"{_BOUNDARY}-volumes=====")


def fitting(user_data: bytes, most: int) -> bytes:
    """What a provider that takes ``most`` bytes is given: as it is, or packed by gzip, which cloud-init unpacks.

    Raises Refused USER_DATA where that is too much as well.
    """
    if len(user_data) <= most:
        return user_data
    packed = gzip.compress(user_data, mtime=0)
    if len(packed) > most:
        said = f"The user data and the SSH keys have {len(packed):,} bytes when packed; at most {most:,} go there."
        raise Refused(Why.USER_DATA, said)
    return packed


def _beside(user_data: bytes, part: MIMEText, boundary: str) -> bytes:
    whole = MIMEMultipart(boundary=boundary)
    given = email.message_from_bytes(user_data)
    if given.is_multipart():
        for one in given.get_payload():
            whole.attach(one)
    elif user_data:
        whole.attach(_part(user_data.decode(), _kind(user_data)))
    whole.attach(part)
    return whole.as_bytes()


def _kind(user_data: bytes) -> str:
    start = user_data.lstrip()[:64].decode(errors="replace")
    return next((kind for head, kind in _KINDS if start.startswith(head)), "x-not-multipart")


def _part(text: str, kind: str) -> MIMEText:
    """Plain where it can be: in base64 it would be a third larger, and cloud-init reads other bytes in nothing else."""
    is_plain = text.isascii() and _BOUNDARY not in text
    part = MIMEText(text, kind, "us-ascii" if is_plain else "utf-8")
    part["Merge-Type"] = _MERGE
    return part
