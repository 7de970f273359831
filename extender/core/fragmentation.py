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
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.core.fleet import Ints
from extender.core.options import Nodes, Options, over_devices
from extender.core.shapes import Shapes

Floats = NDArray[np.float64]
#: No GPU has as much.
_MOST_MIB = (1 << 40) - 1
#: No node has more GPUs; requests for more run nowhere.
_MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class _Several:
    """Shares that take the same on each of ``devices`` GPUs, devices above 1."""

    devices: int
    #: kind → MiB on each.
    mib: Ints
    #: [rank of CPU, kind] → weight of those that fit beside that much CPU.
    weight: Floats

    def roomy(self, nodes: Nodes, kind: Ints) -> tuple[Ints, Floats]:
        """How many of each node's shared GPUs have room, and what is free on them, in GPUs."""
        roomy = nodes.free >= self.mib[kind]
        return roomy.sum(axis=0), (nodes.free * roomy).sum(axis=0) / nodes.card

    def usable(self, rank: Ints, kind: Ints, whole: Ints, roomy: Ints, free: Floats) -> Floats:
        """What they can use beside that much CPU, that many whole GPUs and shared ones with room."""
        usable: Floats = self.weight[rank, kind] * (whole + roomy >= self.devices) * (whole + free)
        return usable

    def gained(self, options: Options, kind: Ints, rank: Ints) -> Floats:
        """By how much what they can use grows with each choice."""
        roomy, free = self.roomy(options.nodes, kind)
        before = options.before(self.usable(rank[0], kind, options.whole[0], roomy, free))
        kinds = options.before(kind)
        mib = self.mib[kinds]
        rest, hole = options.left, options.holes * (options.on >= 0)
        roomy = options.before(roomy) + ((rest >= mib) * 1 - (hole >= mib)).sum(axis=0)
        free = options.before(free) + (rest * (rest >= mib) - hole * (hole >= mib)).sum(axis=0) / options.card
        after = self.usable(options.after(rank), kinds, options.after(options.whole), roomy, free)
        gained: Floats = after - before
        return gained


