"""Any other cloud that Apache Libcloud has a driver for."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.wire import Facts


class LibcloudSettings(KindSettings):
    """Which driver of Apache Libcloud, and what it is told."""

    provider: str = Field(min_length=1, max_length=100)
    """Its name in ``libcloud.compute.types.Provider``, as ``ec2`` or ``gce``."""
    region: str | None = Field(default=None, max_length=200)
    """Region."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the driver. No secrets: those belong into the credential (``key``, ``secret``)."""
    image_owner: str | None = Field(default=None, max_length=200)
    """Whose VM images are listed, where the cloud has millions."""
    subnet: str | None = Field(default=None, max_length=200)
    """Subnet for machines."""


class LibcloudKind:
    """A cloud by Apache Libcloud."""

    name = "libcloud"
    settings: type[KindSettings] = LibcloudSettings
    has_url = True

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        return Needs(
            (
                Requirement("role", "A key that may create, list and delete machines, addresses and key pairs."),
                Requirement("firewall", f"TCP 443 from this server to the API of {target.settings.provider}."),
            ),
            round(3600 / probe_s + 4 * 3600 / discover_s),
        )

    async def probe(self, target: Target) -> Finding:  # noqa: ARG002
        return Finding(Answer.UNKNOWN, Stage.REACH, "This server cannot look at clouds of Libcloud yet.")

    async def discover(self, target: Target, vo: str | None) -> Facts:  # noqa: ARG002
        return Facts()
