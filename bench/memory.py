"""Memory over many placements: pods come and go on a small cluster, and the resident memory is printed as they do.

    python -m bench.memory [--placements 1000000] [--every 100000]

What is bounded fills up first (200,000 UIDs of pods that are gone, 65,536 of pods counted by the learner); from then
on nothing may grow.
"""

import argparse
import random
import resource
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.requests import GpuRequest
from tests.builders import make_node, make_pod

NODES = 40
GPUS = 8
CARD_MIB = 81559
#: Pods that run at once.
RUNNING = 200
_PAGE = resource.getpagesize()


def resident_mb() -> float:
    """Of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 1e6


class _Life:
    """One cluster through which pods pass; a second goes by with each of them."""

    def __init__(self) -> None:
        self.placed = 0
        self._clock = 0.0
        self._names = [f"n{i}" for i in range(NODES)]
        self._decisions = Decisions(Policy(), claim_ttl=5.0, timer=lambda: self._clock)
        for node in read_nodes([make_node(n).gpus(GPUS, mib=CARD_MIB).pod_slots(500).build() for n in self._names]):
            self._decisions.ledger.put_node(node)
        shares = [make_pod().gpu_fraction(f"0.{part}") for part in (1, 2, 25, 3, 4, 5, 7)]
        wholes = [make_pod().gpus(count) for count in (1, 2, 4)]
        self._templates = [pod.build() for pod in (*shares, *shares, *wholes)]
        self._draw = random.Random(0)
        self._running: deque[tuple[str, str]] = deque()

    def step(self, number: int) -> None:
        """One pod arrives; the oldest leaves."""
        self._clock += 1.0
        template = self._draw.choice(self._templates)
        uid = f"{number:032x}"
        pod = {**template, "metadata": {**template["metadata"], "name": f"pod-{number}", "uid": uid}}
        found = self._decisions.filter(pod, self._names).nodes
        if found:
            self._decisions.prioritize(pod, found)
            self._bind(uid, pod, found[0])
        if len(self._running) > RUNNING or not found:
            self._leave(*self._running.popleft())

    def _bind(self, uid: str, pod: dict[str, Any], node: str) -> None:
        request = GpuRequest.from_pod(pod)
        assert isinstance(request, GpuRequest)
        placement = self._decisions.choose(node, request)
        assert isinstance(placement, Placement)
        ledger = self._decisions.ledger
        new = [f"share-{uid}-{index}" for index in range(placement.new)]
        ledger.assume(
            uid=uid, namespace="bench", name=uid, node=node, request=request, placement=placement, new_ids=new
        )
        for gpu in new:
            ledger.report(node, gpu, f"GPU-{gpu}", CARD_MIB)
        ledger.confirm(uid)
        self._decisions.claims.end(uid)
        self._running.append((uid, node))
        self.placed += 1

    def _leave(self, uid: str, node: str) -> None:
        ledger = self._decisions.ledger
        held = ledger.pod(uid)
        ledger.release(uid)
        state = ledger.state(node)
        empty = {gpu.id for gpu in state.gpus if not gpu.shares} if state is not None else set()
        for share in held.shares if held is not None else ():
            if share.gpu_id in empty:
                ledger.drop_reservation(node, share.gpu_id)


def resident_over(placements: int, every: int) -> Iterator[tuple[int, float]]:
    """(placements so far, MB resident) at the start, then after every so many placements."""
    life = _Life()
    numbers = count()
    yield 0, resident_mb()
    for mark in range(every, placements + 1, every):
        while life.placed < mark:
            life.step(next(numbers))
        yield mark, resident_mb()


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placements", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=100_000)
    options = parser.parse_args()
    print("| placements | resident MB |\n| --- | --- |")
    for placed, mb in resident_over(options.placements, options.every):
        print(f"| {placed:,} | {mb:.1f} |", flush=True)


if __name__ == "__main__":
    main()
