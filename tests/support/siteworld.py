"""Sites over one database and one clock, with an operator and two users."""

from __future__ import annotations

from typing import Any

from hansa.identity import store as identity_store
from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database
from hansa.kernel.events import EventLog
from hansa.kernel.secrets import Vault
from hansa.sites.model import SiteView
from hansa.sites.registry import SiteRegistry
from hansa.sites.service import SiteService
from hansa.sites.wire import NewAccess, NewEndpoint, NewSite

URL = "https://hansa.example.org"
KEYSTONE = "https://keystone.example.org:5000/v3"


class SiteWorld:
    def __init__(self, database: Database, clock: Any = None) -> None:
        self.database = database
        self.clock = clock or ManualClock()
        self.events = EventLog(database, self.clock)
        self.vault = Vault([b"k" * 32])
        self.sites = SiteService(database, self.events, self.clock, self.vault)
        self.registry = SiteRegistry(database, self.events, self.clock, self.vault, is_embedded=False)
        self.olga = Caller("user_olga", "olga", is_operator=True)
        self.ada = Caller("user_ada", "ada")
        self.bob = Caller("user_bob", "bob")

    async def start(self) -> SiteWorld:
        now = self.clock.now()
        async with self.database.begin() as tx:
            for one in (self.olga, self.ada, self.bob):
                row = {"issuer": URL, "sub": one.name, "operator": one.is_operator, "suspended": False}
                await identity_store.insert_user(tx, id=one.user_id, name=one.name, created=now, **row)
        return self

    async def vo(self, name: str, *members: Caller) -> None:
        now = self.clock.now()
        async with self.database.begin() as tx:
            await vo_store.insert_vo(tx, name=name, description="", created_by="hansa", created=now, suspended=None)
            for one in members:
                row: dict[str, Any] = {"vo": name, "user_id": one.user_id, "roles": [], "groups": [], "since": now}
                await vo_store.insert_member(tx, **row, suspended=None, suspended_why=None)

    async def serving(self, who: Caller, *vos: str) -> list[SiteView]:
        async with self.database.read() as tx:
            return list(await self.sites.serving(tx, who.user_id, vos))


def cloud(name: str = "NEBULA", **more: Any) -> NewSite:
    """A cloud that serves vo.a and vo.b, administered by ada."""
    endpoint = NewEndpoint("openstack", url=KEYSTONE, vos={"vo.a": "p1", "vo.b": NewAccess("p2", {"region": "north"})})
    return NewSite(name, [endpoint], **{"admins": ["ada"], **more})
