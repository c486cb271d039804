"""Idempotency records on both dialects."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.kernel import errors
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database
from hansa.kernel.idempotency import fingerprint, forget, idempotency, recall, remember

CLOCK = ManualClock()
REQUEST = fingerprint("job.submit", b"{}")


class Work:
    """Something to be done once: counts how often it was committed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.started = 0

    async def ask(self, key: str | None, request: str = REQUEST, owner_id: str = "anna") -> Any:
        """What a service does, and a caller that asks again when another one was faster."""
        try:
            return await self._once(key, request, owner_id)
        except sa.exc.IntegrityError:
            return await self._once(key, request, owner_id)

    async def _once(self, key: str | None, request: str, owner_id: str) -> Any:
        async with self.database.begin() as tx:
            answer = await recall(tx, owner_id, key, request)
            if answer is not None:
                return answer
            self.started += 1
            answer = {"job": self.started}
            await asyncio.sleep(0.01)
            await remember(tx, CLOCK, owner_id, key, request, answer)
            return answer


@pytest.fixture
def work(database: Database) -> Work:
    return Work(database)


async def test_the_same_request_gets_the_same_answer(work: Work) -> None:
    assert await work.ask("k") == await work.ask("k") == {"job": 1}
    assert work.started == 1


async def test_another_request_with_the_key_is_refused(work: Work) -> None:
    await work.ask("k")
    for other in (fingerprint("job.submit", b"{ }"), fingerprint("job.kill", b"{}")):
        with pytest.raises(errors.Fault) as caught:
            await work.ask("k", other)
        assert caught.value.code is errors.IDEMPOTENCY
        assert caught.value.hint


async def test_keys_belong_to_their_owner(work: Work) -> None:
    assert await work.ask("k", owner_id="anna") != await work.ask("k", owner_id="bert")


async def test_without_a_key_every_request_is_new(work: Work) -> None:
    assert [await work.ask(None), await work.ask(None)] == [{"job": 1}, {"job": 2}]


async def test_two_at_once_do_it_once(work: Work) -> None:
    answers = await asyncio.gather(*(work.ask("k") for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    async with work.database.read() as tx:
        assert (await tx.execute(sa.select(sa.func.count()).select_from(idempotency))).scalar() == 1


async def test_no_record_without_the_work(database: Database) -> None:
    async def undone() -> None:
        async with database.begin() as tx:
            await remember(tx, CLOCK, "anna", "k", REQUEST, {"job": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    async with database.read() as tx:
        assert await recall(tx, "anna", "k", REQUEST) is None


async def test_records_are_forgotten(database: Database, work: Work) -> None:
    clock = ManualClock()
    await work.ask("k")
    clock.advance(3600)
    assert await forget(database, clock, timedelta(hours=2)) == 0
    clock.advance(3601)
    assert await forget(database, clock, timedelta(hours=2)) == 1


def test_the_fingerprint_keeps_operation_and_body_apart() -> None:
    assert fingerprint("ab", b"c") != fingerprint("a", b"bc")
