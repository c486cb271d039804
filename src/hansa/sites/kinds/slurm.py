"""A Slurm cluster, by its login node."""

from __future__ import annotations

from pydantic import Field

from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Requirement, Stage, Target
from hansa.sites.kinds.ssh import SshSettings, ssh_needs
from hansa.sites.wire import Facts


class SlurmSettings(SshSettings):
    """How the login node is reached, and how jobs are to be sent."""

    partition: str | None = Field(default=None, max_length=200)
    """Partition for pilots. Default: the cluster's own default."""
    account: str | None = Field(default=None, max_length=200)
    """Account to charge. Default: the VO's project, else the user's own default."""
    qos: str | None = Field(default=None, max_length=200)
    """Quality of service."""
    constraint: str | None = Field(default=None, max_length=500)
    """Features that nodes must have (``sbatch --constraint``)."""
    reservation: str | None = Field(default=None, max_length=200)
    """Reservation to use."""
    extra: list[str] = Field(default_factory=list, max_length=50)
    """More options of ``sbatch``, a word each."""
    transport: str = Field(default="auto", pattern="^(auto|https|ssh|spool)$")
    """How pilots reach this server: ``https``, through the ``ssh`` connection, a ``spool`` on the shared file
    system; ``auto`` tries them in this order."""
    max_pilots: int = Field(default=20, ge=1, le=10_000)
    """Pilots that may wait or run here at a time."""


class SlurmKind:
    """A Slurm cluster."""

    name = "slurm"
    settings: type[KindSettings] = SlurmSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        base = ssh_needs(target.settings, probe_s, discover_s)
        more = Requirement("role", "sbatch, squeue, scancel, scontrol and sinfo for that user.")
        load = Requirement("load", "squeue: twice a minute while jobs wait or run here.")
        return Needs((*base.requirements, more, load), base.calls_per_hour + 120)

    async def probe(self, target: Target) -> Finding:  # noqa: ARG002
        return Finding(Answer.UNKNOWN, Stage.REACH, "This server cannot look at clusters behind SSH yet.")

    async def discover(self, target: Target, vo: str | None) -> Facts:  # noqa: ARG002
        return Facts()
