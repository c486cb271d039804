"""Identity's stores and services on both dialects."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hansa.identity import store, vo_store
from hansa.identity.accounts import AccountService
from hansa.identity.keys import Keys, rewrap_keys
from hansa.identity.model import Caller, Membership, Role
from hansa.identity.provider import desk as d
from hansa.identity.provider import store as provider_store
from hansa.identity.provider.service import ProviderService
from hansa.identity.vos import VoService
from hansa.identity.wire import MemberChange, NewInvitation, NewUser, NewVo
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.secrets import Vault, token_hash
from hansa.kernel.settings import IdentitySettings

URL = "https://hansa.example.org"
SETTINGS = IdentitySettings()
OPERATOR = Caller("user_op", "olga", is_operator=True)
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class World:
    """The services over one database and one clock."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        events = EventLog(database, self.clock)
        self.vault = Vault([b"k" * 32])
        self.keys = Keys(database, events, self.clock, self.vault, SETTINGS.access_token_s)
        self.provider = ProviderService(database, events, self.clock, URL, self.keys, SETTINGS)
        self.accounts = AccountService(database, events, self.clock, URL, URL, SETTINGS)
        self.vos = VoService(database, events, self.clock, URL, URL, SETTINGS)

    async def user(self, name: str) -> Caller:
        await self.accounts.invite_user(OPERATOR, NewUser(name))
        async with self.database.read() as tx:
            row = await store.find_user(tx, URL, name)
        assert row is not None
        return Caller(row.id, name)

    async def joined(self, name: str, vo: str, **invitation: Any) -> Caller:
        caller = await self.user(name)
        link = (await self.vos.invite(OPERATOR, vo, NewInvitation(**invitation))).link
        await self.vos.join(caller, link.partition("=")[2])
        return caller

    async def vo_of(self, caller: Caller, asked: str | None = None) -> str | None:
        async with self.database.begin() as tx:
            return await self.vos.check_may_start(tx, caller, asked)

    async def signed_in(self, caller: Caller, scope: str = "openid offline_access hansa") -> dict[str, Any]:
        """Tokens, by the device flow."""
        fields = [("client_id", "hansa-cli"), ("scope", scope)]
        started = (await self.provider.endpoint("device_authorization", fields, {})).body
        secret = await self.provider.open_session(caller.user_id)
        session = await self.provider.find_session(secret)
        assert session is not None
        assert await self.provider.decide_device(started["user_code"], session, approved=True)
        answer = await self.token(grant_type=DEVICE, device_code=started["device_code"])
        assert "access_token" in answer, answer
        return answer

    async def token(self, **fields: str) -> dict[str, Any]:
        answer = await self.provider.token([("client_id", "hansa-cli"), *fields.items()], {})
        return dict(answer.body)

    async def refresh(self, token: str) -> dict[str, Any]:
        return await self.token(grant_type="refresh_token", refresh_token=token)


@pytest.fixture
async def world(database: Database) -> World:
    made = World(database)
    async with database.begin() as tx:
        row = {"issuer": URL, "sub": "olga", "name": "olga", "operator": True, "suspended": False}
        await store.insert_user(tx, id="user_op", created=made.clock.now(), **row)
    return made


def code_of(fault: pytest.ExceptionInfo[Fault]) -> str:
    return fault.value.code.code


async def test_a_vo_from_its_creation_to_its_suspension(world: World) -> None:
    await world.vos.create(OPERATOR, NewVo("vo.a", "Galaxies"))
    await world.vos.add_group(OPERATOR, "vo.a", "astro")
    ada = await world.joined("ada", "vo.a", roles=["vm-operator"], groups=["astro"])
    seen = await world.vos.get(ada, "vo.a")
    assert (seen.members, seen.my_roles, seen.my_groups) == (2, ["member", "vm-operator"], ["astro"])
    assert seen.membership == "invitation"
    assert await world.vo_of(ada) == "vo.a"
    await world.vos.suspend(OPERATOR, "vo.a", "The grant has ended", suspended=True)
    with pytest.raises(Fault) as fault:
        await world.vo_of(ada)
    assert code_of(fault) == "identity.vo_suspended"
    assert (await world.vos.get(ada, "vo.a")).suspended_why == "The grant has ended"
    await world.vos.suspend(OPERATOR, "vo.a", "", suspended=False)
    await world.vos.suspend_member(OPERATOR, "vo.a", "ada", "Left", suspended=True)
    with pytest.raises(Fault, match="Your membership"):
        await world.vo_of(ada, "vo.a")
    with pytest.raises(Fault) as fault:
        await world.vos.suspend(ada, "vo.a", "", suspended=True)
    assert code_of(fault) == "identity.forbidden"


