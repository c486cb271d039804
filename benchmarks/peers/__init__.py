"""Others who run many small tasks on one computer, each used as its documentation says."""

from benchmarks.peers.base import Peer, Runner
from benchmarks.peers.dask import Dask
from benchmarks.peers.hyperqueue import HyperQueue
from benchmarks.peers.spawn import BareSpawn

__all__ = ["PEERS", "Peer", "Runner"]

PEERS: tuple[Peer, ...] = (BareSpawn(), Dask(), HyperQueue())
