"""Prometheus metrics: names are part of the contract, units are in the names."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from extender.core.values import GpuState, NodeState

MIB = 1024 * 1024
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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

    def render(self, states: Sequence[NodeState], oldest_assumed: float) -> bytes:
        """Prometheus text of the counters, and of the gauges for these states of the nodes.

        ``oldest_assumed``: seconds. Changes nothing, reads nothing that changes: it may run in a thread.
        """
        gauges = CollectorRegistry()
        gauges.register(_Gauges(states, oldest_assumed))
        return generate_latest(self._registry) + generate_latest(gauges)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gpu_extender_{name}", text, labels, registry=self._registry)


class _Gauges(Collector):
    def __init__(self, states: Sequence[NodeState], oldest_assumed: float) -> None:
        self._states = states
        self._oldest_assumed = oldest_assumed

    def collect(self) -> Iterable[GaugeMetricFamily]:
        memory = GaugeMetricFamily(
            "gpu_extender_gpu_memory_bytes",
            "GPU memory of a node: all of it, given out as shares, held as whole GPUs.",
            labels=["node", "kind"],
        )
        lost = 0
        for state in self._states:
            lost += sum(gpu.state is GpuState.LOST for gpu in state.gpus)
            for kind, mib in _memory(state).items():
                memory.add_metric([state.name, kind], float(mib * MIB))
        yield memory
        yield _gauge("gpu_extender_lost_gpus", "Shared GPUs whose device no reservation pod holds.", lost)
        yield _gauge(
            "gpu_extender_assumed_share_age_seconds",
            "Age of the oldest share that is assumed and not yet confirmed; 0 if there is none.",
            self._oldest_assumed,
        )


def _memory(state: NodeState) -> dict[str, int]:
    card = state.inventory.memory_mib
    if not card:
        return {}
    return {
        "total": card * (state.inventory.physical_gpus or 0),
        "shared": sum(gpu.used_mib for gpu in state.gpus),
        "whole": card * state.whole_held,
    }


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
