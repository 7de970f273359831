"""How much free GPU memory is useless for the requests that people make.

F(n) = Σ_k w_k · f_k(n) over shapes k of weight w_k, in GPUs. f_k(n) is all that is free on node n if k cannot run
there (its CPU, its GPU model, too few GPUs with room) or asks for no GPU; else what is free on GPUs that have less
than one device of k takes. Source: Weng et al., "Beware of Fragmentation", USENIX ATC'23.

Equivalently F(n) = W · free(n) − usable(n), where usable adds up w_k · (free on GPUs with room for k) over the k
that can run. For requests of one device that is Σ_g L_g · A(cpu, L_g), A being the weight of all that fit beside
that much CPU and memory: a table, so a node costs one look-up per GPU however many shapes there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extender.core.fleet import Ints, Kind
from extender.core.options import Nodes
from extender.core.shapes import Shape

Floats = NDArray[np.float64]
#: Bits for MiB in a key of kind and MiB.
_KIND_SHIFT = 40
_MOST_MIB = (1 << _KIND_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class _Several:
    """Shapes that take the same on each of ``devices`` GPUs, devices above 1."""

    devices: int
    #: kind → MiB on each.
    mib: Ints
    #: [rank of CPU, kind] → weight of those that fit beside that much CPU.
    weight: Floats


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """F for one set of weighted shapes; build it with ``fragmentation_of``."""

    total: float
    #: CPU requests that occur, ascending.
    cpu: Ints
    #: kind and MiB requests that occur, ascending.
    mib: Ints
    #: [rank of CPU, rank of kind and MiB + kind] → weight of the one-device shapes that fit.
    single: Floats
    several: tuple[_Several, ...]
    #: Kinds that were known; nodes of any other count as useless for all.
    kinds: int

    def usable(self, nodes: Nodes) -> Floats:
        """Σ_k w_k · what k can use of the node, in GPUs."""
        kind = np.minimum(nodes.kind, self.kinds)
        cpu = np.searchsorted(self.cpu, nodes.cpu, "right")
        sizes = np.column_stack((nodes.free, nodes.card))
        counts = np.ones_like(sizes)
        counts[:, -1] = nodes.whole
        rank = np.searchsorted(self.mib, (kind[:, None] << _KIND_SHIFT) + sizes, "right") + kind[:, None]
        amounts = sizes * counts
        found: Floats = (amounts * self.single[cpu[:, None], rank]).sum(axis=1)
        for shape in self.several:
            roomy = sizes >= shape.mib[kind][:, None]
            enough = (counts * roomy).sum(axis=1) >= shape.devices
            found += shape.weight[cpu, kind] * enough * (amounts * roomy).sum(axis=1)
        return found / nodes.card

    def of(self, nodes: Nodes) -> Floats:
        """F of each node, in GPUs."""
        return self.total * free_gpus(nodes) - self.usable(nodes)


def free_gpus(nodes: Nodes) -> Floats:
    """What is free on each node, in GPUs."""
    free: Floats = nodes.whole + nodes.free.sum(axis=1) / nodes.card
    return free


def fragmentation_of(
    shapes: Sequence[Shape], weights: Sequence[float] | Floats, kinds: Sequence[Kind]
) -> Fragmentation:
    """The tables for these weights. Shapes without GPUs count with all that is free."""
    weighted = [(shape, float(w)) for shape, w in zip(shapes, weights, strict=True)]
    asking = [(shape, w) for shape, w in weighted if shape.devices]
    cpu = np.unique(np.array([shape.cpu for shape, _ in asking], np.int64))
    singles = [(shape, w) for shape, w in asking if shape.devices == 1]
    mib, single = _single(singles, kinds, cpu)
    groups: dict[object, list[tuple[Shape, float]]] = {}
    for shape, weight in asking:
        if shape.devices > 1:
            groups.setdefault(shape.per_device, []).append((shape, weight))
    several = tuple(_several(group, kinds, cpu) for group in groups.values())
    return Fragmentation(sum(w for _, w in weighted), cpu, mib, single, several, len(kinds))


def _single(
    singles: Sequence[tuple[Shape, float]], kinds: Sequence[Kind], cpu: Ints
) -> tuple[Ints, Floats]:
    entries = [
        (shape.cpu, (index << _KIND_SHIFT) + mib, index, weight)
        for index, kind in enumerate(kinds)
        for shape, weight in singles
        if (mib := shape.mib_on(kind)) is not None
    ]
    keys = np.unique(np.array([key for _, key, _, _ in entries], np.int64))
    table = np.zeros((len(cpu) + 1, len(keys) + len(kinds) + 1))
    for own_cpu, key, index, weight in entries:
        row = np.searchsorted(cpu, own_cpu) + 1
        table[row, np.searchsorted(keys, key) + 1 + index] += weight
    table = table.cumsum(axis=0)
    # Ranks go on over kinds; what is smaller on another kind is no smaller request on this one.
    starts = np.searchsorted(keys, np.arange(len(kinds) + 1) << _KIND_SHIFT) + np.arange(len(kinds) + 1)
    for start, end in zip(starts, [*starts[1:], table.shape[1]], strict=True):
        table[:, start:end] = table[:, start:end].cumsum(axis=1)
    return keys, table


def _several(group: Sequence[tuple[Shape, float]], kinds: Sequence[Kind], cpu: Ints) -> _Several:
    weight = np.zeros((len(cpu) + 1, len(kinds) + 1))
    mib = np.full(len(kinds) + 1, _MOST_MIB, np.int64)
    for shape, own in group:
        for index, kind in enumerate(kinds):
            amount = shape.mib_on(kind)
            if amount is not None:
                mib[index] = amount
                weight[np.searchsorted(cpu, shape.cpu) + 1, index] += own
    return _Several(group[0][0].devices, mib, weight.cumsum(axis=0))


def usable_by_shape(shapes: Sequence[Shape], nodes: Nodes, kinds: Sequence[Kind]) -> Floats:
    """For each shape what it can use of all nodes together, in GPUs; 0 for shapes without GPUs."""
    found = np.zeros(len(shapes))
    sizes = np.column_stack((nodes.free, nodes.card))
    counts = np.ones_like(sizes)
    counts[:, -1] = nodes.whole
    amounts = sizes * counts / nodes.card[:, None]
    groups: dict[object, list[int]] = {}
    for index, shape in enumerate(shapes):
        if shape.devices:
            groups.setdefault((shape.per_device, shape.products), []).append(index)
    for indices in groups.values():
        first = shapes[indices[0]]
        mib = np.array([_MOST_MIB if (m := first.mib_on(kind)) is None else m for kind in kinds], np.int64)
        roomy = sizes >= mib[nodes.kind][:, None]
        usable = (amounts * roomy).sum(axis=1) * ((counts * roomy).sum(axis=1) >= first.devices)
        for index in indices:
            found[index] = usable[nodes.cpu >= shapes[index].cpu].sum()
    return found
