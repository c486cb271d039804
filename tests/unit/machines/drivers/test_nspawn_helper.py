"""What the part that runs as root accepts, and what it makes of disks, limits and networks."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers.base import Refused, Why
from hansa.machines.drivers.nspawn.driver import Nspawn
from hansa.machines.drivers.nspawn.helper.__main__ import VERBS, answer, store_of
from hansa.machines.drivers.nspawn.helper.boot import generator, is_local
from hansa.machines.drivers.nspawn.helper.cgroups import limits
from hansa.machines.drivers.nspawn.helper.disks import partitions
from hansa.machines.drivers.nspawn.helper.networks import is_dead_table, network_config, rules, store_of_alias
from hansa.machines.drivers.nspawn.helper.power import command
from hansa.machines.drivers.nspawn.helper.store import Store
from hansa.machines.drivers.nspawn.helper.words import VERSION, Refusal, checked
from hansa.machines.drivers.nspawn.root import INSTALL, Helper, NotThereError, pack, probe, problem
from hansa.machines.local import ways

GOOD = {
    "key": "machine_1", "base": "a" * 64, "name": "web", "user_data": "", "ssh_keys": ["ssh-ed25519 AAAA me"],
    "network": None, "trusted": False, "login": "debian", "cores": 1, "memory_mib": 512, "disk_gib": 0,
}  # fmt: skip


def test_a_good_wish_passes_as_it_is() -> None:
    assert checked(VERBS["create"][0], dict(GOOD)) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"key": "../../etc"},
        {"key": "a/b"},
        {"key": ""},
        {"key": "x" * 64},
        {"key": "a\n"},
        {"base": "a" * 63},
        {"base": "../" + "a" * 61},
        {"name": "-oProxyCommand=x"},
        {"name": "web\n"},
        {"network": "a b"},
        {"trusted": 1},
        {"login": "root;id"},
        {"cores": 0},
        {"cores": True},
        {"memory_mib": "512"},
        {"ssh_keys": ["a\nb"]},
        {"ssh_keys": "ssh-ed25519"},
        {"user_data": "x" * (1 << 20) + "x"},
        {"more": 1},
    ],
)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Refusal):
        checked(VERBS["create"][0], GOOD | change)


def test_a_missing_word_is_refused() -> None:
    with pytest.raises(Refusal):
        checked(VERBS["create"][0], {name: value for name, value in GOOD.items() if name != "trusted"})


def test_only_root_itself_names_the_folder() -> None:
    assert store_of(None, {"SUDO_UID": "1000"}) == "/var/lib/hansa/nspawn/1000"
    assert store_of("/srv/x", {}) == "/srv/x"
    for given, caller in (("/srv/x", "1000"), ("x", ""), ("/srv/../etc", ""), ("/a,b", ""), ("/a b", "")):
        with pytest.raises(Refusal):
            store_of(given, {"SUDO_UID": caller})


def test_unknown_verbs_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for words in (["shell"], ["delete", "x"], ["import"], ["import", "../x"], ["import", "a" * 64, "y"], []):
        with pytest.raises((Refusal, ValueError)):
            answer(["hansa-nspawn", f"--store={tmp_path}", *words])


def test_an_ordinary_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Refusal, match="root"):
        answer(["hansa-nspawn", "list"])


def test_limits_of_both_versions_of_cgroups() -> None:
    assert limits(2, 512, unified=True)["memory.max"] == 512 << 20
    assert limits(2, 512, unified=True)["cpu.max"] == "200000 100000"
    assert limits(2, 512, unified=False)["memory/memory.limit_in_bytes"] == 512 << 20
    assert limits(2, 512, unified=False)["cpu/cpu.cfs_quota_us"] == 200000


def test_partitions_are_found_the_largest_first() -> None:
    mbr = bytearray(65536)
    struct.pack_into("<II", mbr, 446 + 8, 2048, 100)
    struct.pack_into("<II", mbr, 462 + 8, 4096, 9000)
    mbr[510:512] = b"\x55\xaa"
    assert partitions(bytes(mbr)) == [4096 * 512, 2048 * 512]
    gpt = bytearray(65536)
    gpt[512:520] = b"EFI PART"
    struct.pack_into("<QII", gpt, 512 + 72, 2, 128, 128)
    for index, (first, last) in enumerate([(2048, 4095), (8192, 99999)]):
        gpt[1024 + 128 * index : 1040 + 128 * index] = uuid.uuid4().bytes
        struct.pack_into("<QQ", gpt, 1024 + 128 * index + 32, first, last)
    assert partitions(bytes(gpt)) == [8192 * 512, 2048 * 512]
    assert partitions(b"\0" * 65536) == []
    huge = bytearray(gpt)
    struct.pack_into("<QII", huge, 512 + 72, 2**62, 2**31, 2**31)  # whatever it claims, only its beginning is read
    assert partitions(bytes(huge)) == []


def test_networks_keep_to_themselves() -> None:
    text = rules("hzabc", "10.199.3.0/24")
    assert 'iifname "hzabc" oifname "hz*" drop' in text
    assert "169.254.0.0/16 drop" in text
    assert network_config("10.199.3.10", "10.199.3.0/24")["ethernets"]["host0"]["routes"][0]["via"] == "10.199.3.1"


def test_whose_a_bridge_is_and_which_rules_are_of_none() -> None:
    assert store_of_alias("hansa:12345678:/srv/a store") == "/srv/a store"
    assert store_of_alias("hansa:12345678") == store_of_alias("") == store_of_alias("somebody's") == ""
    assert is_dead_table("hz0123456789"), "there is no such bridge here"
    assert not is_dead_table("hz-of-others")
    assert not is_dead_table("filter")


@pytest.mark.parametrize(
    ("user_data", "local"),
    [
        ("", True),
        ("#cloud-config\n{}\n", True),
        ("#cloud-config\nwrite_files:\n  - {path: /etc/x, content: y}\nruncmd: [[true]]\n", True),
        ("#!/bin/sh\ntouch /x\n", True),
        ("#include\nhttp://example.org/x\n", False),
        ("#cloud-config\nbootcmd: [curl example.org]\n", False),
        ("#cloud-config\nwrite_files: [{source: {uri: 'https://example.org'}}]\n", False),
        ("Content-Type: multipart/mixed; boundary=x\n\n--x--\n", False),
        ("## template: jinja\n#cloud-config\n", False),
        ("#cloud-boothook\ncurl example.org\n", False),
    ],
)
def test_cloud_init_waits_for_the_network_where_it_may_need_it(user_data: str, local: bool) -> None:
    assert is_local(user_data) is local


def test_what_a_container_has_no_use_for_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    for local in (True, False):
        folder, script = tmp_path / f"units-{local}", tmp_path / "generator"
        folder.mkdir()
        script.write_text(generator(local))
        subprocess.run(["sh", "-e", str(script), str(folder), str(folder), str(folder)], check=True)
        assert (folder / "console-getty.service").readlink() == Path("/dev/null")
        assert not (folder / "ssh.service").is_symlink()
        assert (folder / "cloud-init.service.d").is_dir() is local


def test_the_version_is_another_one_when_verbs_or_arguments_are() -> None:
    """Then the driver and an installed helper do not understand each other: count VERSION up, then mend this."""
    words = {verb: sorted(shape) for verb, (shape, _) in VERBS.items()}
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:12]
    assert (VERSION, digest) == (2, "0c1d267fa079")


@pytest.mark.parametrize("said", ['{"problems": [], "userns": ""}', '{"problems": [], "userns": "", "version": 99}'])
def test_a_helper_of_another_version_is_not_used_and_how_to_replace_it_is_told(
    said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    helper = Helper(("sh", "-c", f"echo '{said}'"))
    monkeypatch.setattr("hansa.machines.drivers.nspawn.root.find_helper", lambda _: helper)
    found = probe(tmp_path)
    assert not found.works
    assert "another version" in found.problem
    assert found.hint == INSTALL
    for version in ({}, {"version": 99}):
        told = problem(json.dumps({"why": "usage", "message": "the arguments are", "passing": False, **version}))
        assert INSTALL in str(told)
    same = problem(json.dumps({"why": "usage", "message": "no", "passing": False, "version": VERSION}))
    assert INSTALL not in str(same)


def test_the_packed_helper_runs_alone(tmp_path: Path) -> None:
    file = tmp_path / "hansa-nspawn"
    file.write_bytes(pack())
    assert file.read_bytes() == pack()
    done = subprocess.run([sys.executable, "-I", str(file), "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert json.loads(done.stderr)["why"] in ("usage", "root")


def test_what_the_helper_says_is_told_as_drivers_tell_it() -> None:
    def said(why: str, passing: bool = False) -> str:
        return json.dumps({"why": why, "message": "no", "passing": passing})

    assert isinstance(problem(said("absent")), NotThereError)
    refused = problem(said("network"))
    assert isinstance(refused, Refused)
    assert refused.why is Why.NETWORK
    assert isinstance(problem(said("busy", passing=True)), Temporary)
    assert isinstance(problem("sudo: a password is required"), Permanent)


def test_a_container_has_user_ids_of_its_own_unless_its_users_are_trusted_and_then_it_says_so(tmp_path: Path) -> None:
    machine = Store(str(tmp_path)).machine("one")
    isolated, trusted = (command(machine, {"name": "web", "trusted": one}, "hz0") for one in (False, True))
    assert any(word.startswith("--private-users=") for word in isolated)
    assert not any(word.startswith("--private-users=") for word in trusted)
    assert "--drop-capability=CAP_MKNOD,CAP_SYS_RAWIO" in trusted
    helper = Helper(("false",))
    assert "for trusted users" in Nspawn(tmp_path, helper, is_isolated=False).capabilities().note
    assert "trusted" not in Nspawn(tmp_path, helper, is_isolated=True).capabilities().note


def test_the_doctor_says_for_whom_containers_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for userns, said in (('""', "their root is nobody here"), ('"no namespaces"', "for trusted users only: no names")):
        words = f'{{"problems": [], "userns": {userns}, "version": {VERSION}}}'
        helper = Helper(("sh", "-c", f"echo '{words}'"))
        monkeypatch.setattr("hansa.machines.drivers.nspawn.root.find_helper", lambda _, found=helper: found)
        (way,) = [one for one in ways(tmp_path) if one.name == "nspawn"]
        assert way.works
        assert said in way.said
