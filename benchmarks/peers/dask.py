"""Dask's own scheduler and workers on this computer."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.base import Runner


def task(_index: int) -> int:
    """One task: what a Python user of Dask writes to run a program."""
    import subprocess

    return subprocess.run(["/bin/true"], check=True).returncode


class Dask:
    name = "Dask"
    how = (
        "distributed.LocalCluster, one worker process with one thread per core; client.map of a function "
        "that does subprocess.run(['/bin/true'], check=True), pure=False; client.gather of all results"
    )

    @contextmanager
    def start(self, cores: int) -> Iterator[Runner]:
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # workers complain of the end of their scheduler
        import distributed

        library: Any = distributed  # it has no types

        with (
            tempfile.TemporaryDirectory(prefix="hansa-bench-dask-") as folder,
            library.LocalCluster(
                n_workers=cores,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                local_directory=folder,
                silence_logs=logging.ERROR,
            ) as cluster,
            library.Client(cluster) as client,
        ):

            def run(tasks: int) -> None:
                codes = client.gather(client.map(task, range(tasks), pure=False))
                assert codes == [0] * tasks

            yield run
