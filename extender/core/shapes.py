"""The shape of a request: what the workload is learned in.

A shape is what was asked (a fraction, MiB, whole GPUs), never the MiB that it became on one GPU model.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from extender.core.fleet import Kind, clipped
from extender.core.models import Products
from extender.core.request import GpuRequest, Share


@dataclass(frozen=True, slots=True)
class Shape:
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

    def gpus_on(self, kind: Kind) -> float:
        """What it takes there, in GPUs; 0 where it can never run."""
        return self.devices * (self.mib_on(kind) or 0) / kind.card
