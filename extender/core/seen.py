"""What a strategy learns from: the shapes of the pods seen, and the nodes as they stand. Frozen and picklable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extender.core.fleet import Kind
from extender.core.options import Nodes
from extender.core.shapes import Shape, Shapes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """A copy; whoever has it may keep it, in another process too."""

    shapes: tuple[Shape, ...]
    #: How often each was seen, older ones counting less.
    counts: Floats
    kinds: tuple[Kind, ...]
    #: Those with GPUs.
    nodes: Nodes
    #: The shapes by number.
    table: Shapes

    @classmethod
    def of(cls, counts: Mapping[Shape, float], kinds: Sequence[Kind], nodes: Nodes) -> "Seen":
        """These shapes, on nodes of these kinds."""
        shapes = tuple(counts)
        weights = np.array([counts[shape] for shape in shapes], float)
        return cls(shapes, weights, tuple(kinds), nodes, Shapes.of(shapes, kinds))

    def frequency(self) -> Floats:
        """The part of each shape in the pods that ask for GPUs; 0 for shapes without."""
        asking = self.counts * (self.table.devices > 0)
        frequency: Floats = asking / max(asking.sum(), 1e-9)
        return frequency

    def capacity(self) -> Floats:
        """GPUs of each kind, free or not."""
        return np.bincount(self.nodes.kind, self.nodes.gpus, minlength=len(self.kinds)).astype(float)

    def gpus(self) -> Floats:
        """What each shape takes, in GPUs: the mean over the GPUs on which it can run."""
        fits = self.table.mib >= 0
        capacity = self.capacity() * fits
        parts = np.where(fits, self.table.mib, 0) / [kind.card for kind in self.kinds]
        part = (parts * capacity).sum(axis=1) / np.maximum(capacity.sum(axis=1), 1e-9)
        gpus: Floats = self.table.devices * part
        return gpus
