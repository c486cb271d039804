"""A server with a certificate: the command line, and the pilots, trust exactly its authority."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trustme

from tests.support.cli import Desk


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "chain.pem"), append=True)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path


def test_jobs_run_over_tls(desk: Desk, authority: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    desk.home.mkdir(mode=0o700)
    (desk.home / "config.toml").write_text(
        f'[server]\nport = {port}\ntls_certificate = "{authority}/chain.pem"\ntls_key = "{authority}/key.pem"\n'
        f'ca_file = "{authority}/ca.pem"\n'
    )
    os.chmod(desk.home / "config.toml", 0o600)  # noqa: PTH101
    assert desk.hansa("up").out.strip() == f"https://127.0.0.1:{port}"
    assert desk.hansa("run", "--", "echo", "over TLS").out == "over TLS\n"

    token = (desk.home / "keys" / "local.token").read_text().strip()
    elsewhere = Desk(
        authority / "elsewhere", desk.folder, {"HANSA_SERVER": f"https://127.0.0.1:{port}", "HANSA_TOKEN": token}
    )
    refused = elsewhere.hansa("run", "--", "echo", "unverified", code=125)
    assert "certificate" in refused.err.lower()
    elsewhere.environ["HANSA_CA_FILE"] = str(authority / "ca.pem")
    assert elsewhere.hansa("run", "--", "echo", "verified").out == "verified\n"
