"""What is told to users as v1 Events, in their words: reasons and texts, here and nowhere else.

Texts name pods, nodes, devices and sizes, and quote a pod's own annotations; nothing else gets in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from extender.core.values import PodOnNode

PLACED: Final = "GpuSharePlaced"
REFUSED: Final = "GpuRequestRefused"
OPENING: Final = "GpuOpening"
LOST: Final = "GpuReservationLost"
REPAIRED: Final = "GpuReservationRepaired"
REPAIR_FAILED: Final = "GpuRepairFailed"
CLOSED: Final = "GpuNodeClosed"
REOPENED: Final = "GpuNodeReopened"
BYPASSED: Final = "GpuShareBypassed"
CHANGED: Final = "GpuShareChanged"

#: Reason → what it means, as in docs/operations.md.
MEANING: Final[Mapping[str, str]] = MappingProxyType(
    {
        PLACED: "the pod got its share: node, devices and MiB on each",
        REFUSED: "the pod asks for something that nobody can grant; the sentence names annotation, value and rule",
        OPENING: "the pod's share is on a GPU whose reservation pod has not reported its device yet",
        LOST: "a device under the pod is no longer reserved; the pod keeps running",
        REPAIRED: "the device under the pod is reserved again",
        REPAIR_FAILED: "every free GPU of the node was tried, and none was the lost device",
        CLOSED: "the node gives out no GPU until its lost devices are reserved again",
        REOPENED: "all devices of the node's shares are reserved again",
        BYPASSED: "the pod asks for a share and was bound past the extender: it has no GPU, and none is counted for it",
        CHANGED: "what the extender wrote on the pod was changed: what it was bound with counts until it ends",
    }
)
#: The others are Normal.
WARNINGS: Final = frozenset({REFUSED, LOST, REPAIR_FAILED, CLOSED, BYPASSED, CHANGED})
#: What stays so until the pod ends: told once for each pod, whoever tells it.
LASTING: Final = frozenset({BYPASSED, CHANGED})

#: Bytes: what an API server takes.
LONGEST: Final = 1024


@dataclass(frozen=True, slots=True)
class About:
    """The object that an event is about; ``namespace`` is empty for a Node."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def pod(cls, namespace: str, name: str, uid: str) -> "About":
        """A user's pod."""
        return cls("Pod", namespace, name, uid)

    @classmethod
    def node(cls, name: str, uid: str) -> "About":
        """A node."""
        return cls("Node", "", name, uid)


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. Two that are equal are told once."""

    about: About
    reason: str
    text: str

    @property
    def is_warning(self) -> bool:
        """Whether somebody should do something about it."""
        return self.reason in WARNINGS

    @property
    def is_lasting(self) -> bool:
        """Whether it is told once, and never again."""
        return self.reason in LASTING


def placed(pod: PodOnNode) -> Notice:
    """A share is bound."""
    devices = [share.uuid or share.gpu_id for share in pod.shares]
    sizes = sorted({share.mib for share in pod.shares})
    size = f"{sizes[0]} MiB" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} MiB"
    each = " on each" if len(devices) > 1 else ""
    return Notice(_of(pod), PLACED, f"got {size} of GPU memory{each} of {_listed(devices)} on node {pod.node}")


def refused(about: About, sentence: str) -> Notice:
    """The request itself is wrong. ``sentence``: the parser's."""
    return Notice(about, REFUSED, sentence)


def opening(about: About, node: str) -> Notice:
    """A bind waits for a reservation pod."""
    return Notice(about, OPENING, f"waits for a new shared GPU on node {node} to be reserved")


def bypassed(pod: PodOnNode) -> Notice:
    """Somebody else has bound the pod, without a device."""
    text = f"was bound to node {pod.node} past the GPU extender and has no GPU"
    return Notice(_of(pod), BYPASSED, f"{text}: delete it, and create it anew for the GPU scheduler to place")


def changed(pod: PodOnNode) -> Notice:
    """Somebody has changed the annotations that the Binding wrote."""
    devices = _listed([share.uuid or share.gpu_id for share in pod.shares])
    text = f"its GPU annotations were changed after it was bound; its share of {devices} on node {pod.node}"
    return Notice(_of(pod), CHANGED, f"{text} counts as it was until the pod ends")


def lost(pod: PodOnNode, device: str) -> Notice:
    """Nothing reserves that device of the pod any more."""
    text = f"{device} on node {pod.node} is no longer reserved for this pod, which keeps running"
    return Notice(_of(pod), LOST, f"{text}; the node gives out no GPU until it is reserved again")


def repaired(pod: PodOnNode, device: str) -> Notice:
    """That device of the pod is reserved again."""
    return Notice(_of(pod), REPAIRED, f"{device} on node {pod.node} is reserved for this pod again")


def closed(node: About, devices: Sequence[str]) -> Notice:
    """These devices of the node are lost."""
    text = f"pods run on {_listed(devices)} without a reservation"
    return Notice(node, CLOSED, f"{text}: no GPU of this node is given out until that is repaired")


def reopened(node: About) -> Notice:
    """No device of the node is lost any more."""
    return Notice(node, REOPENED, "all devices of running shares are reserved again: GPUs are given out again")


def repair_failed(about: About, device: str) -> Notice:
    """For the node and for each pod on the device: repair has tried everything."""
    return Notice(about, REPAIR_FAILED, f"{device} is not among the free GPUs of the node: somebody else holds it")


def _of(pod: PodOnNode) -> About:
    return About.pod(pod.namespace, pod.name, pod.uid)


def _listed(devices: Sequence[str]) -> str:
    return devices[0] if len(devices) == 1 else f"{', '.join(devices[:-1])} and {devices[-1]}"
