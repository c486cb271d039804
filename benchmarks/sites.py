"""Sites: importing the EGI federation's 25 (budget 1 s), probing 100 endpoints that take 200 ms each (budget 2 s)."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import yaml
from tests.contract.conftest import create_schema
from tests.support.fakekind import FakeKind, public

from benchmarks.harness import Better, Row, rounded
from hansa.engines.egress import EgressPolicy
from hansa.identity import store as identity_store
from hansa.identity.model import Caller
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import Database, metadata, open_database
from hansa.kernel.events import EventLog
from hansa.kernel.reconcile import Engine
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import SiteSettings
from hansa.server import tables as _tables
from hansa.sites import store
from hansa.sites.controller import EndpointRoom
from hansa.sites.registry import SiteRegistry
from hansa.sites.wire import ImportRequest, NewEndpoint, NewSite

assert metadata is _tables.metadata
DATA = Path(os.environ.get("HANSA_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "egi-sites"
OPERATOR = Caller("user_op", "olga", is_operator=True)
TAKES_S = 0.2
EGRESS = EgressPolicy(resolve=public)


@dataclass
class Took:
    """Seconds, and of how many."""

    import_s: float = 0.0
    imported: int = 0
    probe_s: float = 0.0
    endpoints: int = 0


async def measure(endpoints: int) -> Took:
    found = Took()
    with tempfile.TemporaryDirectory() as scratch:
        database = await open_database(f"sqlite:///{scratch}/hansa.db")
        try:
            await create_schema(database)
            clock = SystemClock()
            events = EventLog(database, clock)
            vault = Vault([b"k" * 32])
            registry = SiteRegistry(database, events, clock, vault, is_embedded=False)
            async with database.begin() as tx:
                row = {"issuer": "x", "sub": "olga", "name": "olga", "operator": True, "suspended": False}
                await identity_store.insert_user(tx, id="user_op", created=clock.now(), **row)
            if DATA.is_dir():
                began = time.perf_counter()
                report = await registry.import_sites(OPERATOR, read_egi(DATA))
                found.import_s = time.perf_counter() - began
                found.imported = sum(one.endpoints for one in report.items)
                async with database.begin() as tx:
                    for one in report.items:
                        await store.delete(tx, one.site)
            for number in range(endpoints):
                end = NewEndpoint("openstack", url="https://k.example.org/v3", vos={"vo.a": None})
                await registry.add(OPERATOR, NewSite(f"fake-{number}", [end]))
            kind = FakeKind(takes_s=TAKES_S, tells_s=0.0)
            room = EndpointRoom(lambda _: kind, events, clock, vault, SiteSettings(), EGRESS)
            engine = Engine(database, clock, room)
            began = time.perf_counter()
            running = asyncio.create_task(engine.run())
            while not await all_seen(database):
                await asyncio.sleep(0.02)
            found.probe_s = time.perf_counter() - began
            found.endpoints = len(kind.probes)
            engine.stop()
            await running
        finally:
            await database.close()
    return found


async def all_seen(database: Database) -> bool:
    """Whether each endpoint has been probed, and asked what it has."""
    query = sa.select(sa.func.count()).select_from(store.endpoints)
    async with database.read() as tx:
        return (await tx.execute(query.where(store.endpoints.c.phase == "unknown"))).scalar() == 0


def read_egi(folder: Path) -> ImportRequest:
    """The files of the federation, read as the command line does (part of the budget)."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = {one.name: yaml.load(one.read_bytes(), loader) for one in sorted((folder / "sites").glob("*.yaml"))}
    return ImportRequest(documents, yaml.load((folder / "vo-mappings.yaml").read_bytes(), loader)["vos"])


def run(quick: bool) -> list[Row]:
    """Both once each; the import only where the federation's files lie beside the checkout."""
    took = asyncio.run(measure(100))
    rows = []
    if took.imported:
        work = f"import the EGI federation's {took.imported} sites"
        rows.append(Row(work, "s", Better.LOWER, rounded(took.import_s), {}, 1.0))
    work = f"probe {took.endpoints} endpoints that take 200 ms each"
    return [*rows, Row(work, "s", Better.LOWER, rounded(took.probe_s), {}, 2.0)]
