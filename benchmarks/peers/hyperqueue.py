"""HyperQueue's server and worker on this computer."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.base import Runner


class HyperQueue:
    name = "HyperQueue"
    how = (
        "hyperqueue.LocalCluster of the PyPI package, one worker with as many cores; one Job with a "
        "program(['/bin/true'], stdout=None, stderr=None) per task (no output files: its quickest way); "
        "Client.wait_for_jobs looks once a second, which shows in short runs"
    )

    @contextmanager
    def start(self, cores: int) -> Iterator[Runner]:
        from hyperqueue import Job, LocalCluster
        from hyperqueue.cluster import WorkerConfig

        with tempfile.TemporaryDirectory(prefix="hansa-bench-hq-") as folder, contextlib.ExitStack() as stack:
            with _without_stdout():  # it prints a table of itself
                cluster = stack.enter_context(LocalCluster(folder, worker_config=WorkerConfig(cores=cores)))
                client = cluster.client()

            def run(tasks: int) -> None:
                job = Job(default_workdir=folder)
                for _ in range(tasks):
                    job.program(["/bin/true"], stdout=None, stderr=None)
                with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                    assert client.wait_for_jobs([client.submit(job)])

            yield run


@contextmanager
def _without_stdout() -> Iterator[None]:
    """For what is not written by Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
