"""Grants of authority on both dialects, with an issuer that is a few lines: kept, refreshed, lapsed, revoked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hansa.identity import store
from hansa.identity.authority import Authority, AuthorityService, Kind, rewrap_authority
from hansa.identity.authority_room import AuthorityRoom
from hansa.identity.model import Caller
from hansa.identity.people import create_user
from hansa.identity.upstream import store as upstream_store
from hansa.identity.upstream.issuers import read_issuers
from hansa.identity.upstream.model import Given, Profile
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Away, Refused, Remote, Tokens
from hansa.identity.vos import VoService
from hansa.identity.wire import NewSiteCredential, NewVo, VoRule
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.reconcile import Engine
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import IdentitySettings, IssuerSettings
from hansa.kernel.status import Party, Status

UP = "https://up.example.org"
OWN = "https://hansa.example.org"
OPERATOR = Caller("user_op", "olga", is_operator=True)


class FakeRemote(Remote):
    """An issuer that rotates refresh tokens, and takes each of them once."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, 900)
        self.clock = clock
        self.current = "refresh-0"
        self.number = 0
        self.problem: Exception | None = None
        self.claims: dict[str, Any] = {}
        self.revoked: list[str] = []

    async def refresh(self, issuer: Any, token: str) -> Tokens:
        if self.problem is not None:
            raise self.problem
        if token != self.current:
            raise Refused("invalid_grant", "used before")
        self.number += 1
        self.current = f"refresh-{self.number}"
        return self.tokens()

    def tokens(self) -> Tokens:
        ends = self.clock.now() + timedelta(hours=1)
        return Tokens(f"access-{self.number}", None, self.current, ends, refresh_lasts_s=30 * 86_400)

    async def userinfo(self, issuer: Any, access_token: str) -> dict[str, Any]:
        return self.claims

    async def revoke(self, issuer: Any, token: str) -> None:
        self.revoked.append(token)


