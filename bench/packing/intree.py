"""kube-scheduler's own filters, as far as the traces need them: CPU, memory and GPU model."""

import numpy as np
from numpy.typing import NDArray

from bench.packing.openb import TraceNode, TracePod


class InTree:
    """What is free on each node, in the trace's units; reservation pods do not count."""

    def __init__(self, nodes: tuple[TraceNode, ...]) -> None:
        self.position = {node.name: index for index, node in enumerate(nodes)}
        self._names = np.array([node.name for node in nodes], object)
        self._free = np.array([(node.cpu_milli, node.memory_mib) for node in nodes], np.int64)
        self._models = np.array([node.model for node in nodes])
        self._allowed: dict[frozenset[str], NDArray[np.bool_]] = {}

    def passing(self, pod: TracePod) -> list[str]:
        """The names that kube-scheduler would ask about, in the order of the nodes."""
        passing = (self._free[:, 0] >= pod.cpu_milli) & (self._free[:, 1] >= pod.memory_mib)
        if pod.models:
            passing &= self._of_models(pod.models)
        found: list[str] = self._names[passing].tolist()
        return found

    def take(self, pod: TracePod, node: str, sign: int = 1) -> None:
        """The pod is bound there; ``sign`` -1: it has gone."""
        free = self._free[self.position[node]]
        free[0] -= sign * pod.cpu_milli
        free[1] -= sign * pod.memory_mib

    def _of_models(self, models: frozenset[str]) -> NDArray[np.bool_]:
        allowed = self._allowed.get(models)
        if allowed is None:
            allowed = self._allowed[models] = np.isin(self._models, sorted(models))
        return allowed
