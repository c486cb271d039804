"""How a pilot in a machine made for it gets its token: by a ticket that is good for one machine.

User data can be read by everybody in the machine and through its provider, so the long-lived token is never in it. The
ticket is. Whoever brings it first, with a secret of their own, gets the token, and may ask again with the same secret
until the pilot has said its first word. Whoever brings it with another secret proves that it is in wrong hands: then
nobody has that pilot any more, and its machine is deleted.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from annotated_types import MaxLen, MinLen

from hansa.identity.service import IdentityService, revoke_pilot_tokens
from hansa.jobs import errors, leases, store_pilots
from hansa.jobs.model import PilotPhase
from hansa.jobs.program import NodeProgram
from hansa.jobs.settle import give_back
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import JobSettings
from hansa.kernel.wire import STRICT
from hansa.node.protocol import PilotConfig
from hansa.sites import store as site_store
from hansa.sites.kinds.machines import NAME, MachinesSettings

_TOKEN_LASTS = timedelta(days=14)


@dataclass(frozen=True)
class EnrolRequest:
    """A machine's ticket, and a secret that it made itself."""

    __pydantic_config__: ClassVar = STRICT

    ticket: Annotated[str, MinLen(1), MaxLen(200)]
    secret: Annotated[str, MinLen(32), MaxLen(200)]


@dataclass(frozen=True)
class EnrolReply:
    """The pilot's token, its configuration but for the paths, and the text of the program that starts it."""

    token: str
    config: dict[str, Any]
    bootstrap: str


class Tickets:
    """Tickets of pilots: made of the server's master key, so that none has to be kept."""

    def __init__(self, vault: Vault) -> None:
        self._key = vault.derive("pilot tickets")

    def of(self, pilot_id: str) -> str:
        return hmac.new(self._key, pilot_id.encode(), "sha256").hexdigest()

    def is_good(self, pilot_id: str, ticket: str) -> bool:
        return hmac.compare_digest(self.of(pilot_id).encode(), ticket.encode())


class EnrolService:
    """Gives tokens for tickets."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        identity: IdentityService,
        tickets: Tickets,
        program: NodeProgram,
        urls: Sequence[str],
        settings: JobSettings,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._identity = identity
        self._tickets = tickets
        self._program = program
        self._urls = urls
        self._settings = settings

    async def enrol(self, pilot_id: str, asked: EnrolRequest) -> EnrolReply:
        """Raises Fault ``jobs.bad_ticket``, and ``jobs.pilot_gone`` where it is not wanted any more."""
        if not self._tickets.is_good(pilot_id, asked.ticket):
            raise Fault(errors.BAD_TICKET, "This ticket is not of this pilot.")
        secret = hashlib.sha256(asked.secret.encode()).hexdigest()
        async with self._database.begin() as tx:
            pilot = await store_pilots.get(tx, pilot_id, lock=True)
            if pilot is None or pilot.driver != NAME or PilotPhase(pilot.phase).is_final:
                raise Fault(errors.PILOT_GONE, "This pilot is not wanted any more.")
            is_twice = pilot.enrolled_by is not None and (pilot.enrolled_by != secret or pilot.last_seen is not None)
            if is_twice:
                await self._end(tx, pilot)
            else:
                await store_pilots.update(tx, pilot_id, enrolled_by=secret)
                settings = await _settings(tx, pilot)
        if is_twice:
            raise Fault(errors.BAD_TICKET, "This ticket was used before: nobody has this pilot any more.")
        token = await self._identity.issue_pilot_token(pilot_id, pilot.owner_id, _TOKEN_LASTS)
        return EnrolReply(token, self._config(pilot, settings), self._program.bootstrap.decode())

    def _config(self, pilot: Any, settings: MachinesSettings) -> dict[str, Any]:
        config = PilotConfig(
            pilot.id,
            list(settings.urls or self._urls),
            "",
            "",
            pilot.cores,
            pilot.memory_mib,
            [gpu.partition(",")[0] for gpu in pilot.gpus],
            pilot.wall_time_s,
            settings.idle_timeout_s,
        )
        return asdict(config) | {"node_digest": self._program.digest}

    async def _end(self, tx: Tx, pilot: Any) -> None:
        """Its tasks go back, its token is void."""
        now = self._clock.now()
        held = list((await leases.of_pilot(tx, pilot.id)).values())
        await give_back(tx, self._events, self._settings, held, set(), now, "Its pilot was given up.")
        await revoke_pilot_tokens(tx, pilot.id)
        said = "Its ticket was used twice, so somebody else may have had its token: it was given up."
        await store_pilots.end(tx, self._events, pilot, PilotPhase.LOST, "pilots.ticket_twice", said, now)


async def _settings(tx: Tx, pilot: Any) -> MachinesSettings:
    """Of its endpoint, with what differs for the VO. Raises Fault where that is gone."""
    row = await site_store.get_endpoint(tx, pilot.endpoint_id) if pilot.endpoint_id else None
    if row is None:
        raise Fault(errors.PILOT_GONE, "The endpoint of this pilot is not registered any more.")
    access = next((one for one in await site_store.vos_of(tx, [row.id]) if one.vo == pilot.vo), None)
    return MachinesSettings.model_validate({**row.settings, **(access.settings if access else {})})
