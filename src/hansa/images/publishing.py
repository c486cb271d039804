"""Image lists for others: what a VO endorses, signed, for whoever asks, where the VO wants that.

The list is S/MIME (RFC 8551, multipart/signed), as HEPiX image lists are. It is signed by a key that this installation
makes when it is first needed; its certificate is its own authority, which followers are given by another way.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hansa.images import errors, hepix, store
from hansa.images.endorsing import EndorsementService
from hansa.images.service import ImageService
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.secrets import Vault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

_CONTEXT = "vm_list_signer"
_BITS = 3072
_LASTS = timedelta(days=20 * 365)


class PublishedLists:
    """Public: what is answered here is for everybody, and only what VOs have made public."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        vault: Vault,
        images: ImageService,
        endorsing: EndorsementService,
        url: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._vault = vault
        self._images = images
        self._endorsing = endorsing
        self._url = url

    async def signed(self, vo: str) -> bytes:
        """The list of a VO. Raises Fault ``images.not_found`` where it has none for everybody."""
        private, certificate = await self._signer()
        async with self._database.read() as tx:
            policy = await store.get_policy(tx, vo)
            if policy is None or not policy.is_listed:
                hint = "Its managers can publish one: hansa image policy VO --public-list."
                raise Fault(errors.NOT_FOUND, f"There is no image list of {vo[:80]} for everybody.", hint=hint)
            found = await self._endorsing.list_of(tx, vo, f"{self._url}/api/v1/image-lists/content")
        dn = certificate.subject.rfc4514_string()
        body = json.dumps(hepix.render(replace(found, endorser=dn)), indent=1).encode()
        return await asyncio.to_thread(_sign, body, private, certificate)

    async def authority(self) -> bytes:
        """The certificate (PEM) that lists are checked against."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return (await self._signer())[1].public_bytes(Encoding.PEM)

    async def content(self, version_id: str) -> tuple[Path, str]:
        """The content that a list names. Raises Fault ``images.not_found``, ``images.not_ready``."""
        async with self._database.read() as tx:
            is_listed = await store.is_listed(tx, version_id, self._clock.now())
        if not is_listed:
            raise Fault(errors.NOT_FOUND, f"No image list for everybody names {version_id[:80]}.")
        return await self._images.content_by_id(version_id)

    async def _signer(self) -> tuple[RSAPrivateKey, Certificate]:
        """Key and certificate; made once, by whichever server is first."""
        async with self._database.read() as tx:
            row: Any = await store.get_signer(tx)
        if row is None:
            private, certificate = await asyncio.to_thread(_make, self._url, self._clock.now())
            async with self._database.begin() as tx:
                await store.insert_signer(tx, self._vault.seal(private, _CONTEXT), certificate)
                row = await store.get_signer(tx)
        return await asyncio.to_thread(_load, self._vault.open(row.private, _CONTEXT), row.certificate)


async def rewrap_list_signer(tx: Tx, vault: Vault) -> int:
    """Put the private key under the current master key; the number of keys."""
    row = await store.get_signer(tx)
    if row is None:
        return 0
    await store.update_signer(tx, vault.rewrap(row.private, _CONTEXT))
    return 1


def _make(url: str, now: datetime) -> tuple[bytes, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, _BITS)
    words = [(NameOID.ORGANIZATION_NAME, "Hansa image lists"), (NameOID.COMMON_NAME, url.partition("://")[2][:64])]
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in words])
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(days=1)).not_valid_after(now + _LASTS)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = built.sign(key, hashes.SHA256())
    private = key.private_bytes(form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption())
    return private, certificate.public_bytes(form.Encoding.PEM).decode()


def _load(private: bytes, certificate: str) -> tuple[Any, Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return load_der_private_key(private, None), x509.load_pem_x509_certificate(certificate.encode())


def _sign(body: bytes, private: RSAPrivateKey, certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    builder = pkcs7.PKCS7SignatureBuilder().set_data(body).add_signer(certificate, private, hashes.SHA256())
    return builder.sign(Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature])
