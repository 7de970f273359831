"""FGD as the paper's simulator computes it, to the last bit: its score is truncated, so rounding decides between nodes.

Where F does not change the score is 50, or 49 if the sums came out a trifle apart. On gpuspec10 that is worth 0.1 % of
the GPUs. Source: hkust-adsl/kubernetes-scheduler-simulator, pkg/utils/frag.go and pkg/simulator/plugin/fgd_score.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.packing.openb import GPU_MIB, TracePod
from extender.core import names
from extender.core.fleet import Ints
from extender.core.options import Options, Order
from extender.core.seen import Seen
from extender.core.shapes import Shape
from extender.core.strategies.fgd import COVERED
from extender.core.workload import Workload

Floats = NDArray[np.float64]
#: No GPU has as much.
_NO_GPU = 1 << 40
#: The sums that F is added up from, in this order: what is useless for lack of GPU and CPU, of GPU, of CPU, for pods
#: without GPUs that have the CPU and those that lack it, and on other models. The simulator keeps them apart.
BOTH, GPU, CPU, CPU_POD, CPU_POD_LACKS, MODEL = range(6)


class Foreknown(Workload):
    """Learns nothing more: all pods of the trace are known from the start, all counting the same."""

    def __init__(self, pods: Mapping[str, TracePod]) -> None:
        super().__init__(shapes=max(1, len(pods)), half_life=float("inf"))
        for name, pod in pods.items():
            # The simulator counts texts: "A|B|B" is another shape than "A|B". No node has a text of several as model.
            self.count(name, Shape.of(pod.request, frozenset((*pod.models, pod.gpu_spec)) if pod.models else None))

    def is_due(self) -> bool:
        """Never again."""
        return False


@dataclass(frozen=True, slots=True)
class TypicalPods:
    """The typical pods, the most frequent first."""

    #: Parts of 1.
    frequency: Floats
    #: CPU in milli, GPUs; 0 = none.
    cpu: Ints
    devices: Ints
    #: [pod, kind] → MiB of each GPU; more than any has where it may not run.
    mib: Ints

    @classmethod
    def of(cls, seen: Seen) -> "TypicalPods":
        """By frequency; of shapes equally frequent those with more CPU first, then more GPU, then the later text."""
        ranks = [(count, *_rank(shape)) for shape, count in zip(seen.shapes, seen.counts.tolist(), strict=True)]
        places = sorted(range(len(ranks)), key=ranks.__getitem__, reverse=True)
        counts, total = seen.counts[places], seen.counts.sum()
        covered = counts.cumsum()
        count = int(covered.searchsorted(COVERED * total / 100)) + 1
        typical = places[:count]
        mib = seen.table.mib[typical]
        return cls(
            counts[:count] / total / (covered[:count][-1] / total),
            seen.table.cpu[typical],
            seen.table.devices[typical],
            np.where(mib >= 0, mib, _NO_GPU),
        )

    def useless(self, kind: Ints, cpu: Ints, whole: Ints, free: Ints) -> Floats:
        """F, in MiB, of nodes of that kind with so much CPU, so many whole GPUs, and [GPU, node] MiB on shared ones."""
        frequency, mib = self.frequency[:, None], self.mib[:, kind]
        total = whole * GPU_MIB + free.sum(axis=0)
        roomy, short = whole * (mib <= GPU_MIB), np.zeros_like(mib)
        for gpu in free:
            roomy += gpu >= mib
            short += gpu * (gpu < mib)
        has_gpus, has_cpu = roomy >= self.devices[:, None], cpu >= self.cpu[:, None]
        reason = np.select(
            [self.devices[:, None] == 0, mib == _NO_GPU, has_gpus, has_cpu],
            [np.where(has_cpu, CPU_POD, CPU_POD_LACKS), MODEL, np.where(has_cpu, GPU, CPU), GPU],
            BOTH,
        )
        lost = frequency * np.where((mib <= GPU_MIB) & has_gpus & has_cpu, short, total)
        # One after the other: numpy's sum would pair them.
        sums = [np.where(reason == which, lost, 0.0).cumsum(axis=0)[-1] for which in range(MODEL + 1)]
        useless: Floats = sum(sums[1:], sums[0])
        return useless


class PublishedFgd:
    """cost = -int(100 · sigmoid((F before - F after) / 1000)), F in thousandths of a GPU."""

    name = names.FGD
    fills_first = False
    order = Order.BY_ID
    weights: Final[Mapping[str, float]] = {}

    def learn(self, seen: Seen) -> TypicalPods:
        """What F is made of."""
        return TypicalPods.of(seen)

    def terms(self, options: Options, learned: TypicalPods) -> Mapping[str, Floats]:
        """See the class."""
        change = self.change(options, learned)
        return {"fragmentation": -np.floor(100 / (1 + np.exp(change)))}

    def change(self, options: Options, typical: TypicalPods) -> Floats:
        """F after each choice less F before, in GPUs."""
        nodes = options.nodes
        before = typical.useless(nodes.kind, nodes.cpu, nodes.whole, nodes.free)
        kind, cpu, whole = options.before(nodes.kind), options.after(options.cpu), options.after(options.whole)
        after = typical.useless(kind, cpu, whole, _free_after(options))
        change: Floats = (after - options.before(before)) / GPU_MIB
        return change


def _rank(shape: Shape) -> tuple[int, int, int, str]:
    per_gpu = shape.share.mib_of(GPU_MIB) if shape.share is not None else GPU_MIB * bool(shape.devices)
    return shape.cpu, per_gpu, shape.devices, max(map(str, shape.products or ("",)), key=len)


def _free_after(options: Options) -> Ints:
    """[GPU, choice] → free MiB on the shared GPUs after each choice, and on one that it opens."""
    free = options.nodes.free
    if not options.is_share:
        return free
    choices = np.arange(len(options.node))
    on, left = options.on[0], options.left[0]
    after = np.zeros((len(free) + 1, len(choices)), np.int64)
    after[:-1] = free[:, options.node]
    # The place before the first one is the last: that of a GPU that is opened.
    after[on, choices] = left
    return after
