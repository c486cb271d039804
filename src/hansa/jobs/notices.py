"""Notices: who asked for it is told by mail or webhook that a job has started or ended.

A notice is a row, written in the unit of work that changed the job, so it is told for certain and never of what did not
happen. Telling is repeated until it was answered, for a day: a receiver may hear of the same notice twice, and knows it
by its id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

import sqlalchemy as sa

from hansa.engines.egress import EgressPolicy
from hansa.engines.mail import MailServer, send_mail
from hansa.engines.web import Web
from hansa.jobs import errors
from hansa.jobs.tables import notices
from hansa.jobs.wire import Counts, Notify, Phase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled
from hansa.kernel.settings import MailSettings

SEND = "send"
WAITING, SENT, FAILED = "waiting", "sent", "failed"
MAILTO = "mailto:"
_GIVEN_UP = timedelta(days=1)
_ADDRESS = re.compile(r"[^@\s<>,;:\"\\\x00-\x1f\x7f]{1,64}@[A-Za-z0-9.-]{1,255}")
_MOST_ANSWER_BYTES = 64 * 1024
QUEUE = Queue("notices", notices, notices.c.id)


class NoticePolicy:
    """To whom notices may go."""

    def __init__(self, settings: MailSettings, egress: EgressPolicy) -> None:
        self._settings = settings
        self._egress = egress

    def check(self, wishes: Sequence[Notify]) -> None:
        """Raises Fault ``jobs.bad_spec`` for a receiver that cannot be, or must not be, told."""
        for wish in wishes:
            if wish.to.startswith(MAILTO):
                self._check_mail(wish.to.removeprefix(MAILTO))
            else:
                try:
                    self._egress.check_url(wish.to)
                except Permanent as error:
                    raise _bad(f"{wish.to} cannot be notified: {error}") from error

    def _check_mail(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address):
            raise _bad(f"{address!r} is no mail address")
        if not self._settings.host:
            raise _bad(f"{address} cannot be notified: this server sends no mail (a webhook, https://…, will do)")
        domain = address.rpartition("@")[2].lower()
        allowed = [one.lower().removeprefix("@") for one in self._settings.domains]
        if allowed and domain not in allowed:
            raise _bad(f"{address} cannot be notified: this server sends mail to {', '.join(allowed)} only")


def _bad(what: str) -> Fault:
    return Fault(errors.BAD_SPEC, f"The job cannot be run as it is described: {what}.", hint="hansa run --help")


async def note(tx: Tx, job: Any, phase: Phase, message: str, counts: Counts | None, now: datetime, **more: Any) -> None:
    """Write the notices that a job asked for, in the unit of work that changed its phase."""
    kinds = {phase.value, "ended"} if phase.is_final else {"started"}
    rows = [
        {
            "id": new_id("notice"),
            "owner_id": job.owner_id,
            "job": job.number,
            "address": wish["to"],
            "body": {
                "job": job.number,
                "name": job.name,
                "command": job.command,
                "owner": job.owner_name,
                "vo": job.vo,
                "phase": phase.value,
                "message": message,
                "tasks": asdict(counts) if counts is not None else None,
                "time": now.isoformat(),
                **more,
            },
            "phase": WAITING,
            "message": "",
            "created": now,
            "due_at": now,
        }
        for wish in job.spec.get("notify") or ()
        if kinds & set(wish["on"])
    ]
    if rows:
        await tx.execute(sa.insert(notices), rows)
        tx.ring(QUEUE.topic)


async def of_job(tx: Tx, number: int) -> Sequence[Any]:
    """The notices of a job, oldest first."""
    return (await tx.execute(sa.select(notices).where(notices.c.job == number).order_by(notices.c.id))).all()


async def forget(tx: Tx, before: datetime) -> None:
    """Remove those that were told, or given up, before."""
    await tx.execute(sa.delete(notices).where(notices.c.phase != WAITING, notices.c.created < before))


@dataclass(frozen=True)
class GiveUp(Settle):
    """A decision: it was tried for long enough."""


def decide(notice: Any, now: datetime) -> Act | Settle:
    """What to do about a notice. Pure."""
    if notice.phase != WAITING:
        return Settle("notices.over")
    if now - notice.created > _GIVEN_UP:
        return GiveUp("notices.given_up")
    return Act(SEND, "notices.due")


class NoticeRoom:
    """Notices, for the reconcile engine."""

    queue = QUEUE

    def __init__(
        self, events: EventLog, clock: Clock, mail: MailSettings, egress: EgressPolicy, url: str, ca: str | None = None
    ) -> None:
        self._events = events
        self._clock = clock
        self._mail = mail
        self._egress = egress
        self._url = url.rstrip("/")
        self._ca = ca

    async def load(self, tx: Tx, key: str) -> Any | None:
        return (await tx.execute(sa.select(notices).where(notices.c.id == key))).first()

    async def observe(self, loaded: Any) -> None:  # noqa: ARG002 - nobody can be asked what he has heard
        return None

    def decide(self, loaded: Any, seen: None, now: datetime) -> Act | Settle:  # noqa: ARG002 - the room's Protocol
        return decide(loaded, now)

    async def act(self, loaded: Any, intent: Intent) -> None:  # noqa: ARG002
        body = {**loaded.body, "id": loaded.id, "url": f"{self._url}/jobs/{loaded.job}", "server": self._url}
        if loaded.address.startswith(MAILTO):
            await self._post_mail(loaded.address.removeprefix(MAILTO), body)
        else:
            await self._post_hook(loaded.address, body)

    async def _post_hook(self, url: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "Hansa", "Idempotency-Key": body["id"]}
        content = json.dumps(body).encode()
        async with Web(self._egress, self._ca) as web:
            answer, _ = await web.ask("POST", url, most_bytes=_MOST_ANSWER_BYTES, headers=headers, content=content)
        if answer.is_success:
            return
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise Temporary(f"It answered {answer.status_code}.")
        raise Permanent(f"It answered {answer.status_code}.")

    async def _post_mail(self, address: str, body: dict[str, Any]) -> None:
        if not self._mail.host:
            raise Permanent("This server sends no mail any more.")
        settings = self._mail
        message = mail_of(address, settings.sender or f"hansa@{settings.host}", body, self._clock.now())
        server = MailServer(
            settings.host or "",
            settings.port,
            settings.security,
            settings.user,
            settings.password_file,
            settings.ca_file,
        )
        await send_mail(server, message)

    async def apply(self, tx: Tx, loaded: Any, outcome: Outcome[None, None]) -> Next:
        if isinstance(outcome, Acted):
            await self._end(tx, loaded, SENT, "")
            return Next(None, outcome.intent.generation)
        if isinstance(outcome, Failed):
            if outcome.retry_at is not None:
                await self._say(tx, loaded, str(outcome.error))
                return Next(outcome.retry_at)
            await self._end(tx, loaded, FAILED, str(outcome.error))
            return Next(None)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        if isinstance(outcome.decision, GiveUp):
            await self._end(tx, loaded, FAILED, f"Given up after a day: {loaded.message}")
        return Next(None)

    @staticmethod
    async def _say(tx: Tx, row: Any, message: str) -> None:
        await tx.execute(sa.update(notices).where(notices.c.id == row.id).values(message=message))

    async def _end(self, tx: Tx, row: Any, phase: str, message: str) -> None:
        await tx.execute(sa.update(notices).where(notices.c.id == row.id).values(phase=phase, message=message))
        if phase == FAILED:
            said = f"{row.address} could not be notified: {message}"
            event = Event("hansa", f"job/{row.job}", row.body["phase"], "jobs.not_notified", said, row.owner_id)
            await self._events.record(tx, event)


def mail_of(address: str, sender: str, body: dict[str, Any], now: datetime) -> EmailMessage:
    """The message. Its id is the notice's, so that a second copy is seen to be one. Pure."""
    message = EmailMessage()
    name = " ".join(str(body["name"] or "").split())[:80]
    message["Subject"] = f"Job {body['job']}{f' ({name})' if name else ''} {body['phase']}"
    message["From"] = sender
    message["To"] = address
    message["Date"] = formatdate(now.timestamp())
    message["Message-ID"] = f"<{body['id']}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    tasks = body.get("tasks")
    lines = [f"Job {body['job']}: {body['message']}", "", f"Command: {body['command']}"]
    if tasks and sum(tasks.values()) > 1:
        lines.append("Tasks: " + ", ".join(f"{count:,} {what}" for what, count in tasks.items() if count))
    lines += ["", f"See: {body['url']}", f"     hansa job explain {body['job']}"]
    message.set_content("\n".join(lines) + "\n")
    return message
