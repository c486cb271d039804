"""Shells and forwards: who may open one, and that what both ends say arrives once and in order."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hansa.identity.model import Caller
from hansa.jobs.channels import ChannelService
from hansa.jobs.wire import NewChannel
from hansa.kernel.errors import Fault
from hansa.node.protocol import ChannelRequest, Frame
from tests.support.jobworld import Pilot, World, running

SHELL = NewChannel("shell", command=["ls"])


def frame(text: str) -> Frame:
    return Frame("data", 0, base64.b64encode(text.encode()).decode())


def say(piece: int, *texts: str, **more: Any) -> ChannelRequest:
    return ChannelRequest(piece, [frame(text) for text in texts], **more)


def hear(received: int = 0) -> ChannelRequest:
    return ChannelRequest(received=received, listen=True)


@pytest.fixture
def channels(world: World) -> ChannelService:
    return ChannelService(world.database, world.events, world.clock)


async def runner(world: World, **spec: Any) -> Pilot:
    """A pilot that runs the first task of a new job."""
    await world.submit(**spec)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(running=running(lease, lease.first), node={"hostname": "n1", "channels": 1})
    return pilot


async def test_the_pilot_is_told_until_it_answers(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    opened = await channels.open(world.owner, 1, SHELL)
    assert (opened.job, opened.task, opened.node) == (1, 0, "n1")
    for _ in range(2):
        (told,) = (await pilot.exchange()).channels
        assert (told.channel, told.index, told.command) == (opened.id, 0, ["ls"])
    assert not (await channels.swap_user(world.owner, opened.id, hear())).is_open
    await channels.swap_pilot(pilot.id, opened.id, hear())
    assert (await pilot.exchange()).channels == []
    assert not (await world.pilot_row(pilot)).called
    assert (await channels.swap_user(world.owner, opened.id, hear())).is_open


async def test_pieces_arrive_once_and_in_order_whatever_is_repeated(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    name = (await channels.open(world.owner, 1, SHELL)).id
    for _ in range(2):
        assert (await channels.swap_user(world.owner, name, say(1, "a", "b"))).accepted == 1
    assert (await channels.swap_user(world.owner, name, say(3, "never"))).accepted == 1, "2 is missing"
    assert (await channels.swap_user(world.owner, name, say(2, "c"))).accepted == 2
    for _ in range(2):
        reply = await channels.swap_pilot(pilot.id, name, hear())
        assert (reply.frames, reply.piece) == ([frame("a"), frame("b"), frame("c")], 2)
    assert (await channels.swap_pilot(pilot.id, name, hear(2))).frames == []
    await channels.swap_pilot(pilot.id, name, say(1, "out"))
    assert (await channels.swap_user(world.owner, name, hear())).frames == [frame("out")]


async def test_who_does_not_listen_stops_the_other(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    name = (await channels.open(world.owner, 1, SHELL)).id
    taken = [(await channels.swap_pilot(pilot.id, name, say(n, "x"))).accepted for n in range(1, 12)]
    assert taken[-1] == 8
    first = await channels.swap_user(world.owner, name, hear())
    await channels.swap_user(world.owner, name, hear(first.piece))
    assert (await channels.swap_pilot(pilot.id, name, say(9, "x"))).accepted == 9


async def test_the_last_words_are_heard(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    name = (await channels.open(world.owner, 1, SHELL)).id
    await channels.swap_pilot(pilot.id, name, say(1, "bye", close="The shell has ended."))
    reply = await channels.swap_user(world.owner, name, hear())
    assert (reply.frames, reply.closed) == ([frame("bye")], "The shell has ended.")
    assert (await channels.swap_user(world.owner, name, hear(1))).frames == []
    world.manual.advance(3600)
    assert await channels.forget() == 1
    with pytest.raises(Fault, match="no such shell"):
        await channels.swap_user(world.owner, name, hear())


async def test_silence_closes_it(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    name = (await channels.open(world.owner, 1, SHELL)).id
    world.manual.advance(100)
    assert "the user" in ((await channels.swap_pilot(pilot.id, name, hear())).closed or "")
    other = (await channels.open(world.owner, 1, SHELL)).id
    world.manual.advance(100)
    assert "pilot" in ((await channels.swap_user(world.owner, other, hear())).closed or "")
    assert (await pilot.exchange()).channels == []


async def test_it_needs_a_task_of_ones_own_that_runs(world: World, channels: ChannelService) -> None:
    await world.submit(2)
    with pytest.raises(Fault, match="beside which"):
        await channels.open(world.owner, 1, SHELL)
    one = NewChannel("shell", task=1)
    with pytest.raises(Fault, match="needs a task that runs"):
        await channels.open(world.owner, 1, one)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.exchange(running=running(lease, 1), node={"hostname": "n1"})
    with pytest.raises(Fault, match="version"):
        await channels.open(world.owner, 1, one)
    await pilot.exchange(node={"hostname": "n1", "channels": 1})
    with pytest.raises(Fault, match="needs a task that runs"):
        await channels.open(world.owner, 1, one)  # it says that nothing runs
    with pytest.raises(Fault, match="names a port"):
        await channels.open(world.owner, 1, NewChannel("forward", task=1))
    with pytest.raises(Fault, match="no job"):
        await channels.open(Caller("user_eve", "eve"), 1, one)


async def test_nobody_elses_end_can_be_taken(world: World, channels: ChannelService) -> None:
    pilot = await runner(world)
    name = (await channels.open(world.owner, 1, SHELL)).id
    other = await world.pilot()
    for swap in (
        channels.swap_user(Caller("user_eve", "eve"), name, hear()),
        channels.swap_user(Caller(world.owner.user_id, "ada", pilot=pilot.id), name, hear()),
        channels.swap_pilot(other.id, name, hear()),
    ):
        with pytest.raises(Fault) as caught:
            await swap
        assert caught.value.code.code == "jobs.no_channel"
