"""User data with more keys."""

from __future__ import annotations

import email
import json
from typing import Any

from hansa.machines.drivers.userdata import with_keys


def test_without_keys_it_stays_as_it_is() -> None:
    assert with_keys(b"#!/bin/sh\ntrue\n", ()) == b"#!/bin/sh\ntrue\n"


def test_keys_come_beside_what_was_there() -> None:
    for text, kind in (("#cloud-config\nruncmd: [ls]\n", "text/cloud-config"), ("#!/bin/sh\n", "text/x-shellscript")):
        whole: Any = email.message_from_bytes(with_keys(text.encode(), ["ssh-ed25519 AAAA ä"]))
        first, second = whole.get_payload()
        assert first.get_content_type() == kind
        assert first.get_payload(decode=True) == text.encode()
        assert "list(append)" in second["Merge-Type"]
        config = second.get_payload(decode=True).decode().partition("\n")
        assert config[0] == "#cloud-config"
        assert json.loads(config[2]) == {"ssh_authorized_keys": ["ssh-ed25519 AAAA ä"]}
