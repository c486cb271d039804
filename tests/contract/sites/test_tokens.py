"""With what a site is looked at for a VO: the VO's credential, a token of whose business the site is, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from hansa.identity import vo_store
from hansa.identity.access import read_part
from hansa.identity.authority import AuthorityService
from hansa.identity.keys import Keys
from hansa.identity.provider.service import ProviderService
from hansa.identity.upstream.issuers import read_issuers
from hansa.identity.upstream.remote import Remote
from hansa.identity.wire import NewSiteCredential
from hansa.kernel.settings import IdentitySettings
from hansa.sites.kinds.base import Target, parse_settings
from hansa.sites.kinds.openstack_look import credential
from hansa.sites.model import VoAccess
from hansa.sites.tokens import LASTS, SiteTokens
from tests.support.siteworld import KEYSTONE, URL, SiteWorld, cloud

VO, SITE = "vo.a", "NEBULA"


class Tokens:
    def __init__(self, world: SiteWorld) -> None:
        self.world = world
        settings = IdentitySettings()
        keys = Keys(world.database, world.events, world.clock, world.vault, settings.access_token_s)
        self.provider = ProviderService(world.database, world.events, world.clock, URL, keys, settings)
        issuers = read_issuers({}, self.provider.issuer)
        remote = Remote(world.clock, settings.away_s)
        self.authority = AuthorityService(world.database, world.events, world.clock, world.vault, issuers, remote)
        self.service = SiteTokens(world.database, world.clock, self.authority, self.provider)

    async def open(self, *managers: str) -> Tokens:
        """A site of ada's that serves a VO, whose members are ada and bob."""
        world = self.world
        await world.vo(VO, world.ada, world.bob)
        async with world.database.begin() as tx:
            for name in managers:
                await vo_store.update_member(tx, VO, f"user_{name}", roles=["manager"])
        await world.registry.add(world.olga, cloud())
        return self

    async def equip(self, vo: str | None = VO, people: Sequence[str] = (), **settings: Any) -> Target:
        given = {"issuer": self.provider.issuer} | settings
        target = Target("e", SITE, "openstack", KEYSTONE, parse_settings("openstack", given), vos={VO: VoAccess(VO)})
        return await self.service.equip(target, vo, people)


@pytest.fixture
def tokens(world: SiteWorld) -> Tokens:
    return Tokens(world)


async def test_a_site_that_trusts_this_server_gets_a_token_of_its_administrator_in_the_vo(tokens: Tokens) -> None:
    await tokens.open()
    found = await tokens.equip()
    assert found.token
    assert found.holder == "user_ada"
    claims = read_part(found.token, 1)
    assert (claims["sub"], claims["iss"], claims["aud"]) == ("user_ada", tokens.provider.issuer, [KEYSTONE])
    assert any(f"group:{VO}" in one for one in claims["eduperson_entitlement"])
    assert found.token not in repr(found)


async def test_the_token_is_good_for_nothing_here_and_is_used_again_while_it_lasts(tokens: Tokens) -> None:
    await tokens.open()
    first = await tokens.equip()
    assert first.token
    token = await tokens.provider.validate(first.token)
    assert token is not None
    assert tokens.provider.url not in token.audience
    assert (await tokens.equip()).token == first.token
    tokens.world.clock.advance(LASTS.total_seconds())
    assert (await tokens.equip()).token != first.token


async def test_without_an_administrator_in_the_vo_it_is_a_manager_of_the_vo(tokens: Tokens) -> None:
    await tokens.open("bob")
    async with tokens.world.database.begin() as tx:
        await vo_store.delete_member(tx, VO, "user_ada")
    assert (await tokens.equip()).holder == "user_bob"
    assert (await tokens.equip(people=["user_olga"])).holder == "user_olga"


async def test_no_token_goes_to_a_site_that_does_not_trust_its_issuer(tokens: Tokens) -> None:
    await tokens.open("bob")
    found = await tokens.equip(issuer="https://aai.egi.eu/auth/realms/egi")
    assert (found.token, found.credential) == (None, {})
    assert credential(found, VO) is None


async def test_the_credential_of_the_vo_goes_before_all_tokens(tokens: Tokens) -> None:
    await tokens.open("bob")
    fields = NewSiteCredential({"id": "i", "secret": "hush"}, tokens.world.clock.now() + timedelta(days=1))
    await tokens.authority.set_site_credential(tokens.world.bob, VO, SITE, fields)
    found = await tokens.equip()
    assert found.token is None
    made: Any = credential(found, VO)
    assert (made.id, made.secret) == ("i", "hush")
    assert "hush" not in repr(made)
    tokens.world.clock.advance(86_401)
    assert (await tokens.equip()).token is not None
