"""The shape of a request: what the workload is learned in.

A shape is what was asked (a fraction, MiB, whole GPUs), never the MiB that it became on one GPU model.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.core.fleet import Ints, Kind, clipped
from extender.core.models import Products
from extender.core.requests import GpuRequest, Share


class Shape(NamedTuple):
    """Requests that leave the same traces on every node."""

    #: CPU in milli.
    cpu: int
    #: GPUs asked for; 0 = none.
    devices: int = 0
    #: The part of each; None: whole GPUs.
    share: Share | None = None
    #: GPU models that pods of this shape may use; None: all.
    products: Products = None

    @classmethod
    def of(cls, request: GpuRequest, products: Products = None) -> "Shape":
        """The request's shape."""
        share = request.share
        devices = share.devices if share is not None else request.whole_gpus
        return cls(clipped(request.cpu_milli), clipped(devices), share, products if devices else None)

    @property
    def per_device(self) -> Hashable:
        """Equal for shapes that take the same on as many GPUs."""
        return (self.devices, self.share)

    def mib_on(self, kind: Kind) -> int | None:
        """MiB of each device on nodes of that kind; None where it can never run."""
        if not self.devices or (self.products is not None and kind.product not in self.products):
            return None
        if self.share is None:
            return kind.card
        mib = self.share.mib_of(kind.card)
        return mib if kind.shareable and mib <= kind.card else None


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes as arrays, one entry each."""

    cpu: Ints
    devices: Ints
    #: Whether it asks for whole GPUs.
    whole: NDArray[np.bool_]
    #: [shape, kind] → MiB of each device; -1 where it can never run.
    mib: Ints
    #: Equal numbers for shapes that take the same on as many GPUs; and for those bound to the same models as well.
    same: Ints
    same_and_products: Ints

    @classmethod
    def of(cls, shapes: Sequence[Shape], kinds: Sequence[Kind]) -> "Shapes":
        """Read the shapes on each kind of node."""
        amounts = [[-1 if (m := shape.mib_on(kind)) is None else m for kind in kinds] for shape in shapes]
        return cls(
            np.array([shape.cpu for shape in shapes], np.int64),
            np.array([shape.devices for shape in shapes], np.int64),
            np.array([bool(shape.devices) and shape.share is None for shape in shapes], bool),
            np.array(amounts, np.int64).reshape(len(shapes), len(kinds)),
            _numbered([shape.per_device for shape in shapes]),
            _numbered([(shape.per_device, shape.products) for shape in shapes]),
        )

    def on_several(self) -> Iterator[Ints]:
        """Shares on several devices, in groups of those that take the same."""
        return _groups(self.same, (self.devices > 1) & ~self.whole)

    def alike(self) -> Iterator[Ints]:
        """All that ask for GPUs, in groups that differ in CPU only."""
        return _groups(self.same_and_products, self.devices > 0)


def _numbered(keys: Sequence[Hashable]) -> Ints:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _groups(numbers: Ints, wanted: NDArray[np.bool_]) -> Iterator[Ints]:
    for number in np.unique(numbers[wanted]):
        yield np.flatnonzero(wanted & (numbers == number))
