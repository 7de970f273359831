"""Time and memory to rebuild the ledger from the nodes and pods of a cluster."""

import gc
import multiprocessing
import time

from bench.clusters import GPUS, cluster
from bench.memory import resident_mb
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.reflector import Reflector

SHARES_PER_GPU = 4


def _rebuild(shares: int) -> tuple[int, float, float]:
    nodes = -(-shares // (GPUS * SHARES_PER_GPU))
    snapshot = cluster(nodes, shares_per_gpu=SHARES_PER_GPU, shared_gpus=GPUS)
    gc.collect()
    gc.freeze()  # As `serve` does once the objects are loaded.
    before = resident_mb()
    start = time.perf_counter()
    decisions = Decisions(Policy(), claim_ttl=5, timer=time.monotonic)
    reflector = Reflector(decisions)
    reflector.nodes(read_nodes(snapshot.nodes))
    reflector.pods(snapshot.pods)
    states = list(decisions.ledger.snapshot())
    seconds = time.perf_counter() - start
    held = sum(len(gpu.shares) for state in states for gpu in state.gpus)
    return held, seconds, resident_mb() - before


def measure_rebuild(shares: int) -> str:
    """One line; measured in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        held, seconds, mb = pool.apply(_rebuild, (shares,))
    return f"rebuild of {held} shares: {seconds:.2f} s, {mb:.0f} MB resident more than the objects it was read from"


if __name__ == "__main__":
    print(measure_rebuild(50_000))
