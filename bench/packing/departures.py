"""Pods that come and go: Poisson arrivals drawn from the trace, exponential lifetimes, a given offered load.

Time is in mean lifetimes. Offered load 1.0 means that the pods that would run if none were rejected ask for as many
GPUs as there are. The cluster starts empty; the first lifetimes are not measured.
"""

import heapq
import random
from dataclasses import dataclass

from bench.packing.openb import GPU_MIB, Trace
from bench.packing.replay import Cluster

WARM_UP = 1.5
MEASURED = 1.5
LARGE = 4 * GPU_MIB


@dataclass
class Outcome:
    """Sums over the measured time; amounts in thousandths of a GPU."""

    capacity: int
    #: Allocated, integrated over time.
    held: float = 0.0
    time: float = 0.0
    asked: int = 0
    rejected: int = 0
    large: int = 0
    large_rejected: int = 0

    @property
    def allocation(self) -> float:
        """Mean allocated GPUs, % of capacity."""
        return 100 * self.held / self.time / self.capacity

    @property
    def rejected_demand(self) -> float:
        """Requested GPUs that were rejected, %."""
        return 100 * self.rejected / max(self.asked, 1)

    @property
    def rejected_large(self) -> float:
        """Pods of 4 GPUs and more that were rejected, %."""
        return 100 * self.large_rejected / max(self.large, 1)

    def arrive(self, milli: int, *, placed: bool) -> None:
        """Count one arrival."""
        self.asked += milli
        self.rejected += 0 if placed else milli
        if milli >= LARGE:
            self.large += 1
            self.large_rejected += not placed


def run(trace: Trace, strategy: str, load: float, seed: int) -> Outcome:
    """The same pods, times and lifetimes for every strategy."""
    cluster = Cluster(trace, strategy)
    draw = random.Random(f"{seed}/{load}")
    pods = list(trace.pods.values())
    rate = load * trace.capacity / (sum(pod.milli for pod in pods) / len(pods))
    outcome = Outcome(trace.capacity)
    #: (when, number, pod, node) of those that run
    running: list[tuple[float, int, int, str]] = []
    now, number, held = draw.expovariate(rate), 0, 0
    while now < WARM_UP + MEASURED:
        arrival = draw.randrange(len(pods))
        lifetime, pause = draw.expovariate(1.0), draw.expovariate(rate)
        uid = f"{number}-{pods[arrival].name}"
        node = cluster.place(uid, pods[arrival])
        if node is not None:
            heapq.heappush(running, (now + lifetime, number, arrival, node))
            held += pods[arrival].milli
        if now >= WARM_UP:
            outcome.arrive(pods[arrival].milli, placed=node is not None)
        until = now + pause
        while running and running[0][0] <= until:
            ends, ended, index, where = heapq.heappop(running)
            _pass(outcome, now, ends, held)
            now = ends
            cluster.leave(f"{ended}-{pods[index].name}", pods[index], where)
            held -= pods[index].milli
        _pass(outcome, now, until, held)
        now = until
        number += 1
    return outcome


def _pass(outcome: Outcome, start: float, end: float, held: int) -> None:
    measured = max(0.0, min(end, WARM_UP + MEASURED) - max(start, WARM_UP))
    outcome.held += held * measured
    outcome.time += measured
