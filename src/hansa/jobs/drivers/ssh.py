"""The batch driver ``ssh``: pilots as processes of a plain computer, started over SSH, detached from it.

A pilot lives as long as it holds the lock on ``pilot.lock`` in its folder, as with ``local``.
"""

from __future__ import annotations

import asyncio
import shlex

from hansa.jobs.drivers.base import Life, PilotOrder, Seen
from hansa.jobs.drivers.remote import RemoteBatch
from hansa.kernel.errors import Temporary

# One at a time per pilot; the pilot's own lock has the last word.
_START = """
cd "$1/pilots/$2" || exit 1
exec 9>start.lock; flock 9
if [ -e pilot.lock ] && ! flock -n -s pilot.lock true; then echo alive; exit 0; fi
rm -f ended.json; : > started
setsid ./job.sh > pilot.out 2>&1 < /dev/null 9>&- &
n=0
while [ $n -lt 200 ]; do
  if [ -e pilot.lock ] && ! flock -n -s pilot.lock true; then echo alive; exit 0; fi
  [ -e ended.json ] && { echo ended; exit 0; }
  kill -0 $! 2>/dev/null || { echo dead; exit 0; }
  n=$((n+1)); sleep 0.1
done
echo slow
"""
_LOOK = """
cd "$1/pilots/$2" 2>/dev/null && [ -e started ] || { echo absent; exit 0; }
if [ -e pilot.lock ] && ! flock -n -s pilot.lock true; then echo alive; else echo ended; fi
"""
_SIGNAL = """
cd "$1/pilots/$2" 2>/dev/null || exit 0
if [ -e pilot.lock ] && ! flock -n -s pilot.lock true; then kill -"$3" "$(cat pilot.lock)" 2>/dev/null; fi
exit 0
"""


class SshBatch(RemoteBatch):
    """Starts ``node.pyz`` on one computer."""

    async def start(self, order: PilotOrder) -> Seen:
        root = await self._root()
        folder = f"{root}/pilots/{order.pilot_id}"
        seen = await self._look(order.pilot_id)
        if seen.life is Life.ALIVE:
            return seen
        words = [self._python, "-I", f"{root}/{self._program_name}", "pilot", "--config", f"{folder}/config.json"]
        await self._prepare(order, f"#!/bin/sh\nexec {shlex.join(words)}\n")
        done = await self._run(_START, order.pilot_id)
        if "alive" in done.text:
            return Seen(Life.ALIVE)
        if "ended" in done.text:
            return Seen(Life.ENDED, await self._last_words(order.pilot_id))
        said = await self._last_words(order.pilot_id) or done.complaint
        raise Temporary(f"{self.shell.name}: the pilot did not start: {said}.", 10)

    async def _look(self, pilot_id: str) -> Seen:
        done = await self._run(_LOOK, pilot_id)
        word = done.text.strip()
        if done.status != 0 or word not in ("absent", "alive", "ended"):
            raise Temporary(f"{self.shell.name}: no word of the pilot: {done.complaint}.", 15)
        life = Life(word)
        return Seen(life, await self._last_words(pilot_id) if life is Life.ENDED else "")

    async def cancel(self, pilot_id: str) -> None:
        for number, patience in (("TERM", 50), ("KILL", 50)):
            if (await self._look(pilot_id)).life is not Life.ALIVE:
                return
            await self._run(_SIGNAL, pilot_id, number)
            for _ in range(patience):
                if (await self._look(pilot_id)).life is not Life.ALIVE:
                    return
                await asyncio.sleep(0.2)
        raise Temporary(f"{self.shell.name}: the pilot {pilot_id} does not end.", 10)
