"""The OpenStack client at sites: what it is told, and where the token is."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from hansa.client import openstack
from hansa.client.errors import SITE, HansaError
from hansa.client.openstack import SiteAccess

ACCESS = SiteAccess("NEBULA", "https://keystone.example.org/v3", "vo.example.org", None, region="here; rm -rf /")

CLIENT = """#!/bin/sh
echo "$@" > "$SEEN/argv"
stat -c %a "$OS_CLIENT_CONFIG_FILE" > "$SEEN/mode"
cp "$OS_CLIENT_CONFIG_FILE" "$SEEN/clouds"
env > "$SEEN/environ"
echo '[{"ID": "1", "Name": "vm"}]'
"""


def test_exports_quote_and_hold_no_token() -> None:
    text = openstack.exports(ACCESS, "p1")
    assert "export OS_REGION_NAME='here; rm -rf /'" in text
    assert text.endswith('export OS_ACCESS_TOKEN="$(hansa token --for-sites)"')


def test_the_client_gets_the_token_in_a_private_file_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "openstack"
    program.parent.mkdir()
    program.write_text(CLIENT)
    program.chmod(0o755)
    monkeypatch.setattr(openstack, "find_project", lambda access, token: "p1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}", "SEEN": str(tmp_path), "OS_PASSWORD": "old"}
    (ran,) = openstack.run_at([ACCESS], "s3cret", ["server", "list"], environ)
    assert ran.rows == [{"ID": "1", "Name": "vm"}]
    assert (tmp_path / "argv").read_text() == "server list -f json\n"
    assert (tmp_path / "mode").read_text() == "600\n"
    assert "s3cret" in (tmp_path / "clouds").read_text()
    seen = (tmp_path / "environ").read_text()
    assert "s3cret" not in seen
    assert "OS_PASSWORD" not in seen
    assert not list(tmp_path.glob("hansa-openstack-*"))
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


MEETING = """#!/bin/sh
touch "$SEEN/started-$$"
for _ in $(seq 600); do [ "$(ls "$SEEN" | grep -c started-)" = 3 ] && break; sleep 0.1; done
[ "$(ls "$SEEN" | grep -c started-)" = 3 ] || exit 1
echo '[{"ID": "1"}]'
"""


def test_all_sites_are_asked_at_once_and_answer_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client waits for the others: one after the other they would all fail."""
    program = tmp_path / "bin" / "openstack"
    program.parent.mkdir()
    program.write_text(MEETING)
    program.chmod(0o755)
    monkeypatch.setattr(openstack, "find_project", lambda access, token: "p1")
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}", "SEEN": str(tmp_path)}
    sites = [SiteAccess(name, "https://k.example.org/v3", "vo", None) for name in ("C", "A", "B")]
    ran = openstack.run_at(sites, "t", ["server", "list"], environ)
    assert [(one.site, one.code, one.rows) for one in ran] == [(name, 0, [{"ID": "1"}]) for name in ("C", "A", "B")]


def test_a_site_that_does_not_let_us_in_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(access: SiteAccess, token: str) -> str:
        if access.site == "BAD":
            raise HansaError(SITE, "It is closed.")
        return "p1"

    monkeypatch.setattr(openstack, "find_project", find)
    monkeypatch.setattr(openstack, "find_client", lambda environ: shutil.which("true") or "true")
    bad = SiteAccess("BAD", "https://bad.example.org", "vo", None)
    first, second = openstack.run_at([bad, ACCESS], "t", ["server", "delete", "x"], dict(os.environ))
    assert (first.code, first.words) == (1, "It is closed.")
    assert second.code == 0


def test_a_missing_client_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(HansaError) as caught:
        openstack.find_client({"PATH": str(tmp_path)})
    assert "python-openstackclient" in str(caught.value.hint)
