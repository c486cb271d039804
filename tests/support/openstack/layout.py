"""Where everything of one OpenStack is: its directory, its loopback address, its ports."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "secret"
DATABASES = ("keystone", "glance", "placement", "nova", "nova_api", "nova_cell0", "neutron", "cinder")
PORTS = {
    "keystone": 23500,
    "glance": 23929,
    "placement": 23877,
    "nova": 23874,
    "neutron": 23969,
    "cinder": 23776,
    "mariadb": 23306,
    "front": 23580,
    "issuer": 23701,
}
"""Below what the kernel gives to clients. Two environments differ in the address, not in the ports."""


def some_address() -> str:
    """A loopback address of its own."""
    chance = random.SystemRandom()
    return f"127.{chance.randrange(1, 255)}.{chance.randrange(255)}.{chance.randrange(2, 255)}"


@dataclass(frozen=True)
class Layout:
    root: Path
    address: str
    venv: Path

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    def url(self, service: str) -> str:
        return f"http://{self.address}:{PORTS[service]}"

    def database(self, name: str) -> str:
        return f"mysql+pymysql://hansa@{self.address}:{PORTS['mariadb']}/{name}?charset=utf8"

    def program(self, name: str) -> Path:
        return self.venv / "bin" / name

    @property
    def environ(self) -> dict[str, str]:
        """What tells the services where their configuration is."""
        etc = str(self.etc)
        return {
            "OS_KEYSTONE_CONFIG_FILES": f"{etc}/keystone.conf",
            "OS_KEYSTONE_CONFIG_DIR": etc,
            "OS_GLANCE_CONFIG_FILES": f"{etc}/glance-api.conf",
            "OS_GLANCE_CONFIG_DIR": etc,
            "OS_PLACEMENT_CONFIG_DIR": etc,
            "OS_NOVA_CONFIG_DIR": etc,
            "OS_NOVA_CONFIG_FILES": "nova-api-paste.ini;nova.conf",
            "OS_NEUTRON_CONFIG_DIR": etc,
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            "OS_CINDER_CONFIG_DIR": etc,
            "PYTHONPATH": str(self.root / "ext"),
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
        }
