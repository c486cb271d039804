"""A web server that is not ours signs its visitors in here: Apache with mod_auth_openidc as relying party."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.apt import need, program
from tests.support.identity import Browser, Server

VO = "vo.web.org"
MODULES = Path("/usr/lib/apache2/modules")
LOADED = ("mpm_event", "authn_core", "authz_core", "authz_user", "auth_openidc", "headers", "dir", "mime")
CONFIG = """\
ServerRoot "{root}"
ServerName 127.0.0.1
PidFile "{root}/pid"
ErrorLog "{root}/error.log"
LogLevel warn
DefaultRuntimeDir "{root}"
Mutex "file:{root}" default
{user}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
Listen 127.0.0.1:{port}
DocumentRoot "{root}/www"
TypesConfig /dev/null
OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID web
OIDCClientSecret {secret}
OIDCRedirectURI http://127.0.0.1:{port}/signed-in
OIDCCryptoPassphrase {passphrase}
OIDCScope "openid profile eduperson_entitlement"
OIDCPKCEMethod S256
OIDCCacheType shm
OIDCRemoteUserClaim sub
<Location "/">
  AuthType openid-connect
  Require valid-user
  Header set X-Name "%{{OIDC_CLAIM_preferred_username}}e"
</Location>
<Location "/vo">
  AuthType openid-connect
  Require claim "eduperson_entitlement~^urn:mace:hansa:group:{vo}:role=member#.*$"
</Location>
"""


@pytest.fixture(scope="module")
def site(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the web server, a client of ours."""
    need(["apache2"], ["apache2", "libapache2-mod-auth-openidc"])
    if not (MODULES / "mod_auth_openidc.so").exists():
        need(["no such program"], ["libapache2-mod-auth-openidc"])
    root = tmp_path_factory.mktemp("apache")
    for folder in (root, *(one for one in root.parents if one.name.startswith(("pytest-", "popen-")))):
        folder.chmod(0o711)  # Apache's children, who are not root, read the pages
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redirects = [f"http://127.0.0.1:{port}/signed-in"]
    made = server.add_client(id="web", redirect_uris=redirects, confidential=True, trusted=True)
    (root / "www" / "vo").mkdir(parents=True)
    (root / "www" / "index.html").write_text("for everybody")
    (root / "www" / "vo" / "index.html").write_text("for members")
    config = CONFIG.format(
        root=root,
        port=port,
        issuer=server.issuer,
        secret=made["secret"],
        passphrase=secrets.token_urlsafe(16),
        vo=VO,
        user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
        modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED),
    )
    (root / "httpd.conf").write_text(config)
    process = subprocess.Popen([program("apache2") or "apache2", "-DFOREGROUND", "-f", root / "httpd.conf"])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            except httpx.TransportError:
                assert process.poll() is None, (root / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def visit(site: str, browser: Browser, path: str) -> httpx.Response:
    """What somebody who is signed in here sees at a page there, after the redirects to and fro."""
    with httpx.Client(follow_redirects=False, trust_env=False, timeout=60) as there:
        answer = there.get(f"{site}{path}")
        assert answer.status_code == 302, answer.text
        back = browser.get(answer.headers["location"])
        while back.is_redirect and not back.headers["location"].startswith(site):
            back = browser.get(back.headers["location"])
        assert back.is_redirect, back.text
        signed_in = there.get(back.headers["location"])
        assert signed_in.status_code == 302, signed_in.text
        return there.get(signed_in.headers["location"])


def test_visitors_sign_in_here_and_the_site_knows_them_and_their_vos(server: Server, site: str) -> None:
    wendy, walt = server.account("wendy"), server.account("walt")
    server.operator().post("/vos", json={"name": VO, "manager": "wendy"}).raise_for_status()
    seen = visit(site, wendy, "/index.html")
    assert (seen.status_code, seen.text, seen.headers["x-name"]) == (200, "for everybody", "wendy")
    assert visit(site, wendy, "/vo/index.html").text == "for members"
    refused = visit(site, walt, "/vo/index.html")
    assert refused.status_code in (401, 403)
    assert "for members" not in refused.text


def test_an_answer_for_another_visitor_is_refused_there(server: Server, site: str) -> None:
    """The state of a sign-in is bound to the browser that began it."""
    browser = server.account("wanda")
    with httpx.Client(follow_redirects=False, timeout=60) as victim, httpx.Client(timeout=60) as attacker:
        began = attacker.get(f"{site}/index.html")
        back = browser.get(began.headers["location"])
        while back.is_redirect and not back.headers["location"].startswith(site):
            back = browser.get(back.headers["location"])
        answer = victim.get(back.headers["location"])
        assert answer.status_code != 302 or "/index.html" not in answer.headers.get("location", "")
        assert victim.get(f"{site}/index.html").status_code == 302
