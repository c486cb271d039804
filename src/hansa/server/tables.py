"""All tables of all rooms: importing this makes ``metadata`` complete."""

import hansa.accounting.store
import hansa.identity.provider.store
import hansa.identity.store
import hansa.identity.upstream.store
import hansa.identity.vo_store
import hansa.images.store
import hansa.jobs.tables
import hansa.kernel.events
import hansa.kernel.idempotency
import hansa.machines.meter_store
import hansa.machines.store
import hansa.machines.sync_store
import hansa.machines.volume_store
import hansa.sites.capacity
import hansa.sites.store  # noqa: F401
from hansa.kernel.database import metadata

__all__ = ["metadata"]
