"""Prometheus metrics: names are part of the contract, units are in the names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from extender.core.values import GpuState, NodeState

MIB = 1024 * 1024
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the gauges show, taken in one tick."""

    states: Sequence[NodeState]
    #: Seconds.
    oldest_assumed: float
    #: Node → MiB that are free but useless for the requests seen.
    fragmented: Mapping[str, float]


class Metrics:
    """The counters that handlers feed; gauges are read off the ledger at each scrape."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.duration = Histogram(
            "gpu_extender_verb_duration_seconds",
            "Time from a verb's body to its answer.",
            ["verb"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self.results = self._counter("verb_results", "Answers by verb and result.", "verb", "result")
        self.rejections = self._counter("node_rejections", "Nodes that filter found unfit, by reason.", "reason")
        self.differences = self._counter(
            "ledger_differences", "Differences found between ledger and API, by kind.", "kind"
        )
        self.repairs = self._counter(
            "relist_repairs", "Objects of which only a new list has shown what the watch had missed.", "object", "kind"
        )
        self.watch_failures = self._counter("watch_failures", "Lists and watches that the API broke off.", "object")
        self.background = self._counter("background_acts", "What the background work has done or found.", "kind")

    def add(self, collector: Collector) -> None:
        """Show what somebody else counts."""
        self._registry.register(collector)

    def render(self, scrape: Scrape) -> bytes:
        """Prometheus text of the counters, and of the gauges at that moment.

        Changes nothing, reads nothing that changes: it may run in a thread.
        """
        gauges = CollectorRegistry()
        gauges.register(_Gauges(scrape))
        return generate_latest(self._registry) + generate_latest(gauges)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gpu_extender_{name}", text, labels, registry=self._registry)


class _Gauges(Collector):
    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterable[GaugeMetricFamily]:
        memory = GaugeMetricFamily(
            "gpu_extender_gpu_memory_bytes",
            "GPU memory of a node: all of it, given out as shares, held as whole GPUs.",
            labels=["node", "kind"],
        )
        lost = 0
        for state in self._scrape.states:
            lost += sum(gpu.state is GpuState.LOST for gpu in state.gpus)
            for kind, mib in _memory(state).items():
                memory.add_metric([state.name, kind], float(mib * MIB))
        yield memory
        yield _gauge("gpu_extender_lost_gpus", "Shared GPUs whose device no reservation pod holds.", lost)
        yield _gauge(
            "gpu_extender_assumed_share_age_seconds",
            "Age of the oldest share that is assumed and not yet confirmed; 0 if there is none.",
            self._scrape.oldest_assumed,
        )
        yield from self._fragmentation()

    def _fragmentation(self) -> Iterable[GaugeMetricFamily]:
        by_node = GaugeMetricFamily(
            "gpu_extender_gpu_memory_fragmented_bytes",
            "GPU memory of a node that is free but useless for what pods have asked for lately.",
            labels=["node"],
        )
        found = {node: round(mib * MIB) for node, mib in self._scrape.fragmented.items()}
        for node, fragmented in found.items():
            by_node.add_metric([node], fragmented)
        yield by_node
        yield _gauge(
            "gpu_extender_cluster_gpu_memory_fragmented_bytes",
            "The same, of all nodes together.",
            sum(found.values()),
        )


def _memory(state: NodeState) -> dict[str, int]:
    card = state.inventory.memory_mib
    if not card:
        return {}
    return {
        "total": state.inventory.total_mib,
        "shared": sum(gpu.used_mib for gpu in state.gpus),
        "whole": card * state.whole_held,
    }


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
