"""One's own computer and cluster, over a real OpenSSH server: added by one word, seen, lapsed, signed in again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.engines.ssh import OpensshShell
from hansa.kernel.database import Database, open_database
from hansa.kernel.errors import Fault
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import SiteSettings
from hansa.sites.controller import EndpointRoom
from hansa.sites.kinds.base import kind_of
from hansa.sites.kinds.ssh import own_options
from hansa.sites.own import OwnSiteService
from hansa.sites.registry import SiteRegistry
from hansa.sites.wire import OwnSite
from tests.contract.conftest import create_schema
from tests.support.siteworld import SiteWorld
from tests.support.sshd import Sshd

FAKE_SINFO = """#!/bin/sh
echo 'main*|3|32|64000|gpu:a100:2|2-00:00:00|10/80/6/96|up'
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    tools = folder / "bin"
    tools.mkdir()
    for name, text in {
        "sinfo": FAKE_SINFO,
        "scontrol": "#!/bin/sh\necho 'Slurmctld(primary) at login is UP'\n",
        "sbatch": "#!/bin/sh\n",
        "squeue": "#!/bin/sh\n",
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    server = Sshd(folder, {"PATH": f"{tools}:{os.environ['PATH']}"}).start()
    yield server
    server.stop()


@pytest.fixture
def config(sshd: Sshd, tmp_path: Path) -> Path:
    (tmp_path / "known_hosts").write_text(sshd.known_hosts)
    file = tmp_path / "config"
    file.write_text(
        f"Host mycluster\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.folder}/user_key\n  IdentitiesOnly yes\n  UserKnownHostsFile {tmp_path}/known_hosts\n"
    )
    return file


class Own:
    """Ada's own server."""

    def __init__(self, database: Database, sockets: Path) -> None:
        self.world = world = SiteWorld(database)
        self.sockets = sockets
        policy = EgressPolicy(allow_private=True)
        registry = SiteRegistry(database, world.events, world.clock, world.vault, is_embedded=True, egress=policy)
        self.service = OwnSiteService(registry, database, world.clock, sockets, is_embedded=True)
        room = EndpointRoom(kind_of, world.events, world.clock, world.vault, SiteSettings(), policy, sockets)
        self.engine = Engine(database, world.clock, room)

    async def shell(self, config: Path) -> OpensshShell:
        from hansa.sites.kinds.ssh import SshSettings

        settings = SshSettings(host="mycluster", own_config=True, config=str(config))
        return OpensshShell("mycluster", self.sockets, own_options(settings))


@pytest.fixture
async def own(tmp_path: Path, config: Path) -> AsyncIterator[Own]:
    database = await open_database(f"sqlite:///{tmp_path}/hansa.db")
    await create_schema(database)
    made = Own(database, tmp_path / "s")
    await made.world.start()
    yield made
    await (await made.shell(config)).close()
    await database.close()


async def test_a_cluster_of_ones_own_from_one_word_to_a_lapsed_login(own: Own, config: Path) -> None:
    ada = own.world.ada
    shown = await own.service.add(ada, OwnSite("mycluster", config=str(config)))
    assert (shown.name, shown.kind, shown.visibility, shown.my_roles) == ("mycluster", "slurm", "owner", ["owner"])
    await own.engine.run_once()
    (view,) = await own.world.serving(ada)
    end = view.endpoints[0]
    assert (end.health.phase, end.health.reason) == ("up", "sites.up")
    facts = end.facts_of(None)
    assert facts is not None
    (main,) = facts.partitions
    assert (main.name, main.is_default, main.cores, main.idle_cores, main.gpus) == ("main", True, 96, 80, ["a100"] * 2)
    assert await own.world.serving(own.world.olga) == []

    # the login lapses: neither the shared connection nor the key is good any more
    await (await own.shell(config)).close()
    text = config.read_text()
    config.write_text(text.replace("user_key", "host_key"))
    await own.service.look(ada, "mycluster")
    await own.engine.run_once()
    (view,) = await own.world.serving(ada)
    health = view.endpoints[0].health
    assert (health.phase, health.waiting_on, health.reason) == ("login", "user", "sites.login")
    assert "hansa site login mycluster" in health.message
    assert view.status.phase == "failing"
    with pytest.raises(Fault) as fault:
        await own.service.add(ada, OwnSite("mycluster", "again", str(config)))
    assert fault.value.code.code == "sites.login"

    # signed in by hand once (as with a one-time password), all commands share that connection
    config.write_text(text)
    assert subprocess.run((await own.shell(config)).login(), timeout=60, check=False).returncode == 0
    config.write_text(text.replace("user_key", "host_key"))
    await own.service.look(ada, "mycluster")
    await own.engine.run_once()
    (view,) = await own.world.serving(ada)
    assert view.endpoints[0].health.phase == "up"
    with pytest.raises(Fault):
        await own.service.look(own.world.bob, "mycluster")


async def test_a_host_that_nobody_knows_and_one_that_is_an_option(own: Own, config: Path) -> None:
    config.write_text(config.read_text().replace("known_hosts", "nothing"))
    with pytest.raises(Fault) as fault:
        await own.service.add(own.world.ada, OwnSite("mycluster", config=str(config)))
    assert fault.value.code.code == "sites.ssh"
    with pytest.raises(Fault) as fault:
        await own.service.add(own.world.ada, OwnSite("-oProxyCommand=touch /tmp/owned"))
    assert fault.value.code.code == "sites.settings"