async def test_members_see_their_vos_only(world: World) -> None:
    for name in ("vo.a", "vo.b", "vo.c"):
        await world.vos.create(OPERATOR, NewVo(name))
    ada = await world.joined("ada", "vo.b")
    assert [vo.name for vo in (await world.vos.list_vos(ada, None, 10)).items] == ["vo.b"]
    first = await world.vos.list_vos(OPERATOR, None, 2)
    assert [vo.name for vo in first.items] == ["vo.a", "vo.b"]
    assert [vo.name for vo in (await world.vos.list_vos(OPERATOR, first.next, 2)).items] == ["vo.c"]
    for call in (world.vos.get(ada, "vo.a"), world.vos.members(ada, "vo.a", None, 10), world.vos.get(ada, "none")):
        with pytest.raises(Fault) as fault:
            await call
        assert code_of(fault) == "identity.no_such_vo"
    with pytest.raises(Fault) as fault:
        await world.vos.invite(ada, "vo.b", NewInvitation())
    assert code_of(fault) == "identity.forbidden"
    assert [member.name for member in (await world.vos.members(ada, "vo.b", None, 10)).items] == ["ada", "olga"]


async def test_a_vo_keeps_a_manager(world: World) -> None:
    await world.vos.create(OPERATOR, NewVo("vo.a"))
    ada = await world.joined("ada", "vo.a")
    changes = (
        world.vos.change_member(OPERATOR, "vo.a", "olga", MemberChange(roles=[])),
        world.vos.remove_member(OPERATOR, "vo.a", "olga"),
        world.vos.suspend_member(OPERATOR, "vo.a", "olga", "", suspended=True),
    )
    for change in changes:
        with pytest.raises(Fault) as fault:
            await change
        assert code_of(fault) == "identity.last_manager"
    assert (await world.vos.change_member(OPERATOR, "vo.a", "ada", MemberChange(roles=["manager"]))).roles == [
        "member",
        "manager",
    ]
    await world.vos.remove_member(ada, "vo.a", "olga")
    await world.vos.create(OPERATOR, NewVo("vo.b"))
    bob = await world.joined("bob", "vo.a")
    await world.vos.remove_member(bob, "vo.a", "bob")  # everybody may leave
    async with world.database.read() as tx:
        assert await vo_store.memberships(tx, ada.user_id) == (Membership("vo.a", frozenset({Role.MANAGER})),)


async def test_an_invitation_is_used_once_and_expires(world: World) -> None:
    await world.vos.create(OPERATOR, NewVo("vo.a"))
    ada, bob = await world.user("ada"), await world.user("bob")
    token = (await world.vos.invite(OPERATOR, "vo.a", NewInvitation())).link.partition("=")[2]
    both = await asyncio.gather(world.vos.join(ada, token), world.vos.join(bob, token), return_exceptions=True)
    assert sorted(isinstance(one, Fault) for one in both) == [False, True]
    late = (await world.vos.invite(OPERATOR, "vo.a", NewInvitation(lasts_s=60))).link.partition("=")[2]
    world.clock.advance(61)
    with pytest.raises(Fault) as fault:
        await world.vos.join(bob, late)
    assert code_of(fault) == "identity.bad_invitation"


async def test_passwords_and_the_lock(world: World) -> None:
    link = (await world.accounts.invite_user(OPERATOR, NewUser("ada"))).link
    token = link.partition("=")[2]
    with pytest.raises(Fault, match="at least"):
        await world.accounts.accept_invitation(token, "short")
    user_id = await world.accounts.accept_invitation(token, "seven wild geese fly")
    login = world.accounts.login
    assert await login("ada", "seven wild geese fly", "a") == user_id
    for _ in range(5):
        assert await login("ada", "wrong", "a") is None
    assert await login("ada", "seven wild geese fly", "a") is None
    assert await login("ada", "seven wild geese fly", "b") == user_id
    world.clock.advance(6)
    assert await login("ada", "seven wild geese fly", "a") == user_id
    await world.accounts.suspend_user(OPERATOR, "ada", suspended=True)
    assert await login("ada", "seven wild geese fly", "b") is None
    world.clock.advance(90_000)
    await world.accounts.forget_failures()
    async with world.database.read() as tx:
        assert await store.find_failures(tx, ["address:a", "address:b"]) == {}