class World:
    """The services over one database, and a user of the issuer."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.remote = FakeRemote(self.clock)
        self.vault = Vault([b"k" * 32])
        events = EventLog(database, self.clock)
        one = IssuerSettings(name="up", url=UP, client_id="hansa", preset="egi-check-in")
        self.issuers = read_issuers([one], OWN)
        self.people = People(events, self.clock)
        self.authority = AuthorityService(database, events, self.clock, self.vault, self.issuers, self.remote)
        room = AuthorityRoom(database, events, self.clock, self.issuers, self.remote, self.people, self.authority)
        self.engine = Engine(database, self.clock, room, chance=lambda: 0.5)
        self.events = events
        self.vos = VoService(database, events, self.clock, OWN, OWN, IdentitySettings(), self.issuers)
        self.user = ""
        self.grant = ""

    async def arrive(self, *given: Given) -> Any:
        async with self.database.begin() as tx:
            issuer = self.issuers.named("up")
            assert issuer is not None
            return await self.people.arrive(tx, issuer, Profile(UP, "sub-1", "maria", frozenset(), given))

    async def sign_in(self) -> None:
        row = await self.arrive()
        self.user = row.user_id
        async with self.database.begin() as tx:
            issuer = self.issuers.named("up")
            assert issuer is not None
            self.grant = await self.authority.keep(tx, row, issuer, self.remote.tokens())

    async def look(self, user: str | None = None, **where: str) -> Authority | Status:
        async with self.database.read() as tx:
            until = self.clock.now() + timedelta(days=1)
            return await self.authority.look(tx, user or self.user, until, **where)

    async def row(self) -> Any:
        async with self.database.read() as tx:
            return await upstream_store.get_authority(tx, self.grant)


@pytest.fixture
async def world(database: Database) -> World:
    made = World(database)
    await made.sign_in()
    return made


async def test_a_grant_is_prolonged_ahead_of_time_and_its_secret_is_sealed(world: World) -> None:
    assert await world.look() == Authority(Kind.OFFLINE, world.grant, (await world.row()).expires)
    await world.engine.run_until_idle()
    assert world.remote.number == 0
    for day in range(1, 4):
        world.clock.advance(86_400)
        await world.engine.run_until_idle()
        assert world.remote.number == day
    row = await world.row()
    assert row.expires == world.clock.now() + timedelta(days=30)
    assert "refresh" not in row.sealed
    assert "access" not in row.access
    assert world.authority.open_refresh(row) == "refresh-3"


async def test_a_fresh_token_is_refreshed_by_the_controller_only(world: World) -> None:
    assert (await world.authority.access_token(world.grant)).value == "access-0"
    world.clock.advance(3600)
    asked = [asyncio.create_task(world.authority.access_token(world.grant)) for _ in range(3)]
    while not all(one.done() for one in asked):
        await world.engine.run_until_idle()
        await asyncio.sleep(0.01)
    assert {(await one).value for one in asked} == {"access-1"}
    assert world.remote.number == 1


async def test_a_lapse_waits_for_the_user_and_a_renewal_mends_it(world: World) -> None:
    world.remote.problem = Refused("invalid_grant", "revoked by its user")
    world.clock.advance(86_400)
    await world.engine.run_until_idle()
    found = await world.look()
    assert isinstance(found, Status)
    assert (found.reason, found.waiting_on) == ("identity.grant_expired", Party.USER)
    assert "does not prolong it" in found.message
    async with world.database.read() as tx:
        with pytest.raises(Fault, match="has ended") as raised:
            await world.authority.require(tx, world.user, world.clock.now())
    assert "hansa login --renew" in str(raised.value.hint)
    with pytest.raises(Fault, match="does not prolong"):
        await world.authority.access_token(world.grant)
    row = await world.row()
    assert (row.sealed, row.access, row.phase) == (None, None, "lapsed")
    world.remote.problem = None
    await world.sign_in()
    assert isinstance(await world.look(), Authority)
    (one,) = (await world.authority.list_mine(Caller(world.user, "maria"))).items
    assert (one.phase, one.waiting_on) == ("active", "nobody")


async def test_while_the_issuer_is_away_a_grant_is_good_until_its_end(world: World) -> None:
    world.remote.problem = Away("nobody answers")
    world.clock.advance(86_400)
    await world.engine.run_once()
    assert isinstance(await world.look(), Authority)
    assert "goes on trying" in (await world.row()).message
    world.clock.advance(30 * 86_400)
    await world.engine.run_until_idle()
    found = await world.look()
    assert isinstance(found, Status)
    assert "ended on" in found.message


async def test_a_crash_after_the_refresh_loses_nothing_that_was_written(world: World) -> None:
    """The new refresh token is committed before anything else happens: a second refresh goes on from there."""
    world.clock.advance(86_400)
    apply, calls = AuthorityRoom.apply, []

    async def crash(self: Any, tx: Any, loaded: Any, outcome: Any) -> Any:
        calls.append(outcome)
        raise RuntimeError("killed")

    AuthorityRoom.apply = crash  # type: ignore[method-assign]
    try:
        await world.engine.run_once()
    finally:
        AuthorityRoom.apply = apply  # type: ignore[method-assign]
    assert calls
    assert world.authority.open_refresh(await world.row()) == "refresh-1"
    world.clock.advance(86_400)
    await world.engine.run_until_idle()
    assert world.authority.open_refresh(await world.row()) == "refresh-2"


async def test_a_refresh_renews_memberships(world: World) -> None:
    await world.vos.create(operator_of(world), NewVo("vo.a", manager=world.user))
    await world.vos.rule(OPERATOR, "vo.a", VoRule("up"))
    world.remote.claims = {"sub": "sub-1", "entitlements": ["urn:mace:egi.eu:group:vo.a:role=manager#aai.egi.eu"]}
    world.clock.advance(86_400)
    await world.engine.run_until_idle()
    assert [one.vo for one in await world.vos.list_mine(world.user)] == ["vo.a"]
    world.remote.claims = {"sub": "sub-1"}
    world.clock.advance(86_400)
    await world.engine.run_until_idle()
    assert await world.vos.list_mine(world.user) == ()


def operator_of(world: World) -> Caller:
    """An operator who is a user of the database."""
    return Caller(world.user, "maria", is_operator=True)


async def test_an_account_of_this_server_needs_nobody_elses_word(world: World) -> None:
    async with world.database.begin() as tx:
        user = await create_user(tx, world.events, world.clock, OWN, "ada")
    assert await world.look(user) == Authority(Kind.OWN)


async def test_who_never_signed_in_lastingly_is_told_so(world: World) -> None:
    await world.authority.revoke(Caller(world.user, "maria"), world.grant)
    assert world.remote.revoked == ["refresh-0"]
    found = await world.look()
    assert isinstance(found, Status)
    assert "no lasting sign-in" in found.message
    with pytest.raises(Fault, match="no grant"):
        await world.authority.revoke(Caller(world.user, "maria"), world.grant)


async def test_a_vo_has_a_credential_at_a_site(world: World) -> None:
    await world.vos.create(operator_of(world), NewVo("vo.a", manager=world.user))
    manager = Caller(world.user, "maria")
    fields = {"id": "app", "secret": "s3cret"}
    ends = world.clock.now() + timedelta(days=2)
    made = await world.authority.set_site_credential(manager, "vo.a", "site-1", NewSiteCredential(fields, ends))
    assert await world.look("user_none", vo="vo.a", site="site-1") == Authority(Kind.SITE, made.id, ends)
    async with world.database.read() as tx:
        assert await world.authority.site_credential(tx, "vo.a", "site-1") == fields
        assert await world.authority.site_credential(tx, "vo.a", "site-2") is None
        row = await upstream_store.get_authority(tx, made.id)
        assert row is not None
        assert "s3cret" not in row.sealed
    with pytest.raises(Fault, match="of yours"):
        await world.authority.site_credentials(Caller("user_x", "x"), "vo.a")
    world.clock.advance(3 * 86_400)
    await world.engine.run_until_idle()
    (one,) = (await world.authority.site_credentials(manager, "vo.a")).items
    assert one.phase == "lapsed"
    async with world.database.read() as tx:
        assert await world.authority.site_credential(tx, "vo.a", "site-1") is None


async def test_a_new_master_key_seals_grants_too(world: World) -> None:
    both = Vault([b"n" * 32, b"k" * 32])
    async with world.database.begin() as tx:
        assert await rewrap_authority(tx, both) == 2
    row = await world.row()
    assert Vault([b"n" * 32]).open(row.sealed, f"authority/{row.id}") == b"refresh-0"


async def test_two_first_arrivals_at_once_make_one_account(world: World) -> None:
    issuer = world.issuers.named("up")
    assert issuer is not None

    async def arrive() -> Any:
        async with world.database.begin() as tx:
            return await world.people.arrive(tx, issuer, Profile(UP, "sub-2", "maria", frozenset(), ()))

    first, second = await asyncio.gather(arrive(), arrive())
    assert first.user_id == second.user_id
    async with world.database.read() as tx:
        row = await store.get_user(tx, first.user_id)
    assert row is not None
    assert row.name == "maria@up"  # there is a maria
