"""A running OpenStack: started from a copy of the template, or from nothing to make the template."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.support.openstack import configs
from tests.support.openstack.layout import DATABASES, PASSWORD, PORTS, Layout
from tests.support.openstack.processes import Processes

Command = Sequence[str | Path]
INSIDE = Path(__file__).resolve().parent / "inside"
APPLICATIONS = {
    "keystone": "keystone.wsgi.api",
    "placement": "placement.wsgi.api",
    "glance": "glance.wsgi.api",
    "neutron": "neutron.wsgi.api",
}
MARIADB = (
    "--bind-address={address} --port={port} --datadir={root}/mysql --socket={root}/mysql.sock "
    "--pid-file={root}/mysql.pid "
    "--user=root --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --sync-binlog=0 "
    "--innodb-buffer-pool-size=64M --performance-schema=0 --max-connections=300 --skip-name-resolve "
    "--innodb-flush-method=nosync --log-error={root}/log/mariadb.log"
)


class Cloud:
    """One OpenStack. :meth:`stop` ends all of it."""

    def __init__(self, place: Layout) -> None:
        self.place = place
        configs.write(place)
        self.processes = Processes(place.logs, place.environ)

    @property
    def auth_url(self) -> str:
        return self.place.url("keystone") + "/v3"

    def start(self) -> None:
        """All services; they answer when this returns."""
        self.start_database()
        for name in APPLICATIONS:
            self._serve(name)
        # Nova needs placement and keystone when its compute service starts, and retries until they answer.
        address, python = self.place.address, self.place.program("python")
        for name in ("nova", "cinder"):
            self.processes.start(name, [python, INSIDE / f"{name}_all.py", address, str(PORTS[name])])
        for name in (*APPLICATIONS, "nova", "cinder"):
            self.processes.wait(name, partial(answers, self.place.url(name)))

    def stop(self, *, gently: bool = False) -> None:
        self.processes.stop(gently=gently)

    def forget_hypervisors(self) -> None:
        """As before nova's compute service started for the first time: it refuses a host that others have seen."""
        self.processes.end("nova")
        self.sql("SET FOREIGN_KEY_CHECKS = 0", *(f"TRUNCATE {table}" for table in _HYPERVISOR_TABLES))

    # --- the database -------------------------------------------------------------------------------------------

    def create_database(self) -> None:
        """An empty one, that lets this address's own user do everything."""
        data, root = self.place.root / "mysql", self.place.root
        self.processes.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ]
        )
        statements = [
            "FLUSH PRIVILEGES;",
            "CREATE USER 'hansa'@'127.%';",
            "GRANT ALL ON *.* TO 'hansa'@'127.%' WITH GRANT OPTION;",
            *(f"CREATE DATABASE {name} CHARACTER SET utf8;" for name in DATABASES),
        ]
        command = ["mariadbd", "--no-defaults", "--bootstrap", *self._mariadb_options()]
        done = subprocess.run(
            command, input="\n".join(statements), cwd=root, text=True, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"MariaDB could not be set up: {done.stderr[-2000:]}")

    def start_database(self) -> None:
        if "mariadb" in self.processes.running:
            return
        self.processes.start("mariadb", ["mariadbd", "--no-defaults", *self._mariadb_options()])
        self.processes.wait("mariadb", lambda: listens(self.place.address, PORTS["mariadb"]))

    def _mariadb_options(self) -> list[str]:
        return MARIADB.format(address=self.place.address, port=PORTS["mariadb"], root=self.place.root).split()

    def sql(self, *statements: str) -> None:
        command: Command = [self.place.program("python"), INSIDE / "sql.py", self.place.address, str(PORTS["mariadb"])]
        subprocess.run(command, input="\n".join(statements), text=True, check=True, cwd=self.place.root)

    # --- from nothing -------------------------------------------------------------------------------------------

    def create_schemas(self) -> None:
        """The tables of all services, two services at a time."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._create_schema, ("neutron", "nova", "cinder", "keystone", "glance", "placement")))

    def _create_schema(self, service: str) -> None:
        for program, config, words in _SCHEMAS[service]:
            command: Command = [self.place.program(program), "--config-file", self.place.etc / config]
            self.processes.run([*command, *words.format(cell0=self.place.database("nova_cell0")).split()])

    def bootstrap_keystone(self) -> None:
        """The administrator, and keystone in its own catalogue; keystone runs afterwards."""
        url = self.auth_url
        manage: Command = [
            *(self.place.program("keystone-manage"), "--config-file", self.place.etc / "keystone.conf", "bootstrap"),
            *("--bootstrap-password", PASSWORD, "--bootstrap-username", "admin", "--bootstrap-project-name", "admin"),
            *("--bootstrap-role-name", "admin", "--bootstrap-service-name", "keystone"),
            *("--bootstrap-region-id", "RegionOne", "--bootstrap-public-url", url),
            *("--bootstrap-internal-url", url, "--bootstrap-admin-url", url),
        ]
        self.processes.run(manage)
        self._serve("keystone")
        self.processes.wait("keystone", lambda: answers(self.auth_url))

    def _serve(self, name: str) -> None:
        if name not in self.processes.running:
            python, address = self.place.program("python"), self.place.address
            command: Command = [python, INSIDE / "serve.py", APPLICATIONS[name], address, str(PORTS[name])]
            self.processes.start(name, command)


_HYPERVISOR_TABLES = (
    *("nova.services", "nova.compute_nodes", "nova_api.host_mappings"),
    *("placement.resource_providers", "placement.inventories", "placement.allocations"),
    *("placement.resource_provider_traits", "placement.resource_provider_aggregates"),
)
_KEYS = "--keystone-user root --keystone-group root"
_SCHEMAS = {
    "keystone": [
        ("keystone-manage", "keystone.conf", f"fernet_setup {_KEYS}"),
        ("keystone-manage", "keystone.conf", f"credential_setup {_KEYS}"),
        ("keystone-manage", "keystone.conf", "db_sync"),
    ],
    "glance": [("glance-manage", "glance-api.conf", "db_sync")],
    "placement": [("placement-manage", "placement.conf", "db sync")],
    "cinder": [("cinder-manage", "cinder.conf", "db sync")],
    "neutron": [("neutron-db-manage", "neutron.conf", "upgrade heads")],
    "nova": [
        ("nova-manage", "nova.conf", "api_db sync"),
        ("nova-manage", "nova.conf", "cell_v2 map_cell0 --database_connection {cell0}"),
        ("nova-manage", "nova.conf", "db sync"),
        ("nova-manage", "nova.conf", "cell_v2 create_cell --name cell1"),
    ],
}


def answers(url: str) -> bool:
    """Whether something behind the address speaks HTTP and is not broken."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False


def listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False