async def test_of_two_refreshes_at_once_one_wins_and_the_family_ends(world: World) -> None:
    ada = await world.user("ada")
    tokens = await world.signed_in(ada)
    both = await asyncio.gather(world.refresh(tokens["refresh_token"]), world.refresh(tokens["refresh_token"]))
    won = [one for one in both if "access_token" in one]
    assert len(won) == 1
    assert (await world.refresh(won[0]["refresh_token"]))["error"] == "invalid_grant"
    with pytest.raises(Fault) as fault:
        await world.provider.authenticate(won[0]["access_token"])
    assert code_of(fault) == "identity.bad_token"


async def test_sign_ins_end_by_themselves(world: World) -> None:
    ada = await world.user("ada")
    lasting, short = await world.signed_in(ada), await world.signed_in(ada, "openid hansa")
    for _ in range(3):
        world.clock.advance(20 * 86_400)
        fresh = await world.refresh(lasting["refresh_token"])
        assert "access_token" in fresh, fresh
        lasting = fresh
        await world.provider.forget_expired()
    assert (await world.refresh(short["refresh_token"]))["error"] == "invalid_grant"
    world.clock.advance(31 * 86_400)
    assert (await world.refresh(lasting["refresh_token"]))["error"] == "invalid_grant"
    world.clock.advance(3 * 86_400)
    await world.provider.forget_expired()
    async with world.database.begin() as tx:
        assert await provider_store.find_refresh(tx, token_hash(lasting["refresh_token"])) is None


async def test_an_access_token_ends_on_time_even_from_the_cache(world: World) -> None:
    token = (await world.signed_in(await world.user("ada")))["access_token"]
    assert (await world.provider.authenticate(token)).name == "ada"
    world.clock.advance(3599)
    assert (await world.provider.authenticate(token)).scopes == frozenset(("openid", "offline_access", "hansa"))
    world.clock.advance(1)
    with pytest.raises(Fault):
        await world.provider.authenticate(token)


async def test_keys_are_sealed_rotated_and_rewrapped(world: World) -> None:
    first = (await world.keys.signing_ring()).signer
    assert first is not None
    token = (await world.signed_in(await world.user("ada")))["access_token"]
    other = World(world.database)  # another server over the same database
    assert (await other.provider.authenticate(token)).name == "ada"
    world.clock.advance(2)
    second = await world.keys.rotate("user/olga")
    assert second != first.id
    other.clock.advance(2)
    late = (await world.signed_in(await world.user("bob")))["access_token"]
    assert (await other.provider.authenticate(late)).name == "bob"  # a key that it had not seen
    async with world.database.begin() as tx:
        assert await rewrap_keys(tx, Vault([b"n" * 32, b"k" * 32])) == 2
    renewed = World(world.database)
    renewed.clock.advance(2)
    with pytest.raises(Fault, match="master key"):
        await renewed.provider.authenticate(token)


async def test_who_is_suspended_at_one_server_is_out_at_all_at_once(world: World) -> None:
    ada = await world.user("ada")
    token, cookie = (await world.signed_in(ada))["access_token"], await world.provider.open_session(ada.user_id)
    other = World(world.database)
    for server in (world, other):  # both know the token by now
        assert (await server.provider.authenticate(token)).name == "ada"
        assert await server.provider.find_session(cookie) is not None
    await other.accounts.suspend_user(OPERATOR, "ada", suspended=True)
    for server in (world, other):
        with pytest.raises(Fault) as fault:
            await server.provider.authenticate(token)
        assert code_of(fault) == "identity.suspended"
        assert await server.provider.find_session(cookie) is None


async def test_two_servers_make_one_first_key(world: World) -> None:
    other = World(world.database)
    await asyncio.gather(world.keys.signing_ring(), other.keys.signing_ring())
    async with world.database.read() as tx:
        rows = await store.list_keys(tx)
    assert len([row for row in rows if row.retired is None]) == 1


async def test_effects_are_undone_together(world: World) -> None:
    now = world.clock.now()
    ada = await world.user("ada")
    grant = d.Grant("g1", ada.user_id, "c", "openid", now, now, now + timedelta(hours=1))
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with world.database.begin() as tx:
            await provider_store.apply(tx, [d.SaveGrant(grant), d.SaveRefresh("h", "g1", now)], now)
            raise RuntimeError
    async with world.database.read() as tx:
        assert await provider_store.get_grant(tx, "g1") is None


async def test_links_lead_to_this_server(world: World, tmp_path: Path) -> None:
    link = (await world.accounts.invite_user(OPERATOR, NewUser("ada"))).link
    assert urlsplit(link).netloc == "hansa.example.org"
