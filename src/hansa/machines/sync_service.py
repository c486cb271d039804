"""What people may see of images at sites."""

from __future__ import annotations

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.kernel.database import Database
from hansa.kernel.status import Party, Status
from hansa.machines import sync_store as store
from hansa.machines.sync_wire import ImagePlace, ImagePlacePage


class SyncService:
    """The table image by site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_places(self, caller: Caller) -> ImagePlacePage:
        """Those of the caller's VOs; operators see all."""
        async with self._database.read() as tx:
            vos = None if caller.is_operator else [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            rows = await store.of_vos(tx, vos)
        return ImagePlacePage(
            [
                ImagePlace(
                    row.name,
                    row.version,
                    row.vo,
                    row.place,
                    Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since),
                    row.provider_id,
                    row.checked,
                )
                for row in rows
            ]
        )
