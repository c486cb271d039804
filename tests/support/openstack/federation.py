"""Apache with mod_auth_openidc before keystone, in the conventions of the EGI federation.

Keystone trusts the issuer through Apache: provider ``egi.eu``, protocol ``openid``, one project per VO with the
property ``egi.VO``. mod_auth_openidc wants the issuer's keys over HTTPS, so Apache is also
a TLS front before the issuer.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import trustme

from tests.support.openstack import contents
from tests.support.openstack.cloud import Cloud, listens
from tests.support.openstack.layout import PORTS

PROVIDER = "egi.eu"
PROTOCOL = "openid"
MODULES = Path("/usr/lib/apache2/modules")
LOADED = (
    *("mpm_event", "authn_core", "authz_core", "authz_user", "auth_openidc", "headers"),
    *("proxy", "proxy_http", "ssl", "socache_shmcb"),
)
CONFIG = """\
ServerRoot "{root}"
ServerName {address}
PidFile "{root}/pid"
ErrorLog "{root}/error.log"
LogLevel warn
DefaultRuntimeDir "{root}"
Mutex "file:{root}" default
{user}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 16
MaxRequestWorkers 16
Listen {address}:{front}
Listen {address}:{tls}
OIDCClaimDelimiter ";"
OIDCClaimPrefix "OIDC-"
OIDCPassClaimsAs both
OIDCOAuthVerifyJwksUri https://{address}:{tls}{path}/protocol/openid-connect/certs
OIDCOAuthRemoteUserClaim sub
OIDCCABundlePath "{root}/ca.pem"
# A file as cache crashes this version.
OIDCCacheType shm
# What a client sends by this name is thrown away; WSGI servers drop names with "_", so the claim is copied.
RequestHeader unset OIDC-eduperson-entitlement early
<Location "/v3/OS-FEDERATION/identity_providers/{provider}/protocols/{protocol}/auth">
  AuthType oauth20
  Require valid-user
  RequestHeader set OIDC-eduperson-entitlement "%{{OIDC-eduperson_entitlement}}e" env=OIDC-eduperson_entitlement
</Location>
<VirtualHost {address}:{front}>
  ProxyPreserveHost On
  ProxyPass / {keystone}/
</VirtualHost>
<VirtualHost {address}:{tls}>
  SSLEngine on
  SSLCertificateFile "{root}/certificate.pem"
  SSLCertificateKeyFile "{root}/key.pem"
  ProxyPass / {issuer}/
</VirtualHost>
"""


def federate(cloud: Cloud, issuer: str) -> str:
    """Make keystone trust ``issuer`` (``http://host:port/path``); the address at which federated users sign in."""
    origin, path = _parts(issuer)
    _start_apache(cloud, origin, path)
    with contents.connect(cloud.place) as admin:
        _trust(admin, issuer)
    return f"http://{cloud.place.address}:{PORTS['front']}/v3"


def _start_apache(cloud: Cloud, origin: str, path: str) -> None:
    root, address = cloud.place.root / "apache", cloud.place.address
    root.mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert(address)
    authority.cert_pem.write_to_path(str(root / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(root / "key.pem"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(root / "certificate.pem"), append=number > 0)
    (root / "httpd.conf").write_text(
        CONFIG.format(
            root=root,
            address=address,
            front=PORTS["front"],
            tls=PORTS["issuer"],
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
            modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED),
            path=path,
            issuer=origin,
            provider=PROVIDER,
            protocol=PROTOCOL,
            keystone=cloud.place.url("keystone"),
        )
    )
    cloud.processes.start("apache", ["/usr/sbin/apache2", "-DFOREGROUND", "-f", root / "httpd.conf"])
    cloud.processes.wait("apache", lambda: listens(address, PORTS["front"]))


def _trust(admin: Any, issuer: str) -> None:
    base = "/OS-FEDERATION"
    domain = admin.identity.find_domain(contents.DOMAIN)
    provider = {"remote_ids": [issuer], "enabled": True, "domain_id": domain.id}
    rules = [_rule(admin, vo, issuer, domain.id) for vo in contents.VOS]
    for path, body in {
        f"{base}/identity_providers/{PROVIDER}": {"identity_provider": provider},
        f"{base}/mappings/egi": {"mapping": {"rules": rules}},
        f"{base}/identity_providers/{PROVIDER}/protocols/{PROTOCOL}": {"protocol": {"mapping_id": "egi"}},
    }.items():
        admin.identity.put(path, json=body).raise_for_status()


def _rule(admin: Any, vo: str, issuer: str, domain: str) -> dict[str, Any]:
    """Who has an entitlement of the VO is in the VO's group."""
    group = admin.identity.find_group(vo, domain_id=domain)
    entitled = rf"^urn:mace:[^:]+:group:{re.escape(vo)}:(.*:)?role=[^:#]+#.+$"
    return {
        "local": [{"user": {"name": "{0}"}, "group": {"id": group.id}}],
        "remote": [
            {"type": "HTTP_OIDC_SUB"},
            {"type": "HTTP_OIDC_ISS", "any_one_of": [issuer]},
            {"type": "HTTP_OIDC_EDUPERSON_ENTITLEMENT", "regex": True, "any_one_of": [entitled]},
        ],
    }


def _parts(issuer: str) -> tuple[str, str]:
    scheme, rest = issuer.split("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"
