"""The floor: nothing but processes started and waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.base import Runner

_LOOP = """
import os, sys
for line in sys.stdin:
    for _ in range(int(line)):
        pid = os.posix_spawn("/bin/true", ["/bin/true"], {})
        _, status = os.waitpid(pid, 0)
        assert status == 0
    print("done", flush=True)
"""


class BareSpawn:
    name = "posix_spawn"
    how = "one Python process per core, each a loop of os.posix_spawn and os.waitpid of /bin/true; no queue, no results"

    @contextmanager
    def start(self, cores: int) -> Iterator[Runner]:
        command = [sys.executable, "-I", "-S", "-c", _LOOP]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(cores)
        ]

        def run(tasks: int) -> None:
            for number, worker in enumerate(workers):
                assert worker.stdin is not None
                worker.stdin.write(f"{tasks // cores + (number < tasks % cores)}\n")
                worker.stdin.flush()
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "done\n"

        try:
            yield run
        finally:
            for worker in workers:
                worker.communicate()
