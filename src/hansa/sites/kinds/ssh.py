"""A computer that is reached by SSH: a workstation, a server."""

from __future__ import annotations

from pydantic import Field

from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.wire import Facts


class SshSettings(KindSettings):
    """How a computer is reached."""

    host: str = Field(min_length=1, max_length=253)
    """Its name: a host name, or with ``own_config`` an entry ``Host`` of the owner's ``~/.ssh/config``."""
    port: int = Field(default=22, ge=1, le=65535)
    """TCP port."""
    user: str | None = Field(default=None, max_length=100)
    """User there. Default: of the SSH configuration, else of the VO's settings."""
    jump: str | None = Field(default=None, max_length=253)
    """Host to go through, as ``user@gate.example.org:22``."""
    own_config: bool = False
    """Whether the owner's own OpenSSH is used, with ``~/.ssh/config``, agent and one-time passwords. Only on the
    owner's own server."""
    known_hosts: str | None = None
    """Lines of ``known_hosts`` with the keys of the host. Default: those of the owner (``own_config``)."""
    folder: str = Field(default="~/.hansa", max_length=1000)
    """Where Hansa may put its files there."""


class SshKind:
    """One computer behind SSH."""

    name = "ssh"
    settings: type[KindSettings] = SshSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        return ssh_needs(target.settings, probe_s, discover_s)

    async def probe(self, target: Target) -> Finding:  # noqa: ARG002
        return Finding(Answer.UNKNOWN, Stage.REACH, "This server cannot look at computers behind SSH yet.")

    async def discover(self, target: Target, vo: str | None) -> Facts:  # noqa: ARG002
        return Facts()


def ssh_needs(settings: SshSettings, probe_s: float, discover_s: float) -> Needs:
    """What any endpoint behind SSH must allow."""
    where = settings.jump or f"{settings.host}:{settings.port}"
    return Needs(
        (
            Requirement("role", f"A login as {settings.user or 'the user of each VO'} with a key, without a password."),
            Requirement("firewall", f"TCP from this server to {where}."),
            Requirement("role", f"Files below {settings.folder}, and processes of that user."),
        ),
        round(3600 / probe_s + 3600 / discover_s),
    )
