"""A new master key, and all sealed secrets under it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from hansa.identity.authority import rewrap_authority
from hansa.identity.keys import rewrap_keys
from hansa.images.publishing import rewrap_list_signer
from hansa.jobs.registry_logins import rewrap_registry_logins
from hansa.kernel.database import open_database
from hansa.kernel.errors import MASTER_KEY, Fault
from hansa.kernel.secrets import MASTER_KEY_VARIABLE, new_master_key, read_master_keys, write_private
from hansa.server.home import Home, open_home
from hansa.server.launch import take_server_lock
from hansa.sites.service import rewrap_credentials


def rotate_master_key(home_path: Path) -> str:
    """Replace keys/master.key; what was done, in words. A crash in between leaves both keys in the file: run it again.

    Raises Fault ``server.runs`` while a server of this home runs, ``kernel.master_key`` where the key is not a file's.
    """
    home = open_home(home_path)
    if os.environ.get(MASTER_KEY_VARIABLE):
        return _rewrap_for_environment(home)
    lock = take_server_lock(home)
    try:
        file = home.master_key_file
        read_master_keys(file, {})
        new = new_master_key()
        write_private(file, "\n".join([new, *file.read_text(encoding="ascii").split()]) + "\n")
        number = asyncio.run(_rewrap(home))
        write_private(file, new + "\n")
    finally:
        os.close(lock)
    return f"a new master key is in {file}; {number} secrets were put under it"


async def _rewrap(home: Home) -> int:
    database = await open_database(home.database_url)
    try:
        async with database.begin() as tx:
            vault = home.vault()
            keys = await rewrap_keys(tx, vault)
            sites = await rewrap_authority(tx, vault) + await rewrap_credentials(tx, vault)
            keys += await rewrap_list_signer(tx, vault)
            return keys + sites + await rewrap_registry_logins(tx, vault)
    finally:
        await database.close()


def _rewrap_for_environment(home: Home) -> str:
    """Every server has both keys, so this may be done while they work."""
    if len(read_master_keys(home.master_key_file, os.environ)) < 2:
        raise Fault(
            MASTER_KEY,
            f"The master key comes from {MASTER_KEY_VARIABLE}, which only you can change.",
            hint="Put a new key before the old one, with a comma between; restart all servers; run this again.",
        )
    number = asyncio.run(_rewrap(home))
    return f"{number} secrets were put under the first key of {MASTER_KEY_VARIABLE}; leave out the others now"
