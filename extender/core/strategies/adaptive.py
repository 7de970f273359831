"""Learn what people ask for, and place each pod where it costs them least.

Grown from fragmentation gradient descent (see ``fgd``): all shapes count and not only the typical ones, the weight of
a shape grows as the room for it shrinks, and a hole in a GPU has the value that the cutting-stock dual gives it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.fragmentation import Fragmentation, fragmentation_of, free_gpus, usable_by_shape
from extender.core.holes import GRID, hole_values, waste_of
from extender.core.options import Nodes, Options, Order, over_devices
from extender.core.seen import Seen

Floats = NDArray[np.float64]

#: A shape that can use one part in s of what is free weighs s times as much, up to this factor.
MOST_SCARCE = 64.0
#: A shape of several GPUs weighs s^SEVERAL times as much, up to the same factor: a node that is broken into serves it
#: again only when all who came there have left, so such nodes have to be kept while there are some.
SEVERAL = 3.0
#: What the terms weigh beside fragmentation, which is in GPUs: losing a whole hole's value, a GPU without CPU, and a
#: GPU of a model that others cannot do without.
HOLE = 10.0
STARVED = 0.4
SCARCE_MODEL = 0.3
#: What an untouched GPU is worth beyond what was asked for so far: it can still serve whatever comes.
UNTOUCHED = 0.05
#: What each free GPU of a node costs: it decides only between nodes that cost the same otherwise, as all do while
#: little has been seen. Fewer others can use the fuller one.
FREE_GPU = 2.0**-20


@dataclass(frozen=True, slots=True)
class AdaptiveLearned:
    """What the costs depend on besides the nodes."""

    fragmentation: Fragmentation
    #: [kind, thousandths of a GPU] → value of such a hole; the last kind is any unknown one.
    holes: Floats
    #: CPU in milli that is in use beside each GPU in use; infinite while none is.
    cpu_per_gpu: float
    #: kind → how much demand that can go nowhere else presses on what is free of its model; the last is any unknown.
    scarcity: Floats
    #: kind → cost of opening a GPU; the last is any unknown.
    opening: Floats


class Adaptive:
    """cost = Σ_k w_k · Δf_k(n)                                   fragmentation, in GPUs
         + 10  · Σ_devices [ V(L) - V(L - m) ]                    shares: what the holes lose in value
         + 0.4 · Δ max(0, free GPUs(n) - free CPU(n) / d)         GPUs that CPU can no longer feed
         + 0.3 · G · scarcity(model of n)                         GPUs that other pods cannot do without
         + O · (0.05 + waste · Σ_shares w_k)                      GPUs opened
         + 2^-20 · free GPUs(n)                                   of equals the fullest node.

    w_k = p_k · min(64, (R / U_k)^e): p is the shape's frequency among pods that ask for GPUs, summing to 1; R is what
    is free in the cluster, U_k what of it k can use; e = 3 for several GPUs, else 1. V: see ``holes``; L is what is
    free on the GPU, m what is taken. d is the CPU in use per GPU in use, on nodes that have GPUs. G is what the pod
    takes, in GPUs. scarcity(j) = min(1, S_j / f_j): S_j sums, over the shapes restricted to models among which j is,
    share of demand / share of capacity; f_j is the free part of j. At most 1: a GPU taken costs those that can go
    nowhere else one GPU and no more. What is asked of a model beyond its capacity is lost anyway, and must not drive
    others onto the nodes that large pods need. O: how many GPUs the pod opens. waste: the part of a GPU that stays
    useless even where the shares are packed as well as can be (two 0.4 leave 0.2). Fragmentation notices it only when
    a GPU fills up, as if it were better to open another one; it is charged with the opening. A node opens none while
    a shared one has room, whatever the sum says.

    Pods without GPUs have no say, however many there are: only the CPU that they take beside GPUs counts, in d.
    """

    name = names.ADAPTIVE
    fills_first = True
    order = Order.TIGHTEST
    weights: Final = {
        "value of its hole": HOLE,
        "GPUs without CPU": STARVED,
        "scarcity of the GPU model": SCARCE_MODEL,
        "free GPUs of its node": FREE_GPU,
    }

    def learn(self, seen: Seen) -> AdaptiveLearned:
        """Everything but the nodes' own state."""
        gpus = seen.gpus()
        weights = _weights(seen)
        holes, waste = _holes(seen)
        shares = float(weights[~seen.table.whole].sum())
        return AdaptiveLearned(
            fragmentation_of(seen.table, weights),
            holes,
            _cpu_per_gpu(seen.nodes),
            _scarcity(seen, gpus),
            UNTOUCHED + shares * waste,
        )

    def terms(self, options: Options, learned: AdaptiveLearned) -> Mapping[str, Floats]:
        """See the class."""
        nodes = options.nodes
        kind = options.before(np.minimum(nodes.kind, len(learned.scarcity) - 1))
        taken = options.taken()
        free = free_gpus(nodes)
        terms = {
            "fragmentation": learned.fragmentation.change(options, taken),
            "GPUs without CPU": _starved(options, free, learned.cpu_per_gpu, taken),
            "free GPUs of its node": options.before(free),
        }
        if options.is_share:
            terms["value of its hole"] = _lost(options, learned.holes, kind)
            terms["opening GPUs"] = options.opened * learned.opening.take(kind)
        if np.count_nonzero(learned.scarcity):
            terms["scarcity of the GPU model"] = learned.scarcity.take(kind) * taken
        return terms


