"""One trace through the real decisions and ledger, in process."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.packing.bestfit import BestFit
from bench.packing.intree import InTree
from bench.packing.openb import GPU_MIB, Trace, TracePod
from bench.packing.published_fgd import Foreknown, PublishedFgd
from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.requests import GpuRequest
from extender.core.reservation import reservation_name
from extender.core.strategies import STRATEGIES, Strategy

BESTFIT = BestFit.name
ALL: Mapping[str, Strategy] = {**STRATEGIES, BESTFIT: BestFit()}


@dataclass(frozen=True)
class Placed:
    """One arrival and where it went; None: nowhere."""

    uid: str
    pod: TracePod
    node: str | None


class Cluster:
    """A cluster that one pod after another arrives at, and leaves."""

    def __init__(self, trace: Trace, strategy: str, *, as_published: bool = True) -> None:
        # The paper's FGD knows the whole trace from the start; the product learns, and starts with nothing.
        foreknown = Foreknown(trace.pods) if strategy == names.FGD and as_published else None
        self.decisions = Decisions(
            Policy(shortlist=1, strategy=strategy),
            claim_ttl=1.0,
            timer=lambda: 0.0,
            strategies={**ALL, names.FGD: PublishedFgd()} if foreknown is not None else ALL,
            workload=foreknown,
        )
        for node in read_nodes([node.build() for node in trace.nodes]):
            self.decisions.ledger.put_node(node)
        if foreknown is not None:
            self.decisions.relearn()
        for pod in trace.pods.values():
            pod.make_up()
        self._intree = InTree(trace.nodes)
        self._attempts = count()
        self._as_published = as_published
        #: CPU seconds in decisions and ledger: not in playing kube-scheduler or making up pods.
        self.seconds = 0.0

    def place(self, uid: str, pod: TracePod) -> str | None:
        """filter (and prioritize, where filter has no opinion), then bind to the best node; None where nothing fits."""
        passing = self._intree.passing(pod)
        if not passing:
            return None
        body = pod.build(uid)
        start = time.process_time()
        best = self._chosen(body, pod.request, passing)
        if best is not None:
            self._bind(uid, pod.request, best)
        self.seconds += time.process_time() - start
        if best is not None:
            self._intree.take(pod, best)
        return best

    def _chosen(self, body: Mapping[str, Any], request: GpuRequest, passing: list[str]) -> str | None:
        found = self.decisions.filter(body, passing).nodes
        if request.asks_for_gpu or not found:
            return found[0] if found else None
        scores = self.decisions.prioritize(body, found)
        return max(scores, key=scores.__getitem__)

    def leave(self, uid: str, pod: TracePod, node: str) -> None:
        """The pod has ended; a shared GPU left empty is closed."""
        held = self.decisions.ledger.pod(uid)
        self.decisions.ledger.release(uid)
        self._intree.take(pod, node, sign=-1)
        state = self.decisions.ledger.state(node)
        for share in held.shares if held is not None else ():
            if state is not None and any(gpu.id == share.gpu_id and not gpu.shares for gpu in state.gpus):
                self.decisions.ledger.drop_reservation(node, share.gpu_id)

    def _bind(self, uid: str, request: GpuRequest, node: str) -> None:
        ledger = self.decisions.ledger
        placement = self.decisions.choose(node, request)
        state = ledger.state(node)
        assert isinstance(placement, Placement)
        assert state is not None
        attempt = next(self._attempts)
        new_ids = [self._id(state.node.uid, uid, index, attempt) for index in range(placement.new)]
        ledger.assume(
            uid=uid, namespace="openb", name=uid, node=node, request=request, placement=placement, new_ids=new_ids
        )
        for gpu_id in new_ids:
            ledger.report(node, gpu_id, f"GPU-{gpu_id}", GPU_MIB)
        ledger.confirm(uid)
        self.decisions.claims.end(uid)

    def _id(self, node: str, pod: str, index: int, attempt: int) -> str:
        """Published FGD takes the first GPU of several that are as good: ids then go by the time of opening."""
        return f"share-{attempt:08}-{index}" if self._as_published else reservation_name(node, pod, index, attempt)


def replay(trace: Trace, strategy: str, *, as_published: bool = True) -> Iterator[Placed]:
    """Every arrival in turn; nobody leaves, and what fits nowhere is dropped.

    ``as_published``: as the paper has it, where that differs from the product (both are about FGD).
    """
    return replay_on(Cluster(trace, strategy, as_published=as_published), trace)


def replay_on(cluster: Cluster, trace: Trace) -> Iterator[Placed]:
    """The same on a cluster that the caller may look at afterwards."""
    for index, pod in enumerate(trace.arrivals):
        uid = f"{index}-{pod.name}"
        yield Placed(uid, pod, cluster.place(uid, pod))
