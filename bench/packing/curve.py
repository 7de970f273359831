"""Allocation over arrivals: the published metric."""

from collections.abc import Iterable

from bench.packing.replay import Placed


def allocation(placed: Iterable[Placed], capacity: int) -> dict[int, float]:
    """Arrived request in % of capacity, rounded → mean allocated % over the arrivals of that bin."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    arrived = allocated = 0
    for one in placed:
        arrived += one.pod.milli
        allocated += one.pod.milli if one.node is not None else 0
        percent = round(100 * arrived / capacity)
        sums[percent] = sums.get(percent, 0.0) + 100 * allocated / capacity
        counts[percent] = counts.get(percent, 0) + 1
    return {percent: sums[percent] / counts[percent] for percent in sums}
