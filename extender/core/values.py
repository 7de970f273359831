"""The values that the ledger holds: pods on a node, shares, shared GPUs, and a node as it stands.

All are frozen: whoever reads one may keep it, and what-ifs (claims, preemption) are new values. What each change of a
node makes anew is a tuple, which takes half the time.
Memory of GPUs is integers of MiB; cpu is milli; every other resource is in its base unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from extender.core import names
from extender.core.device_report import Problem
from extender.core.inventory import Inventory


class ShareState(StrEnum):
    """How sure we are of a share; see the ledger for the transitions."""

    ASSUMED = "assumed"
    RECORDED = "recorded"
    CONFIRMED = "confirmed"


class GpuState(StrEnum):
    """What a shared GPU is good for."""

    ASSUMED = "assumed"  # chosen; its reservation pod has not reported a device yet
    READY = "ready"
    CLOSING = "closing"  # takes no new share
    LOST = "lost"  # shares run on it, but no reservation pod holds its device


#: Seconds that a pod's processes get to end where it says none: the API server's default.
USUAL_GRACE: Final = 30


class ShareOnGpu(NamedTuple):
    """One device's part of what a pod holds."""

    gpu_id: str
    #: The device; None until the reservation pod has reported it.
    uuid: str | None
    mib: int


class PodOnNode(NamedTuple):
    """What one pod takes of one node."""

    uid: str
    namespace: str
    name: str
    node: str
    #: All requested resources: cpu in milli, the others in base units; without the pod's own slot.
    resources: Mapping[str, int]
    shares: tuple[ShareOnGpu, ...] = ()
    compute_mode: str = names.TIME_SLICING
    state: ShareState = ShareState.CONFIRMED
    #: The API showed this placement; only such evidence may exceed what a GPU has.
    observed: bool = False
    #: The try that bound it; None where no annotation says so.
    attempt: str | None = None
    #: Why its placement annotations cannot be read. The node then gives out no device.
    undecodable: str | None = None
    #: It asks for a share and was bound without one, past us: it has no device.
    unserved: bool = False
    #: Its annotations say less than what it was bound with, which counts.
    changed: bool = False
    #: Seconds that its processes may outlive its object.
    grace: int = USUAL_GRACE


#: Why a reservation pod that has not reported is closed: what it was for is gone, or its time is over.
NOT_NEEDED: Final = "NotNeeded"
NEVER_REPORTED: Final = "NeverReported"
UNSCHEDULABLE: Final = "Unschedulable"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation pod, bound or planned: it takes one whole GPU off the market."""

    id: str
    node: str
    uid: str | None = None
    device: str | None = None
    memory_mib: int | None = None
    boot_id: str | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    #: Deleted or closed by somebody: it takes no new share.
    closing: bool = False
    #: Ended (Succeeded or Failed): it holds its device no longer.
    ended: bool = False
    #: Why its report cannot be read; nothing is placed on its GPU then.
    undecodable: str | None = None
    #: What the agent says against the device: a word of ``device_report.Problem``. It takes no new share then.
    problem: str | None = None
    #: Why we close it although it has not reported: a word.
    closed_because: str | None = None
    #: The kubelet's word on why it does not run: ``OutOfcpu``, ``ImagePullBackOff``.
    why: str | None = None
    #: kube-scheduler finds no device for it, so far.
    unschedulable: bool = False
    #: The node record says that nothing holds the device any more.
    lost: bool = False
    #: The node record knows another pod under this name: this one does not hold what that one held.
    foreign: bool = False

    @property
    def failure(self) -> str | None:
        """Why it has failed to report; None where it has reported, may yet, or is not needed any more."""
        if self.device is not None or self.closed_because == NOT_NEEDED:
            return None
        # The other problems may be gone with the agent's next start.
        never = self.problem if self.problem == Problem.MEMORY_UNKNOWN else None
        return self.closed_because or never or ((self.why or "Ended") if self.ended else None)


class HeldShare(NamedTuple):
    """A share as seen from its GPU."""

    uid: str
    namespace: str
    pod: str
    mib: int
    state: ShareState
    observed: bool


class SharedGpu(NamedTuple):
    """A GPU that a reservation pod holds, and its shares."""

    id: str
    uuid: str | None
    memory_mib: int
    state: GpuState
    #: None while it is empty: the first share decides.
    compute_mode: str | None
    shares: tuple[HeldShare, ...]
    used_mib: int
    usable: bool = True

    @property
    def free_mib(self) -> int:
        """What is left; 0, never negative, where evidence shows more than fits."""
        return max(0, self.memory_mib - self.used_mib)

    def takes(self, compute_mode: str) -> bool:
        """Whether a share of that compute mode may come here at all."""
        open_ = self.usable and self.state in (GpuState.ASSUMED, GpuState.READY)
        return open_ and self.compute_mode in (None, compute_mode)


@dataclass(frozen=True, slots=True)
class Node:
    """What the API says of a node, read once."""

    name: str
    uid: str
    inventory: Inventory
    #: cpu in milli, others in base units, ``pods`` included.
    allocatable: Mapping[str, int]
    boot_id: str | None = None
    #: Whole GPUs that DRA claims hold.
    claimed_gpus: int = 0
    #: The pods that these claims are for.
    claiming_pods: int = 0


class NodeState(NamedTuple):
    """A node as the ledger accounts it now."""

    node: Node
    gpus: tuple[SharedGpu, ...]
    #: GPUs of whole-GPU pods, foreign ones too; never reservations, replicas or slices.
    whole_held: int
    #: How many pods hold them.
    whole_pods: int
    #: Whole GPUs that neither a whole-GPU pod nor a reservation holds; never negative.
    whole_free: int
    #: Allocatable less what pods hold; may be negative where evidence says so.
    free: Mapping[str, int]
    #: A constant: why no device is given out here although the node itself is well.
    closed: str | None = None
    #: No GPU is opened here for now: reservation pods have failed.
    barred: bool = False

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def inventory(self) -> Inventory:
        """The node's GPUs as the API shows them."""
        return self.node.inventory
