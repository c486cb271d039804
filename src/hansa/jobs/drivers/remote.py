"""What drivers share that start pilots by commands on a login node: folders, program, spool, last words.

Everything of this server's lies below one folder of the site's account, on a file system that the nodes share::

    ROOT/node-DIGEST.pyz   ROOT/spool/   ROOT/pilots/PILOT/{config.json,token,job.sh,started,batch,…}

The token is in a file of mode 0600; no command line and no environment holds it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hansa.engines.shell import Ran, Shell
from hansa.jobs.drivers.base import Life, PilotOrder, Seen
from hansa.jobs.program import NodeProgram
from hansa.jobs.relay import RelayLink
from hansa.kernel.errors import Permanent, Temporary
from hansa.node.protocol import PilotConfig

BUSY = 75
"""Exit code of the scripts here where the batch system did not answer (as EX_TEMPFAIL)."""

_ROOT = """
case "$1" in "~"/*) d="$HOME/${1#??}";; /*) d="$1";; *) d="$HOME/$1";; esac
umask 077; mkdir -p "$d/pilots" "$d/spool/out" "$d/spool/in" && cd "$d" && pwd -P
"""
_CLEAN = """
rm -rf -- "$1/pilots/$2" "$1/spool/in/$2" && cd "$1/spool/out" &&
find . -maxdepth 1 -name "$2-*" -exec rm -f {} +
"""
_WORDS = 'cat "$1/pilots/$2/ended.json" 2>/dev/null; echo; tail -c 2000 "$1/pilots/$2/pilot.out" 2>/dev/null'
_MAKE = '[ -s "$2" ] || exit 76; umask 077; mkdir -p "$1"'
_GONE = 76
_KEPT_OF_MANY = ("SLURM_", "PMI", "PRTE_", "OMPI_", "I_MPI_", "UCX_", "FI_", "LD_LIBRARY_PATH", "MODULEPATH", "LMOD_")
"""Of the batch system's environment, what ``srun`` and ``mpirun`` need to reach the other nodes; prefixes of names."""
_LEFT = 'cd "$1/spool/out" && find . -maxdepth 1 -name "$2-*.json" | head -n 1'


class RemoteBatch:
    """Base of the drivers; see the module. ``is_direct``: nodes reach this server, so no spool is needed."""

    shares_signals = False
    """What ends a pilot there signals the tasks in it as well."""

    def __init__(
        self,
        shell: Shell,
        program: NodeProgram,
        urls: Callable[[], Sequence[str]],
        folder: str = "~/.hansa",
        *,
        python: str = "python3",
        is_direct: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        self.shell = shell
        self._program = program
        self._urls = urls
        self._folder = folder
        self._python = python
        self._is_direct = is_direct
        self._relay = RelayLink(shell, urls, ca_file)
        self._ca = ca_file.read_bytes() if ca_file else None
        self._root_there: str | None = None
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        await self._relay.close()
        await self.shell.close()

    async def clean(self, pilot_id: str) -> None:
        if (await self._look(pilot_id)).life in (Life.ALIVE, Life.QUEUED):
            return
        done = await self.shell.script(_CLEAN, await self._root(), pilot_id)
        if done.status != 0:
            raise Temporary(f"{self.shell.name}: {pilot_id} cannot be cleaned up: {done.complaint}.", 60)

    async def observe(self, pilot_id: str) -> Seen:
        await self._root()
        seen = await self._look(pilot_id)
        if self._is_direct:
            return seen
        listened_s = self._relay.up_s
        if seen.life is Life.ENDED and (await self._run(_LEFT, pilot_id)).stdout.strip():
            return Seen(Life.ALIVE, "It has ended; its last words are on their way.", listened_s=listened_s)
        return replace(seen, listened_s=listened_s)

    async def _look(self, pilot_id: str) -> Seen:
        raise NotImplementedError

    async def _root(self) -> str:
        """The folder there, made if need be, with the program in it; and the relay runs."""
        async with self._lock:
            if self._root_there is None:
                done = await self.shell.script(_ROOT, self._folder)
                if done.status != 0:
                    raise Permanent(f"{self.shell.name}: {self._folder} cannot be made: {done.complaint}.")
                root = done.text.strip().splitlines()[-1]
                program = f"{root}/{self._program_name}"
                there = await self.shell.script('[ -s "$1" ]', program)
                if there.status != 0:
                    await self.shell.put(program, self._program.zipapp)
                if self._ca is not None:
                    await self.shell.put(f"{root}/ca.pem", self._ca)
                self._root_there = root
        root = self._root_there
        if not self._is_direct:
            self._relay.ensure(
                [self._python, "-I", f"{root}/{self._program_name}", "relay", "--spool", f"{root}/spool"]
            )
        return root

    @property
    def _program_name(self) -> str:
        return f"node-{self._program.digest[7:23]}.pyz"

    async def _prepare(self, order: PilotOrder, script: str, shown: str = "") -> str:
        """Lay out the pilot's folder; its path there. ``shown``: the script as people see it."""
        root = await self._root()
        folder = f"{root}/pilots/{order.pilot_id}"
        made = await self.shell.script(_MAKE, folder, f"{root}/{self._program_name}")
        if made.status == _GONE:  # somebody has tidied up there
            self._root_there = None
            raise Temporary(f"{self.shell.name}: {root} has gone; it is made anew.", 1)
        if made.status != 0:
            raise Temporary(f"{self.shell.name}: {folder} cannot be made: {made.complaint}.", 30)
        config = PilotConfig(
            pilot=order.pilot_id,
            urls=list(self._urls()) if self._is_direct else [f"spool:{root}/spool"],
            token_file=f"{folder}/token",
            work_dir=folder,
            cores=order.cores,
            memory_mib=order.memory_mib,
            gpus=[gpu.partition(",")[0] for gpu in order.gpus],
            wall_time_s=order.wall_time_s,
            idle_timeout_s=order.idle_timeout_s,
            hide=[root],
            ca_file=f"{root}/ca.pem" if self._ca is not None else None,
            shares_signals=self.shares_signals,
            keep_env=list(_KEPT_OF_MANY) if order.nodes > 1 or order.is_whole else [],
        )
        if shown:
            await self.shell.put(f"{folder}/script", shown.encode())
        await self.shell.put(f"{folder}/token", order.token.encode())
        await self.shell.put(f"{folder}/config.json", json.dumps(asdict(config)).encode())
        await self.shell.put(f"{folder}/job.sh", script.encode(), 0o700)
        return folder

    async def _run(self, script: str, pilot_id: str, *more: str) -> Ran:
        """A script with ROOT, the pilot and more as its arguments."""
        return await self.shell.script(script, await self._root(), pilot_id, *more)

    async def _last_words(self, pilot_id: str) -> str:
        """Why a pilot ended, as far as it could say."""
        first, _, rest = (await self._run(_WORDS, pilot_id)).text.partition("\n")
        try:
            return str(json.loads(first)["reason"])
        except (ValueError, KeyError, TypeError):
            lines = rest.strip().splitlines()
            return lines[-1][:500] if lines else ""