class _Holes(NamedTuple):
    """For each kind which amounts of MiB are alike: no request of one device fits one of them and not the other."""

    #: One kind after the other, MiB by MiB up to its largest request → a number of such amounts, ascending.
    number: NDArray[np.int32]
    #: kind → where its numbers start, and its largest request: what is larger is like it. The last kind is any unknown.
    start: Ints
    largest: Ints

    @classmethod
    def of_requests(cls, requests: Sequence[Ints]) -> "_Holes":
        """``requests``: for each kind the different MiB that are asked for, ascending."""
        largest = [int(asked.max(initial=0)) for asked in requests]
        fitting = [_fitting(asked, most) for asked, most in zip(requests, largest, strict=True)]
        *first, _ = accumulate((len(asked) + 1 for asked in requests), initial=0)
        *start, _ = accumulate(map(len, fitting), initial=0)
        numbers = [counts + number for counts, number in zip(fitting, first, strict=True)]
        return cls(np.concatenate(numbers, dtype=np.int32), np.array(start), np.array(largest))

    def of(self, kind: Ints, mib: Ints) -> NDArray[np.int32]:
        """The numbers of these amounts, the last axis of which is that of the kinds."""
        return self.number.take(self.start.take(kind) + np.minimum(mib, self.largest.take(kind)))

    def first(self, kind: int) -> int:
        """The number of too little for any request, on that kind."""
        return int(self.number[self.start[kind]])


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """F for one set of weighted shapes; build it with ``fragmentation_of``."""

    total: float
    #: CPU requests that occur, ascending.
    cpu: Ints
    #: [rank of CPU, column of a hole] → weight of the one-device shapes that fit into it.
    single: Floats
    #: What fills a column of ``single``.
    holes: _Holes
    #: [rank of CPU, kind, free whole GPUs] → weight of all shapes that can use each of these GPUs, several or one.
    whole: Floats
    several: tuple[_Several, ...]
    #: Kinds that were known; nodes of any other count as useless for all.
    kinds: int

    def of(self, nodes: Nodes) -> Floats:
        """F of each node, in GPUs."""
        kind = np.minimum(nodes.kind, self.kinds)
        cpu, whole = nodes.cpu[None], nodes.whole[None]
        rank = self._rank(cpu)
        usable = self._usable(nodes, kind, rank, whole)[0]
        for shape in self.several:
            usable += shape.usable(rank, kind, whole, *shape.roomy(nodes, kind))[0]
        useless: Floats = self.total * free_gpus(nodes) - usable
        return useless

    def change(self, options: Options, taken: Floats) -> Floats:
        """F after each choice less F before: what the node's other GPUs lose with the CPU, and what the chosen lose.

        ``taken``: what the choices take, in GPUs.
        """
        nodes = options.nodes
        kind = np.minimum(nodes.kind, self.kinds)
        rank = self._rank(options.cpu)
        usable = self._usable(nodes, kind, rank, options.whole)
        gained = options.after(usable) - options.before(usable[0])
        if options.is_share:
            gained += self._of_devices(options, kind, options.after(rank))
        for shape in self.several:
            gained += shape.gained(options, kind, rank)
        change: Floats = -self.total * taken - gained
        return change

    def _usable(self, nodes: Nodes, kind: Ints, rank: Ints, whole: Ints) -> Floats:
        """Σ_k w_k · what k can use of each node beside that much CPU and that many whole GPUs (one row for each case),
        for shapes of one device or whole GPUs."""
        weight = _at(self.single, rank[:, None], self.holes.of(kind, nodes.free))
        kinds, most = self.whole.shape[1:]
        # Below no GPU: opening more than are free is nobody's choice, and its entry is not read.
        weights = self.whole.take((rank * kinds + kind) * most + np.minimum(whole, most - 1), mode="clip")
        usable: Floats = np.einsum("rgn,gn->rn", weight, nodes.free) / nodes.card + whole * weights
        return usable

    def _of_devices(self, options: Options, kind: Ints, rank: Ints) -> Floats:
        """What shapes of one device gain by the rest of the chosen GPUs, less what they lose by the holes before."""
        # A GPU that is opened was no hole before: it was a whole GPU.
        mib = options.free.copy()
        mib[0] *= options.on >= 0
        worth = _at(self.single, rank, self.holes.of(options.before(kind), mib)) * mib
        change = worth[1] - worth[0]
        gained: Floats = over_devices(change) / options.card
        return gained

    def _rank(self, cpu: Ints) -> Ints:
        return self.cpu.searchsorted(cpu, "right")


def _at(table: Floats, row: Ints, column: NDArray[np.integer]) -> Floats:
    """The entries of a table; much faster than by two indices."""
    found: Floats = table.take(row * table.shape[1] + column)
    return found


def free_gpus(nodes: Nodes) -> Floats:
    """What is free on each node, in GPUs."""
    free: Floats = nodes.whole + np.add.reduce(nodes.free) / nodes.card
    return free


def fragmentation_of(shapes: Shapes, weights: Floats) -> Fragmentation:
    """The tables for these weights. Shapes without GPUs count with all that is free."""
    asking = shapes.devices > 0
    cpu = np.unique(shapes.cpu[asking])
    single, holes = _single(shapes, weights, cpu)
    several = tuple(_several(shapes, group, weights, cpu) for group in shapes.on_several())
    whole = _whole(shapes, weights, cpu)
    return Fragmentation(float(weights.sum()), cpu, single, holes, whole, several, shapes.mib.shape[1])


