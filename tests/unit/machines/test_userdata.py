"""User data with more keys."""

from __future__ import annotations

import email
import gzip
import json
import secrets
from typing import Any

import pytest

from hansa.machines.drivers.base import Refused, Why
from hansa.machines.drivers.userdata import fitting, with_keys, with_mounts


def test_without_keys_it_stays_as_it_is() -> None:
    assert with_keys(b"#!/bin/sh\ntrue\n", ()) == b"#!/bin/sh\ntrue\n"


def test_what_is_plain_stays_as_large_as_it_is_and_what_is_too_large_is_packed() -> None:
    text = b"#cloud-config\n" + b"# a line of some length\n" * 600
    whole = with_keys(text, ["ssh-ed25519 AAAA me"])
    assert len(whole) < len(text) + 1024
    assert fitting(whole, len(whole)) == whole
    packed = fitting(whole, len(whole) - 1)
    assert gzip.decompress(packed) == whole
    with pytest.raises(Refused) as refused:
        fitting(secrets.token_bytes(2000), 1000)
    assert refused.value.why is Why.USER_DATA


def test_what_has_parts_already_gets_one_more() -> None:
    given = with_mounts(b"#cloud-config\nruncmd: [ls]\n", [("/dev/vdb", "/data")])
    whole: Any = email.message_from_bytes(with_keys(given, ["ssh-ed25519 AAAA me"]))
    kinds = [one.get_content_type() for one in whole.get_payload()]
    assert kinds == ["text/cloud-config", "text/x-shellscript", "text/cloud-config"]


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
