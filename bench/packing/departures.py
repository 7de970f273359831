"""Pods that come and go: Poisson arrivals drawn from the trace, exponential lifetimes, a given offered load.

Time is in mean lifetimes. Offered load 1.0 means that the pods that would run if none were rejected ask for as many
GPUs as there are. The cluster starts with as many pods as would run then, packed as if none ever left: fuller than it
can stay, and the better the strategy packs the more so. While that wears off more leaves than comes, which would count
against the better one; after two lifetimes an eighth of it is left.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.packing.openb import GPU_MIB, Trace, TracePod
from bench.packing.replay import Cluster

#: Not measured.
WARM_UP = 2.0
#: Measured, unless told otherwise.
LIFETIMES = 4.0
LARGE = 4 * GPU_MIB


@dataclass
class Outcome:
    """Sums over the measured time; amounts in thousandths of a GPU."""

    capacity: int
    #: When the measured time ends; it begins at WARM_UP.
    end: float
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

    def passes(self, start: float, end: float, held: int) -> None:
        """So much was allocated from then to then."""
        measured = max(0.0, min(end, self.end) - max(start, WARM_UP))
        self.held += held * measured
        self.time += measured

    def arrive(self, milli: int, *, placed: bool) -> None:
        """Count one arrival."""
        self.asked += milli
        self.rejected += 0 if placed else milli
        if milli >= LARGE:
            self.large += 1
            self.large_rejected += not placed


class _Flow:
    """The pods that run, and when each leaves."""

    def __init__(self, trace: Trace, strategy: str, load: float, seed: int) -> None:
        self._cluster = Cluster(trace, strategy)
        self._draw = random.Random(f"{seed}/{load}")
        self._pods = list(trace.pods.values())
        #: Arrivals per lifetime.
        self.rate = load * trace.capacity / (sum(pod.milli for pod in self._pods) / len(self._pods))
        self._number = 0
        #: (when, uid, pod, node)
        self._running: list[tuple[float, str, TracePod, str]] = []
        #: Thousandths of a GPU that are allocated.
        self.held = 0

    def arrive(self, now: float) -> tuple[TracePod, bool]:
        """The next pod, and whether it was placed."""
        pod = self._draw.choice(self._pods)
        ends = now + self._draw.expovariate(1.0)
        uid = f"{self._number}-{pod.name}"
        self._number += 1
        node = self._cluster.place(uid, pod)
        if node is not None:
            heapq.heappush(self._running, (ends, uid, pod, node))
            self.held += pod.milli
        return pod, node is not None

    def pause(self) -> float:
        """Until the next arrival."""
        return self._draw.expovariate(self.rate)

    def departures(self, until: float) -> Iterator[float]:
        """When each pod leaves that does so before; what is held still counts it."""
        while self._running and self._running[0][0] <= until:
            ends, uid, pod, node = heapq.heappop(self._running)
            yield ends
            self._cluster.leave(uid, pod, node)
            self.held -= pod.milli


def run(trace: Trace, strategy: str, load: float, seed: int, lifetimes: float = LIFETIMES) -> Outcome:
    """The same pods, times and lifetimes for every strategy, measured for so many mean lifetimes."""
    flow = _Flow(trace, strategy, load, seed)
    outcome = Outcome(trace.capacity, WARM_UP + lifetimes)
    # Lifetimes have no memory: so many pods at once are as good as having waited for ever.
    for _ in range(round(flow.rate)):
        flow.arrive(0.0)
    now = 0.0
    while now < outcome.end:
        pod, placed = flow.arrive(now)
        if now >= WARM_UP:
            outcome.arrive(pod.milli, placed=placed)
        until = now + flow.pause()
        for left in flow.departures(until):
            outcome.passes(now, left, flow.held)
            now = left
        outcome.passes(now, until, flow.held)
        now = until
    return outcome
