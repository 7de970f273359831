"""Counts the shapes of the pods that arrive, each pod once, the older the less.

Most pods of a cluster may want no GPU. They are counted, too, but only pods that ask for GPUs make others old.
"""

from collections.abc import Mapping
from typing import Final

from extender.core.models import Products
from extender.core.shapes import Shape

#: After so many more pods that ask for GPUs a pod counts half.
HALF_LIFE: Final = 10_000
#: What counts less than this part of a new pod is forgotten.
LEAST: Final = 1 / 64
#: Learning starts with the 8th pod and follows the pods closely while they are few.
FIRST: Final = 8
#: From then on what has been learned is at most this many pods old.
EVERY: Final = 500


class Workload:
    """Bounded in memory: at most ``shapes`` shapes, and the last ``uids`` pods by name."""

    def __init__(self, *, shapes: int = 512, uids: int = 1 << 16, half_life: float = HALF_LIFE) -> None:
        self._growth: float = 2 ** (1 / half_life)
        self._most_shapes = shapes
        self._most_uids = uids
        #: shape → weight, in units that grow: ``_unit`` is what a pod counts now.
        self._weights: dict[Shape, float] = {}
        #: GPU models → weight of the GPU pods bound to just these, in the same units.
        self.products: dict[Products, float] = {}
        self._unit = 1.0
        #: The pods counted lately, oldest first: kube-scheduler asks about a waiting pod again and again.
        self._uids: dict[str, None] = {}
        self.arrivals = 0
        self._refreshed = 0

    def knows(self, uid: str) -> bool:
        """Whether that pod has been counted."""
        return uid in self._uids

    def count(self, uid: str, shape: Shape) -> None:
        """A pod has arrived. Idempotent for the pods counted lately."""
        if uid in self._uids:
            return
        self._uids[uid] = None
        if len(self._uids) > self._most_uids:
            del self._uids[next(iter(self._uids))]
        self.arrivals += 1
        if shape.devices:
            self._unit *= self._growth
        self._add(shape, self._unit)
        if len(self._weights) > 2 * self._most_shapes or self._unit > 2**32:
            self._prune()

    def is_due(self) -> bool:
        """Whether enough is new to learn again: after 8, 16, … 512 pods, then every 500."""
        wait = max(FIRST, min(self._refreshed, EVERY))
        return self.arrivals >= self._refreshed + wait

    def take(self) -> Mapping[Shape, float]:
        """The shapes by count: the most frequent first, but those without GPUs last. The next ``is_due`` counts from
        here."""
        self._refreshed = self.arrivals
        self._prune()
        return dict(self._weights)

    def _prune(self) -> None:
        kept = sorted(self._weights.items(), key=_heaviest)[: self._most_shapes]
        unit, self._unit = self._unit, 1.0
        self._weights, self.products = {}, {}
        for shape, weight in kept:
            if weight >= LEAST * unit:
                self._add(shape, weight / unit)

    def _add(self, shape: Shape, weight: float) -> None:
        self._weights[shape] = self._weights.get(shape, 0.0) + weight
        if shape.devices:
            self.products[shape.products] = self.products.get(shape.products, 0.0) + weight


def _heaviest(entry: tuple[Shape, float]) -> tuple[bool, float, int, int]:
    shape, weight = entry
    return not shape.devices, -weight, -shape.devices, -shape.cpu
