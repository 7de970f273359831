"""The openb traces as Kubernetes objects.

Units: a GPU has 1000 MiB, so that 1 MiB is 1 milli-GPU. One openb milli-CPU is one core: a reservation pod then needs
0.05 of the smallest unit, and nodes get room for one per GPU on top, as 64 MiB of memory each. So opening a shared GPU
never fails for CPU or memory, as in the paper, and free CPU differs from the trace's by less than its smallest unit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from extender.core import names
from extender.core.errors import InputError
from extender.core.models import PRODUCT_LABEL
from extender.core.placement import RESERVATION_NEEDS
from extender.core.requests import GpuRequest
from tests.builders import make_node, make_pod

Json = dict[str, Any]
GPU_MIB = 1000
_RESERVATION_MIB = RESERVATION_NEEDS[names.MEMORY] >> 20
_SLOTS = 1_000_000
_NUMBER = re.compile("[0-9]{1,12}")
_NAME = re.compile("[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?")


@dataclass(frozen=True)
class TraceNode:
    """A line of the node list."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str

    @classmethod
    def of(cls, line: Mapping[str, str | None]) -> Self:
        """Read one line; raises InputError."""
        cpu, memory, gpus = (_number(line, column) for column in ("cpu_milli", "memory_mib", "gpu"))
        return cls(_name(line, "sn"), cpu, memory, gpus, _text(line, "model"))

    def build(self) -> Json:
        """The Node object."""
        return (
            make_node(self.name)
            .cpu(f"{self.cpu_milli * 1000 + self.gpus * RESERVATION_NEEDS[names.CPU]}m")
            .memory(f"{self.memory_mib + self.gpus * _RESERVATION_MIB}Mi")
            .pod_slots(_SLOTS)
            .gpus(self.gpus, mib=GPU_MIB, product=self.model)
            .build()
        )


@dataclass(frozen=True)
class TracePod:
    """A line of a pod list."""

    name: str
    cpu_milli: int
    memory_mib: int
    num_gpu: int
    gpu_milli: int
    #: "A|B": only on these models; empty: on any.
    gpu_spec: str

    @classmethod
    def of(cls, line: Mapping[str, str | None]) -> Self:
        """Read one line; raises InputError."""
        cpu, memory, gpus, milli = (_number(line, c) for c in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"))
        least, most = (0, 0) if gpus == 0 else (1, GPU_MIB) if gpus == 1 else (GPU_MIB, GPU_MIB)
        if not least <= milli <= most:
            raise InputError(f"gpu_milli is {milli} but must be from {least} to {most} where num_gpu is {gpus}")
        return cls(_name(line, "name"), cpu, memory, gpus, milli, line.get("gpu_spec") or "")

    @cached_property
    def models(self) -> frozenset[str]:
        """The GPU models that it may use; none: any."""
        return frozenset(filter(None, map(str.strip, self.gpu_spec.split("|"))))

    @property
    def is_share(self) -> bool:
        """Whether it asks for a part of one GPU."""
        return self.num_gpu == 1 and self.gpu_milli < GPU_MIB

    @property
    def milli(self) -> int:
        """What it asks for in all, in thousandths of a GPU."""
        return self.gpu_milli if self.is_share else self.num_gpu * GPU_MIB

    def build(self, uid: str) -> Json:
        """A pending pod of that UID; its name is the UID too."""
        pod = dict(self._template)
        pod["metadata"] = {**pod["metadata"], "name": uid, "uid": uid}
        return pod

    def make_up(self) -> None:
        """All that takes long of it: in the middle of a replay, that would leave decisions with empty caches."""
        _ = self.request

    @cached_property
    def request(self) -> GpuRequest:
        """What it asks for, read once: replays need not measure the parser twice."""
        request = GpuRequest.from_pod(self._template)
        assert isinstance(request, GpuRequest)
        return request

    @cached_property
    def _template(self) -> Json:
        pod = make_pod(self.name, "openb")
        limits = {} if self.is_share or not self.num_gpu else {names.GPU_RESOURCE: str(self.num_gpu)}
        pod.container(requests={"cpu": str(self.cpu_milli), "memory": f"{self.memory_mib}Mi"}, limits=limits)
        if self.is_share:
            pod.gpu_memory(self.gpu_milli)
        if len(self.models) == 1:
            pod.spec(nodeSelector={PRODUCT_LABEL: min(self.models)})
        elif self.models:
            pod.spec(affinity=_only_on(sorted(self.models)))
        return pod.build()


@dataclass(frozen=True)
class Trace:
    """One trace in one order of arrivals and nodes."""

    nodes: tuple[TraceNode, ...]
    #: The distinct pods of the trace.
    pods: Mapping[str, TracePod]
    #: In the order in which they arrive; pods occur again and again.
    arrivals: tuple[TracePod, ...]
    #: Whether the order of the pods is drawn, not given.
    drawn: bool = False

    @property
    def capacity(self) -> int:
        """Thousandths of a GPU."""
        return sum(node.gpus for node in self.nodes) * GPU_MIB


def _number(line: Mapping[str, str | None], column: str) -> int:
    value = _text(line, column)
    if not _NUMBER.fullmatch(value):
        raise InputError(f"{column} is {value!r} but must be a whole number of at most 12 digits")
    return int(value)


def _name(line: Mapping[str, str | None], column: str) -> str:
    value = _text(line, column)
    if not _NAME.fullmatch(value):
        raise InputError(f"{column} is {value!r} but must be a name as Kubernetes objects have it")
    return value


def _text(line: Mapping[str, str | None], column: str) -> str:
    value = line.get(column)
    if value is None:
        raise InputError(f"{column} is missing")
    return value


def _only_on(models: list[str]) -> Json:
    expression = {"key": PRODUCT_LABEL, "operator": "In", "values": models}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
