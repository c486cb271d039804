"""Whether what waits may still use its container image: its VO may have taken the registry off its list since.

No task is given out that its VO would refuse now. A job whose turn comes then is held, and waits for a manager of the
VO; its owner releases it once the registry is allowed again. What pilots have already goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hansa.images.endorsing import read_policy, refusal
from hansa.images.errors import REGISTRY
from hansa.images.wire import ImagePolicy
from hansa.jobs.needs import Needs
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.status import Party


class ImageRules:
    """What VOs allow, as one unit of work sees it: each policy is read once, and only where a job has an image."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._policies: dict[str, ImagePolicy] = {}
        self._held: list[tuple[Any, dict[str, Any]]] = []

    async def sort(
        self, tx: Tx, found: Sequence[tuple[Any, Needs]]
    ) -> tuple[list[tuple[Any, Needs]], list[tuple[Any, dict[str, Any]]]]:
        """Of the next jobs, those that may run, and what changes of the others: they are held."""
        allowed, held = [], []
        for job, needs in found:
            if said := await self.refusal(tx, job):
                held.append((job, self._hold(job, said)))
            else:
                allowed.append((job, needs))
        self._held += held
        return allowed, held

    async def refusal(self, tx: Tx, job: Any) -> str:
        """Why a job may not use its container image now; empty: it may, or has none."""
        image = job.spec.get("image")
        if image is None or job.vo is None:
            return ""
        if job.vo not in self._policies:
            self._policies[job.vo] = await read_policy(tx, job.vo)
        return refusal(job.vo, self._policies[job.vo], image)

    def _hold(self, job: Any, said: str) -> dict[str, Any]:
        return {
            "held": True,
            "open": False,
            "wake_at": None,
            "reason": REGISTRY.code,
            "message": f"{said} It is held; once that is allowed again: hansa job release {job.number}",
            "waiting_on": Party.VO_MANAGER.value,
            "since": self._now,
            "version": job.version + 1,
        }

    async def tell(self, tx: Tx, events: EventLog) -> None:
        """Write the events of the jobs that were held."""
        news = []
        for job, values in self._held:
            said = (job.phase, values["reason"], values["message"])
            news.append(Event("hansa", f"job/{job.number}", *said, job.owner_id, job.vo))
        await events.record(tx, *news)
        for job, _ in self._held:
            tx.ring(f"job/{job.number}")
            tx.ring(f"jobs/{job.owner_id}")
