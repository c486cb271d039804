"""Signatures of image lists: S/MIME, as the HEPiX lists carry it, checked by the computer's own ``openssl cms``.

The content counts only after the signature: what is returned is what was signed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hansa.images import errors
from hansa.kernel.errors import Fault

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Signed:
    """Content whose signature is good, and the subject (RFC 2253) of the certificate that made it."""

    content: bytes
    signer: str


async def verify(message: bytes, authorities_pem: str) -> Signed:
    """Check an S/MIME message against certificate authorities (PEM). Raises Fault ``images.bad_list``."""
    program = shutil.which("openssl")
    if program is None:
        raise Fault(errors.NO_TOOL, "openssl is not installed on the server.", hint="Install the package openssl.")
    with tempfile.TemporaryDirectory(prefix="hansa-list-") as name:
        folder = Path(name)
        (folder / "ca.pem").write_text(authorities_pem, encoding="ascii")
        (folder / "message").write_bytes(message)
        # Nobody but the given authorities: openssl would trust those of the computer, as of web sites, as well.
        trusted = ("-CAfile", str(folder / "ca.pem"), "-no-CApath", "-no-CAstore")
        given = ("-in", str(folder / "message"), *trusted, "-purpose", "any")
        made = ("-signer", str(folder / "signer.pem"), "-out", str(folder / "content"))
        code, said = await _run(program, "cms", "-verify", "-inform", "SMIME", *given, *made)
        if code:
            raise Fault(
                errors.BAD_LIST,
                f"The signature of the image list is not good: {_last(said)}",
                hint="Check that the list comes from its endorser, and that the authorities given are theirs.",
            )
        return Signed((folder / "content").read_bytes(), _subject((folder / "signer.pem").read_bytes()))


def _subject(pem: bytes) -> str:
    from cryptography import x509  # slow to import

    return x509.load_pem_x509_certificates(pem)[0].subject.rfc4514_string()


async def _run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Fault(errors.BAD_LIST, f"openssl did not end within {_TIMEOUT_S:.0f} s.") from None
    return process.returncode or 0, said.decode(errors="replace")


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return (lines[-1] if lines else "openssl gave no reason")[:300]
