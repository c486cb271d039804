"""Mail by SMTP: one message at a time, over TLS unless it is this computer."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Literal

from hansa.kernel.errors import Permanent, Temporary

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in, and how."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None


async def send_mail(server: MailServer, message: EmailMessage) -> None:
    """Hand a message in. Raises Temporary where it may be tried again, Permanent where it was refused for good."""
    await asyncio.to_thread(_send, server, message)


def _send(server: MailServer, message: EmailMessage) -> None:
    where = f"{server.host}:{server.port}"
    try:
        with _connect(server) as client:
            if server.user is not None:
                password = server.password_file.read_text().strip() if server.password_file is not None else ""
                client.login(server.user, password)
            client.send_message(message)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        code, text = _said(error)
        if 400 <= code < 500:
            raise Temporary(f"The mail server {where} does not take it now: {text}.") from error
        raise Permanent(f"The mail server {where} refuses it: {text}.") from error
    except (smtplib.SMTPException, OSError) as error:
        raise Temporary(f"The mail server {where} cannot be used: {error}.") from error


def _connect(server: MailServer) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(server.ca_file) if server.ca_file else None)
    if server.security == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=context)
    client = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    try:
        if server.security == "starttls":
            client.starttls(context=context)
    except BaseException:
        client.close()
        raise
    return client


def _said(error: smtplib.SMTPException) -> tuple[int, str]:
    answer: tuple[int, bytes | str] = (451, str(error))
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answer = next(iter(error.recipients.values()))
    elif isinstance(error, smtplib.SMTPResponseException):
        answer = (error.smtp_code, error.smtp_error)
    code, text = answer
    return code, text.decode(errors="replace") if isinstance(text, bytes) else text
