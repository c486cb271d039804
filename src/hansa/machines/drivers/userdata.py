"""User data for cloud-init, with more SSH keys in it than a provider's metadata can carry. Pure."""

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
    whole = MIMEMultipart(boundary="=====hansa=====")
    if user_data:
        whole.attach(_part(user_data.decode(), _kind(user_data)))
    whole.attach(_part(f"#cloud-config\n{config}\n", "cloud-config"))
    return whole.as_bytes()


def _kind(user_data: bytes) -> str:
    start = user_data.lstrip()[:64].decode(errors="replace")
    return next((kind for head, kind in _KINDS if start.startswith(head)), "x-not-multipart")


def _part(text: str, kind: str) -> MIMEText:
    part = MIMEText(text, kind, "utf-8")
    part["Merge-Type"] = _MERGE
    return part
