"""What a refresh of what is learned costs the decisions: CPU time of filter from body to answer, call by call.

CPU time, so that other work on the machine does not count. Learning itself happens in a process of its own; here it
happens between two calls. What is left for a decision is to copy what was seen, and to score every node anew for the
shape that it is about, once per refresh and shape.
"""

import time
from collections.abc import Callable, Collection
from statistics import median, quantiles

import orjson

from bench.clusters import cluster, node_name, pod_body
from extender import wire
from extender.core.decisions import Decisions, Policy
from extender.core.learned import Learned, refresh
from extender.core.nodereader import read_nodes
from extender.core.seen import Seen
from extender.core.strategies import Strategy
from extender.reflector import Reflector


def measure_refresh(nodes: int, calls: int = 3000) -> str:
    """One line."""
    waiting: list[tuple[Seen, Collection[Strategy], Callable[[Learned], None]]] = []
    decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0, refresher=lambda *job: waiting.append(job))
    snapshot = cluster(nodes, shares_per_gpu=2, shared_gpus=4)
    reflector = Reflector(decisions)
    reflector.nodes(read_nodes(snapshot.nodes))
    reflector.pods(snapshot.pods)
    names = [node_name(i) for i in range(nodes)]
    times, refreshes = [], 0
    for index in range(calls):
        body = pod_body(index, names)
        start = time.thread_time()
        _answer(decisions, body)
        times.append(time.thread_time() - start)
        while waiting:
            seen, strategies, adopt = waiting.pop()
            adopt(refresh(seen, strategies))
            refreshes += 1
    p99 = quantiles(times, n=100)[98]
    return (
        f"filter at {nodes} nodes, {refreshes} refreshes in {calls} calls: p50 {1000 * median(times):.2f} ms of CPU, "
        f"p99 {1000 * p99:.2f} ms, ratio {p99 / median(times):.2f}"
    )


def _answer(decisions: Decisions, body: bytes) -> bytes:
    args = wire.read(wire.ExtenderArgs, body)
    found = decisions.filter(args.pod(), args.names())
    return orjson.dumps(wire.filter_result(args, found.nodes, found.failed, found.unresolvable))


if __name__ == "__main__":
    print(measure_refresh(5000))
