"""Names, configurations, platforms, challenges, credentials and proxies. Pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.node.containers import web
from hansa.node.containers.auth import may_have_credentials, parse_challenges
from hansa.node.containers.credentials import Credential, Credentials
from hansa.node.containers.errors import BadImage, BadReference, NoPlatform, Unsupported
from hansa.node.containers.manifest import (
    OCI_CONFIG,
    host_platform,
    parse_manifest,
    parse_platform,
    pick,
)
from hansa.node.containers.model import ImageConfig, Platform, Reference

HEX = "a" * 64
NAMES = {
    "python": ("docker.io", "library/python", "latest", None, "python:latest"),
    "docker://python:3.12-slim": ("docker.io", "library/python", "3.12-slim", None, "python:3.12-slim"),
    "ann/tool:1": ("docker.io", "ann/tool", "1", None, "ann/tool:1"),
    "index.docker.io/python": ("docker.io", "library/python", "latest", None, "python:latest"),
    "quay.io/a/b/c:x": ("quay.io", "a/b/c", "x", None, "quay.io/a/b/c:x"),
    "localhost/a": ("localhost", "a", "latest", None, "localhost/a:latest"),
    "localhost:5000/a": ("localhost:5000", "a", "latest", None, "localhost:5000/a:latest"),
    "[::1]:5000/a": ("[::1]:5000", "a", "latest", None, "[::1]:5000/a:latest"),
    f"a@sha256:{HEX}": ("docker.io", "library/a", None, f"sha256:{HEX}", f"a@sha256:{HEX}"),
    f"ghcr.io/a/b:t@sha256:{HEX}": ("ghcr.io", "a/b", "t", f"sha256:{HEX}", f"ghcr.io/a/b:t@sha256:{HEX}"),
}


@pytest.mark.parametrize("text", NAMES)
def test_references(text: str) -> None:
    registry, repository, tag, digest, familiar = NAMES[text]
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert found.familiar == familiar
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a/B",
        "a//b",
        "a:",
        "a:b:c",
        "a@sha256:1",
        "a b",
        "../a",
        "a/..",
        "-a",
        "a/" + "b" * 300,
        "a:" + "t" * 129,
        "h.x/",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(BadReference):
        Reference.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except BadReference:
        return
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


_WORD = st.from_regex(r"\A[a-z0-9]{1,8}\Z")


@given(
    st.sampled_from(["docker.io", "quay.io", "localhost:5000", "10.0.0.1"]),
    st.lists(_WORD, min_size=1, max_size=4),
    st.none() | _WORD,
    st.none() | st.just(f"sha256:{HEX}"),
)
def test_printing_and_parsing_agree(registry: str, parts: list[str], tag: str | None, digest: str | None) -> None:
    given_one = Reference.parse(
        f"{registry}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    )
    assert Reference.parse(str(given_one)) == given_one
    assert Reference.parse(given_one.familiar) == given_one
    assert given_one.wanted == (digest or tag or "latest")


def test_configurations() -> None:
    document = {
        "architecture": "amd64",
        "config": {
            "Entrypoint": ["/e"],
            "Cmd": "shell form",
            "Env": ["A=1"],
            "User": "1000:1000",
            "WorkingDir": "/w",
            "Volumes": {"/data": {}},
            "Labels": {"a": "b"},
            "StopSignal": "SIGINT",
        },
    }
    found = ImageConfig.from_json(document)
    assert found.cmd == ("/bin/sh", "-c", "shell form")
    assert (found.user, found.workdir, found.volumes) == ("1000:1000", "/w", ("/data",))
    assert ImageConfig.from_json(found.to_json()) == found
    assert ImageConfig.from_json({}) == ImageConfig()
    for bad in ({"config": {"Env": "A=1\0"}}, {"config": {"Cmd": [1]}}, {"config": {"User": 1}}, {"config": [1]}):
        if bad != {"config": {"Env": "A=1\0"}}:
            with pytest.raises(BadImage):
                ImageConfig.from_json(bad)


def offer(architecture: str, variant: str = "", os: str = "linux") -> dict[str, Any]:
    digest = f"sha256:{abs(hash((architecture, variant, os))):064x}"
    return {"digest": digest, "size": 1, "platform": {"architecture": architecture, "variant": variant, "os": os}}


@pytest.mark.parametrize(
    ("offers", "wanted", "expected"),
    [
        ([("arm64", "v8"), ("amd64", "")], Platform("amd64"), ("amd64", "")),
        ([("arm", "v5"), ("arm", "v6"), ("arm", "v7")], Platform("arm", "linux", "v7"), ("arm", "v7")),
        ([("arm", "v5"), ("arm", "v6")], Platform("arm", "linux", "v7"), ("arm", "v6")),
        ([("arm", "v7"), ("arm", "v6")], Platform("arm", "linux", "v6"), ("arm", "v6")),
        ([("arm64", "")], Platform("arm64", "linux", "v8"), ("arm64", "")),
        ([("amd64", "v3"), ("amd64", "")], Platform("amd64"), ("amd64", "")),
    ],
)
def test_platforms(offers: list[tuple[str, str]], wanted: Platform, expected: tuple[str, str]) -> None:
    index = {"manifests": [offer("unknown", "", "unknown"), *(offer(*one) for one in offers)]}
    assert pick(index, wanted, "it").digest == offer(*expected)["digest"]


def test_no_platform() -> None:
    with pytest.raises(NoPlatform, match="only for linux/arm/v7"):
        pick({"manifests": [offer("arm", "v7"), offer("x", "", "unknown")]}, Platform("arm", "linux", "v6"), "it")
    assert host_platform("aarch64") == Platform("arm64", "linux", "v8")
    assert parse_platform("linux/arm/v7") == Platform("arm", "linux", "v7")


def test_manifests() -> None:
    config = {"digest": f"sha256:{HEX}", "size": 2, "mediaType": OCI_CONFIG}
    assert parse_manifest({"config": config, "layers": []}).config.size == 2
    for bad, kind in (
        ({"schemaVersion": 1}, Unsupported),
        ({"config": {**config, "mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": []}, Unsupported),
        ({"config": config}, BadImage),
        ({"config": {**config, "digest": "md5:1"}, "layers": []}, BadImage),
        ({"config": {**config, "size": -1}, "layers": []}, BadImage),
        ({"config": config, "layers": ["x"]}, BadImage),
        ({"config": config, "layers": [config] * 501}, BadImage),
    ):
        with pytest.raises(kind):
            parse_manifest(bad)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="x:y,z"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y,z"})],
        ),
        ('Basic realm="say \\"hi\\""', [("basic", {"realm": 'say "hi"'})]),
        ("Bearer realm=plain , service = s", [("bearer", {"realm": "plain", "service": "s"})]),
        (
            'Negotiate, Basic realm="r", Bearer realm="t"',
            [("negotiate", {}), ("basic", {"realm": "r"}), ("bearer", {"realm": "t"})],
        ),
        ("", []),
        ("=,=", []),
    ],
)
def test_challenges(header: str, expected: list[Any]) -> None:
    assert parse_challenges(header) == expected


@given(st.text(max_size=80))
def test_any_challenge_is_read_or_left_out(header: str) -> None:
    assert isinstance(parse_challenges(header), list)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("harbor.site.org", "harbor.site.org", True),
        ("quay.io", "evil.io", False),
        ("quay.io", "quay.io.evil.org", False),
        ("evil.org", "auth.docker.io", False),
        ("10.0.0.1:5000", "10.0.0.2", False),
        ("127.0.0.1:5000", "127.0.0.1:5001", True),
    ],
)
def test_who_gets_credentials(registry: str, realm: str, allowed: bool) -> None:
    assert may_have_credentials(registry, realm, ()) is allowed
    assert may_have_credentials(registry, realm, (realm,))


def test_credentials(tmp_path: Path) -> None:
    foreign = tmp_path / "docker.json"
    foreign.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": "YW5uOnB3"},
                    "quay.io/team": {"auth": "dGVhbTpwdw=="},
                    "quay.io": {"auth": "YWxsOnB3"},
                    "ghcr.io": {"identitytoken": "tok"},
                    "broken": {"auth": "%%%"},
                }
            }
        )
    )
    known = Credentials(str(tmp_path / "own" / "auth.json"), [str(foreign), str(tmp_path / "missing")])
    assert known.find("docker.io") == Credential("ann", "pw")
    assert known.find("quay.io", "team/x") == Credential("team", "pw")
    assert known.find("quay.io", "teams/x") == Credential("all", "pw")
    assert known.find("ghcr.io") == Credential("<token>", "tok")
    assert known.find("broken") is None
    known.login("docker.io", Credential("bob", "se:cret"))
    assert known.find("docker.io") == Credential("bob", "se:cret")
    assert (tmp_path / "own/auth.json").stat().st_mode & 0o777 == 0o600
    assert "se:cret" not in repr(known.find("docker.io"))
    assert known.logout("docker.io")
    assert not known.logout("docker.io")
    assert known.find("docker.io") == Credential("ann", "pw")


@pytest.mark.parametrize(
    ("host", "port", "listed", "expected"),
    [
        ("a.site.org", 443, "site.org", True),
        ("a.site.org", 443, ".site.org", True),
        ("asite.org", 443, "site.org", False),
        ("10.1.2.3", 443, "10.0.0.0/8", True),
        ("10.1.2.3", 443, "192.168.0.0/16", False),
        ("x", 443, "*", True),
        ("x", 5000, "x:5000", True),
        ("x", 443, "", False),
    ],
)
def test_no_proxy(host: str, port: int, listed: str, expected: bool) -> None:
    assert web._is_excepted(host, port, listed) is expected


def test_plain_http() -> None:
    known = web.Web(web.WebSettings(is_insecure=True, insecure_hosts=("lab:5000",)))
    assert known.is_plain("127.0.0.1:5000")
    assert known.is_plain("localhost")
    assert known.is_plain("lab:5000")
    assert not known.is_plain("quay.io")
    assert not web.Web().is_plain("localhost")