def _starved(options: Options, free: Floats, cpu_per_gpu: float, taken: Floats) -> Floats:
    """How many more GPUs CPU can no longer feed; ``free``: GPUs of each node."""
    unfed = free - options.cpu / cpu_per_gpu
    before = options.before(np.maximum(0, unfed[0]))
    starved: Floats = np.maximum(0, options.after(unfed) - taken) - before
    return starved


def _lost(options: Options, values: Floats, kind: NDArray[np.int64]) -> Floats:
    start = kind * values.shape[1]
    # A GPU may turn out larger than its node says: then its hole counts like a whole card.
    worth = values.take(start + np.minimum(options.free * GRID // options.card, GRID))
    return over_devices(worth[0] - worth[1])


def _weights(seen: Seen) -> Floats:
    usable = usable_by_shape(seen.table, seen.nodes)
    free = float(free_gpus(seen.nodes).sum())
    exponent = np.where(seen.table.devices > 1, SEVERAL, 1.0)
    scarce = np.minimum(MOST_SCARCE, (free / np.maximum(usable, 1e-9)) ** exponent)
    weights: Floats = seen.frequency() * scarce
    return weights


def _holes(seen: Seen) -> tuple[Floats, Floats]:
    """Of each kind, and of any unknown one: the value of holes, and the part of a GPU that the best packing wastes."""
    demands = {card: _demand(seen, card) for card in {kind.card for kind in seen.kinds}}
    values = {card: hole_values(demand) for card, demand in demands.items()}
    waste = {card: waste_of(demand, values[card]) for card, demand in demands.items()}
    cards = [kind.card for kind in seen.kinds]
    return np.array([*(values[card] for card in cards), hole_values({})]), np.array([*(waste[c] for c in cards), 0.0])


def _demand(seen: Seen, card: int) -> dict[int, float]:
    """Thousandths of such a GPU → how often a device of that much is asked for."""
    demand: dict[int, float] = {}
    for shape, count in zip(seen.shapes, seen.counts.tolist(), strict=True):
        mib = shape.share.mib_of(card) if shape.share is not None else card + 1
        if mib <= card:
            size = max(1, round(mib * GRID / card))
            demand[size] = demand.get(size, 0.0) + count * shape.devices
    return demand


def _cpu_per_gpu(nodes: Nodes) -> float:
    # What is in use, not what was asked for: pods without GPUs count where they run beside GPUs that may be taken
    # whole, and nowhere else.
    ours = nodes.gpus > 0
    gpus = float((nodes.gpus - free_gpus(nodes))[ours].sum())
    cpu = float((nodes.all_cpu - nodes.cpu)[ours].sum())
    return cpu / gpus if cpu > 0 and gpus > 0 else np.inf


def _scarcity(seen: Seen, gpus: Floats) -> Floats:
    """Nothing but zeros where no pod names a model."""
    capacity = seen.capacity()
    free = np.bincount(seen.nodes.kind, free_gpus(seen.nodes), minlength=len(seen.kinds)).astype(float)
    demand = seen.counts * gpus
    pressure = np.zeros(len(seen.kinds))
    for shape, mib, asked in zip(seen.shapes, seen.table.mib, demand.tolist(), strict=True):
        allowed = float(capacity[mib >= 0].sum())
        if shape.products is not None and allowed > 0:
            pressure[mib >= 0] += (asked / demand.sum()) / (allowed / capacity.sum())
    products = np.array([_first_of(seen, kind) for kind in range(len(seen.kinds))], np.int64)
    free_part = _sums(products, free) / np.maximum(_sums(products, capacity), 1e-9)
    scarcity = np.minimum(1.0, pressure / np.maximum(free_part, 1e-9))
    return np.append(scarcity, 0.0)


def _first_of(seen: Seen, kind: int) -> int:
    """The first kind of the same model."""
    return next(i for i, other in enumerate(seen.kinds) if other.product == seen.kinds[kind].product)


def _sums(groups: NDArray[np.int64], amounts: Floats) -> Floats:
    """For each entry the sum over its group."""
    return np.bincount(groups, amounts, minlength=len(groups))[groups].astype(float)
