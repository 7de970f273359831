"""The values of the inventory: the GPUs of one node, and the ways in which they are offered."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

# API.md's modes; two that hold together are joined with "+".
NONE: Final = "none"
TIME_SLICING: Final = "time-slicing"
MPS: Final = "mps"
MIG_SINGLE: Final = "mig-single"
MIG_MIXED: Final = "mig-mixed"
VGPU_HOST: Final = "vgpu-host"
PASSTHROUGH: Final = "passthrough"
# These stand alone.
DRA: Final = "dra"
INVALID: Final = "invalid"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Slice:
    """Hardware slices of one kind on a node."""

    #: Slices, not replicas of them.
    count: int
    #: Of one slice; None when unknown, never 0.
    memory_mib: int | None


@dataclass(frozen=True, slots=True)
class Reported:
    """What GPUs have told of their own memory, in this boot of their node."""

    #: Device → MiB.
    mib: Mapping[str, int] = field(default_factory=dict, hash=False)
    #: Whether any was asked: there are devices that have no memory of their own to tell.
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPUs of one node as the API proves them. What it does not prove is None, or not counted."""

    #: As labelled, word for word; None where the labels do not hold for every GPU of the node.
    product: str | None = None
    mode: str = NONE
    #: GPUs in the node, healthy or not; None where nothing proves their number.
    physical_gpus: int | None = 0
    #: GPUs that one unit (or one DRA device) holds exclusively: healthy ones, on a node that takes pods.
    #: Never above ``physical_gpus``.
    whole_gpus: int = 0
    #: Of one whole (parent) GPU; where they differ, the smallest that a new one may be. None when unknown, never 0.
    memory_mib: int | None = None
    #: Schedulable units that are not (known to be) exclusive: resource → healthy ones, never 0.
    units: Mapping[str, int] = field(default_factory=dict, hash=False)
    #: Hardware slices, by the resource's name before any renaming.
    slices: Mapping[str, Slice] = field(default_factory=dict, hash=False)
    #: Why nothing can be placed now: a key of ``REASON_TEXT``.
    unusable: str | None = None
    #: By which a pod asks for a whole GPU; None without exclusive units of a device plugin. It stays while
    #: the node is unusable: pods that hold its GPUs must still be counted.
    whole_resource: str | None = None
    #: Why no share lands on this node, not even when it is empty: a key of ``REASON_TEXT``, or None.
    share_refusal: str | None = None
    #: What holds containers to their shares here, one of ``names.BACKENDS``; None where nobody says.
    enforcement: str | None = None
    #: Where labels and administrator leave the memory open, what the devices have told; else None.
    reported: Reported | None = None

    @property
    def largest_mib(self) -> int:
        """Of the largest GPU that is known; 0 without one."""
        return max(self.memory_mib or 0, *(self.reported.mib.values() if self.reported is not None else ()), 0)

    def new_mib(self, held: Collection[str]) -> int | None:
        """What a GPU counts for that is opened while these devices are held; see ``memory_mib``."""
        told = self.reported.mib if self.reported is not None else {}
        others = [mib for device, mib in told.items() if device not in held]
        # A device that has not told yet may be as small as any.
        return min(others) if others and len(told) >= (self.physical_gpus or 0) else self.memory_mib

    @property
    def total_mib(self) -> int:
        """Of all its GPUs; those of which nothing is known count like ``memory_mib``."""
        told = self.reported.mib if self.reported is not None else {}
        others = max(0, (self.physical_gpus or 0) - len(told))
        return sum(told.values()) + (self.memory_mib or 0) * others