def _single(shapes: Shapes, weights: Floats, cpu: Ints) -> tuple[Floats, _Holes]:
    kinds = range(shapes.mib.shape[1])
    fits = (shapes.mib >= 0) & (shapes.devices == 1)[:, None]
    requests = [np.unique(shapes.mib[fits[:, kind], kind]) for kind in kinds]
    holes = _Holes.of_requests([*requests, np.zeros(0, np.int64)])
    shape, kind = np.nonzero(fits)
    column = holes.of(kind, shapes.mib[shape, kind])
    table = np.zeros((len(cpu) + 1, int(holes.number[-1]) + 1))
    np.add.at(table, (cpu.searchsorted(shapes.cpu[shape]) + 1, column), weights[shape])
    table = table.cumsum(axis=0)
    # What is smaller on another kind is no smaller request on this one.
    starts = [holes.first(kind) for kind in (*kinds, len(kinds))]
    for start, end in zip(starts, [*starts[1:], table.shape[1]], strict=True):
        table[:, start:end] = table[:, start:end].cumsum(axis=1)
    return table, holes


def _fitting(requests: Ints, largest: int) -> Ints:
    """For 0 to ``largest`` MiB how many of the requests fit, each by itself."""
    return np.repeat(np.arange(len(requests) + 1), np.diff(requests, prepend=0, append=largest + 1))


def _whole(shapes: Shapes, weights: Floats, cpu: Ints) -> Floats:
    """Shares on several devices are not among these: they can use shared GPUs too."""
    one_or_whole = (shapes.whole | (shapes.devices == 1)) & (shapes.devices <= _MOST_GPUS)
    shape, kind = np.nonzero((shapes.mib >= 0) & one_or_whole[:, None])
    devices = shapes.devices[shape]
    table = np.zeros((len(cpu) + 1, shapes.mib.shape[1] + 1, int(devices.max(initial=1)) + 1))
    np.add.at(table, (cpu.searchsorted(shapes.cpu[shape]) + 1, kind, devices), weights[shape])
    return table.cumsum(axis=0).cumsum(axis=2)


def _several(shapes: Shapes, group: Ints, weights: Floats, cpu: Ints) -> _Several:
    kinds = shapes.mib.shape[1]
    mib = np.full(kinds + 1, _MOST_MIB, np.int64)
    weight = np.zeros((len(cpu) + 1, kinds + 1))
    fits = shapes.mib[group] >= 0
    mib[:-1] = np.where(fits.any(axis=0), shapes.mib[group].max(axis=0), _MOST_MIB)
    np.add.at(weight[:, :-1], cpu.searchsorted(shapes.cpu[group]) + 1, fits * weights[group, None])
    return _Several(int(shapes.devices[group[0]]), mib, weight.cumsum(axis=0))


def usable_by_shape(shapes: Shapes, nodes: Nodes) -> Floats:
    """For each shape what it can use of all nodes together, in GPUs; 0 for shapes without GPUs."""
    found = np.zeros(len(shapes.cpu))
    order = np.argsort(-nodes.cpu)
    less = -nodes.cpu[order]
    for group in shapes.alike():
        usable = _usable_by(shapes, int(group[0]), nodes)
        # From the node with most CPU down: what is usable beside at least that much CPU.
        sums = np.append(0.0, usable[order].cumsum())
        found[group] = sums[less.searchsorted(-shapes.cpu[group], "right")]
    return found


def _usable_by(shapes: Shapes, index: int, nodes: Nodes) -> Floats:
    """What the shape can use of each node, whatever CPU is left there."""
    devices = shapes.devices[index]
    mib = shapes.mib[index][nodes.kind]
    if shapes.whole[index] and devices > 1:
        whole: Floats = nodes.whole * ((mib >= 0) & (nodes.whole >= devices)).astype(float)
        return whole
    roomy = nodes.free >= np.where(mib >= 0, mib, _MOST_MIB)
    enough = (mib >= 0) & (nodes.whole + roomy.sum(axis=0) >= devices)
    usable: Floats = (nodes.whole + (nodes.free * roomy).sum(axis=0) / nodes.card) * enough
    return usable
