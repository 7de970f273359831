"""What a strategy learns from: the shapes of the pods seen, and the nodes as they stand. Frozen and picklable."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extender.core.fleet import Kind
from extender.core.options import Nodes
from extender.core.shapes import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """A copy; whoever has it may keep it, in another process too."""

    shapes: tuple[Shape, ...]
    #: How often each was seen, older ones counting less.
    counts: Floats
    kinds: tuple[Kind, ...]
    nodes: Nodes

    def capacity(self) -> Floats:
        """GPUs of each kind, free or not."""
        return np.bincount(self.nodes.kind, self.nodes.gpus, minlength=len(self.kinds)).astype(float)

    def fitting(self) -> NDArray[np.bool_]:
        """[shape, kind]: whether such a node, empty, could run it; False for shapes without GPUs."""
        found = [[shape.mib_on(kind) is not None for kind in self.kinds] for shape in self.shapes]
        return np.array(found, bool).reshape(len(self.shapes), len(self.kinds))

    def gpus(self) -> Floats:
        """What each shape takes, in GPUs: the mean over the GPUs on which it can run."""
        amounts = np.array([[shape.gpus_on(kind) for kind in self.kinds] for shape in self.shapes])
        amounts = amounts.reshape(len(self.shapes), len(self.kinds))
        capacity = self.capacity() * self.fitting()
        mean: Floats = (amounts * capacity).sum(axis=1) / np.maximum(capacity.sum(axis=1), 1e-9)
        return mean
