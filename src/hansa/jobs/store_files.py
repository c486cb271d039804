"""Which content there is, who brought it, and which jobs count on it.

Content is named in ``contents`` before it is put into the object store, and its row is touched by whoever comes to
count on it. What nothing names and nobody has touched for long is doomed first, and deleted after that commit; a
doomed row cannot be touched. So what a unit of work has touched stays until long after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import errors
from hansa.jobs.tables import contents, files, job_inputs, task_checkpoints, task_files
from hansa.kernel.database import Tx, insert_for, insert_ignore
from hansa.kernel.errors import Fault

_AT_ONCE = 500


def _some(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


async def announce(tx: Tx, digests: Iterable[str], now: datetime) -> None:
    """Somebody is about to put these into the store. Raises Fault ``jobs.file_going``."""
    names = sorted(set(digests))
    if names:
        rows = [{"digest": name, "used": now, "doomed": False} for name in names]
        await tx.execute(insert_ignore(tx, contents), rows)
        await touch(tx, names, now)


async def touch(tx: Tx, digests: Iterable[str], now: datetime) -> None:
    """Count on content that was announced: it stays. Raises Fault ``jobs.file_going`` where it does not."""
    for some in _some(sorted(set(digests))):
        query = sa.update(contents).where(contents.c.digest.in_(some), ~contents.c.doomed).values(used=now)
        if (await tx.execute(query)).rowcount != len(some):
            raise Fault(
                errors.FILE_GOING,
                "This content was not wanted for long and is being deleted just now.",
                hint="Send it again.",
                retry_after_s=1.0,
            )


async def own(tx: Tx, owner_id: str, found: Sequence[tuple[str, int]], now: datetime) -> None:
    """Note that this owner has brought this content here."""
    if not found:
        return
    await touch(tx, [digest for digest, _ in found], now)
    rows = [{"owner_id": owner_id, "digest": digest, "size": size, "time": now} for digest, size in found]
    insert = insert_for(tx, files)
    insert = insert.on_conflict_do_update(index_elements=["owner_id", "digest"], set_={"time": now})
    await tx.execute(insert, rows)


async def use_owned(tx: Tx, owner_id: str, digests: Sequence[str], now: datetime) -> set[str]:
    """Those of them that the owner has; their rows stay until the end of this unit and long after it."""
    found: set[str] = set()
    for some in _some(digests):
        query = sa.update(files).where(files.c.owner_id == owner_id, files.c.digest.in_(some)).values(time=now)
        found |= set((await tx.execute(query.returning(files.c.digest))).scalars())
    return found


async def kept_bytes(tx: Tx, owner_id: str) -> int:
    """Of all that the owner has uploaded and that is still here."""
    query = sa.select(sa.func.coalesce(sa.func.sum(files.c.size), 0)).where(files.c.owner_id == owner_id)
    return int((await tx.execute(query)).scalar() or 0)


async def add_inputs(tx: Tx, number: int, digests: Iterable[str]) -> None:
    """A job needs these."""
    rows = [{"digest": digest, "job": number} for digest in sorted(set(digests))]
    if rows:
        await tx.execute(sa.insert(job_inputs), rows)


async def forget_unused(tx: Tx, before: datetime, limit: int) -> int:
    """Uploads that were not used since, and that no job has, are nobody's any more; how many."""
    idle = [
        files.c.time < before,
        ~sa.exists().where(job_inputs.c.digest == files.c.digest),
        ~sa.exists().where(task_checkpoints.c.digest == files.c.digest),
    ]
    chosen = sa.select(files.c.owner_id, files.c.digest).where(*idle).limit(limit)
    rows: Sequence[Any] = (await tx.execute(chosen)).all()
    for owner_id, digest in rows:
        mine = [files.c.owner_id == owner_id, files.c.digest == digest]
        await tx.execute(sa.delete(files).where(*mine, *idle))
    return len(rows)


def _unclaimed(before: datetime) -> list[Any]:
    return [
        ~contents.c.doomed,
        contents.c.used < before,
        ~sa.exists().where(files.c.digest == contents.c.digest),
        ~sa.exists().where(task_files.c.digest == contents.c.digest),
        ~sa.exists().where(task_checkpoints.c.digest == contents.c.digest),
    ]


async def unclaimed(tx: Tx, before: datetime, after: str, limit: int) -> list[str]:
    """Digests behind ``after`` that nothing names and nobody has touched since ``before``."""
    query = sa.select(contents.c.digest).where(contents.c.digest > after, *_unclaimed(before))
    return list((await tx.execute(query.order_by(contents.c.digest).limit(limit))).scalars())


async def doom(tx: Tx, digests: Sequence[str], before: datetime) -> None:
    """Those of them that are still unclaimed may be deleted once this is committed."""
    for some in _some(digests):
        await tx.execute(
            sa.update(contents).where(contents.c.digest.in_(some), *_unclaimed(before)).values(doomed=True)
        )


async def doomed(tx: Tx, limit: int) -> list[str]:
    """What is to be deleted from the store."""
    query = sa.select(contents.c.digest).where(contents.c.doomed).limit(limit)
    return list((await tx.execute(query)).scalars())


async def forget_doomed(tx: Tx, digests: Sequence[str]) -> None:
    """They are deleted."""
    for some in _some(digests):
        await tx.execute(sa.delete(contents).where(contents.c.digest.in_(some), contents.c.doomed))
