"""Shells and forwards beside running tasks: the server carries what the two ends say, in the database.

In the database, so that the user may talk to one server and the pilot to another, and that a server which is started
anew loses nothing. What is on its way is small: an end that has said eight pieces waits for the other one to take them.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.model import Caller
from hansa.identity.policy import may_change
from hansa.jobs import errors, leases, store, store_channels, store_pilots
from hansa.jobs.store_channels import PILOT, USER
from hansa.jobs.wire import NewChannel, OpenedChannel, Phase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.node.protocol import Channel, ChannelReply, ChannelRequest, Frame

_MOST_WAITING = 8
_MOST_OPEN = 32
_MOST_PIECE_BYTES = 2 * 1024 * 1024
_LONGEST_HOLD_S = 20.0
_LOOK_AGAIN_S = 2.0
_SEEN_S = 10.0
_SILENT = timedelta(seconds=90)
_KEPT = timedelta(minutes=10)
_OTHER = {USER: PILOT, PILOT: USER}


class ChannelService:
    """What users and pilots do with channels."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def open(self, caller: Caller, number: int, new: NewChannel) -> OpenedChannel:
        """Open one beside a running task of the caller's. Raises Fault ``jobs.not_found``, ``jobs.not_running``,
        ``jobs.bad_spec``."""
        if (new.kind == "forward") != (new.port > 0):
            raise Fault(errors.BAD_SPEC, "A forward names a port, a shell does not.")
        if any("\0" in word for word in new.command):
            raise Fault(errors.BAD_SPEC, "The command holds a NUL character.")
        now = self._clock.now()
        async with self._database.begin() as tx:
            job = await store.get_job(tx, number)
            if job is None or not may_change(caller, job.owner_id):
                raise Fault(errors.NOT_FOUND, f"There is no job {number} of yours.", job=number)
            index = self._index(job, new.task)
            lease, pilot = await self._where(tx, job, index)
            if await store_channels.open_of(tx, caller.user_id) >= _MOST_OPEN:
                raise Fault(errors.NOT_RUNNING, f"You have {_MOST_OPEN} shells and forwards open; close one.")
            channel = new_id("channel")
            more = (new.command, new.terminal, new.rows, new.columns, new.port)
            order = Channel(channel, lease.id, index, new.kind, *more)
            await store_channels.insert(
                tx,
                id=channel,
                owner_id=job.owner_id,
                job=number,
                index=index,
                lease=lease.id,
                pilot_id=pilot.id,
                order=asdict(order),
                is_open=False,
                created=now,
                user_seen=now,
                pilot_seen=now,
                from_user=0,
                from_pilot=0,
            )
            what = "a shell" if new.kind == "shell" else f"a forward to port {new.port}"
            message = f"{caller.name} opened {what} beside task {index} at {pilot.site}."
            event = Event(caller.actor, f"job/{number}", job.phase, "jobs.channel", message, job.owner_id, job.vo)
            await self._events.record(tx, event)
        return OpenedChannel(channel, number, index, pilot.site, (pilot.node or {}).get("hostname"))

    @staticmethod
    def _index(job: Any, task: int | None) -> int:
        if task is None and job.count > 1:
            hint = f"Say: {job.number}.{job.first}, for one of its tasks."
            raise Fault(errors.NO_TASK, f"Job {job.number} has {job.count:,} tasks: beside which?", hint=hint)
        index = int(job.first) if task is None else task
        if not job.first <= index < job.first + job.count:
            raise Fault(errors.NO_TASK, f"Job {job.number} has no task {index}.", job=job.number)
        return index

    async def _where(self, tx: Tx, job: Any, index: int) -> tuple[Any, Any]:
        """Lease and pilot of a task that runs."""
        for lease in await leases.of_job(tx, job.number):
            if not lease.first <= index <= lease.last:
                continue
            pilot = await store_pilots.get(tx, lease.pilot_id)
            if pilot is None or [lease.id, index] not in [list(pair) for pair in pilot.running]:
                continue
            if not (pilot.node or {}).get("channels"):
                raise Fault(errors.NOT_RUNNING, f"The pilot at {pilot.site} is of a version that cannot do this.")
            return lease, pilot
        state = job.phase if Phase(job.phase) is not Phase.RUNNING else "not running now"
        raise Fault(
            errors.NOT_RUNNING,
            f"Task {job.number}.{index} is {state}: a shell or a forward needs a task that runs.",
            hint=f"See: hansa job show {job.number}.{index}",
        )

    async def swap_user(self, caller: Caller, channel: str, request: ChannelRequest) -> ChannelReply:
        """The user's end speaks or listens. Raises Fault ``jobs.no_channel``."""

        def check(row: Any) -> bool:
            return may_change(caller, row.owner_id)

        return await self._swap(channel, USER, request, check)

    async def swap_pilot(self, pilot_id: str, channel: str, request: ChannelRequest) -> ChannelReply:
        """The pilot's end speaks or listens. Raises Fault ``jobs.no_channel``."""
        return await self._swap(channel, PILOT, request, lambda row: row.pilot_id == pilot_id)

    async def _swap(self, channel: str, end: str, request: ChannelRequest, check: Any) -> ChannelReply:
        deadline = self._clock.now() + timedelta(seconds=min(max(0.0, request.wait_s), _LONGEST_HOLD_S))
        with self._database.bells.listen(f"channel/{channel}") as bell:
            while True:
                reply = await self._once(channel, end, request, check)
                left = (deadline - self._clock.now()).total_seconds()
                if self._is_settled(request, reply) or left <= 0 or self._database.bells.is_closing:
                    return reply
                await bell.wait(min(left, _LOOK_AGAIN_S))

    @staticmethod
    def _is_settled(request: ChannelRequest, reply: ChannelReply) -> bool:
        if reply.closed is not None or reply.frames:
            return True
        return not request.listen and reply.accepted >= request.piece

    async def _once(self, channel: str, end: str, request: ChannelRequest, check: Any) -> ChannelReply:
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await store_channels.get(tx, channel, lock=True)
            if row is None or not check(row):
                raise Fault(errors.NO_CHANNEL, "There is no such shell or forward, or it is over.")
            values = self._heard(row, end, now)
            accepted = row.from_user if end == USER else row.from_pilot
            closed = row.closed
            is_next = closed is None and request.piece == accepted + 1 and bool(request.frames)
            if is_next and await store_channels.waiting(tx, channel, end) < _MOST_WAITING:
                await self._keep(tx, channel, end, request)
                accepted = request.piece
                values["from_user" if end == USER else "from_pilot"] = accepted
            if closed is None:
                is_said = request.close is not None and request.piece <= accepted
                closed = (request.close or "")[:500] if is_said else self._silence(row, end, now)
                values |= {} if closed is None else {"closed": closed}
            found = await self._listen(tx, channel, end, request) if request.listen else []
            if values:
                await store_channels.update(tx, channel, **values)
            if values.keys() - {"user_seen", "pilot_seen"}:
                tx.ring(f"channel/{channel}")
        frames = [Frame(**frame) for piece in found for frame in piece.frames]
        is_open = bool(row.is_open or end == PILOT)
        return ChannelReply(accepted, found[-1].piece if found else request.received, frames, is_open, closed)

    @staticmethod
    def _heard(row: Any, end: str, now: datetime) -> dict[str, Any]:
        values: dict[str, Any] = {}
        seen = "user_seen" if end == USER else "pilot_seen"
        if (now - getattr(row, seen)).total_seconds() > _SEEN_S:
            values[seen] = now
        if end == PILOT and not row.is_open:
            values["is_open"] = True
        return values

    @staticmethod
    def _silence(row: Any, end: str, now: datetime) -> str | None:
        if end == USER and now - row.pilot_seen > _SILENT:
            return "Nothing was heard of the task's pilot for too long."
        if end == PILOT and now - row.user_seen > _SILENT:
            return "Nothing was heard of the user for too long."
        return None

    @staticmethod
    async def _keep(tx: Tx, channel: str, end: str, request: ChannelRequest) -> None:
        if sum(len(frame.data) for frame in request.frames) > _MOST_PIECE_BYTES:
            raise Fault(errors.BAD_SPEC, "A piece of a channel is too large.")
        await store_channels.add_piece(tx, channel, end, request.piece, [asdict(frame) for frame in request.frames])

    @staticmethod
    async def _listen(tx: Tx, channel: str, end: str, request: ChannelRequest) -> Any:
        other = _OTHER[end]
        if request.received:
            await store_channels.drop_pieces(tx, channel, other, request.received)
        return await store_channels.pieces(tx, channel, other, request.received, _MOST_WAITING)

    async def forget(self) -> int:
        """Remove what is over."""
        async with self._database.begin() as tx:
            return await store_channels.forget(tx, self._clock.now() - _KEPT)
