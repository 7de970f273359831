"""What the background work tells: each becomes an event on the pods it is about, a line in the log and a count."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What has happened: constants for metrics and for the reasons of events."""

    GPU_LOST = "GpuLost"  # shares run on a device that no reservation pod holds: the node is closed
    GPU_REPAIRED = "GpuRepaired"  # a reservation pod holds it again
    NODE_REOPENED = "NodeReopened"  # no device of the node is lost any more: it gives out GPUs again
    GPU_NOT_FOUND = "GpuNotFound"  # every device that is free was tried: the node stays closed
    RESERVATION_FAILED = "ReservationFailed"  # a reservation pod was refused, or never reported
    GPU_CLOSED = "GpuClosed"  # an idle GPU is on the market again
    MEMORY_REPORTED = "MemoryReported"  # GPUs of a node whose labels do not tell their memory have told it
    MEMORY_NOT_KEPT = "MemoryNotKept"  # the API refuses to keep that on the Node
    ENTRY_DROPPED = "EntryDropped"  # room that a dead bind had written down is free again


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them."""

    kind: Kind
    node: str
    #: In users' words; constant for the same kind, node and GPU.
    text: str
    #: The shared GPU's id, or its device where it is lost.
    gpu: str = ""
    #: UID, namespace and name of each user pod that it is about.
    pods: tuple[tuple[str, str, str], ...] = ()


Tell = Callable[[Notice], None]
