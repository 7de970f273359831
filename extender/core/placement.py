"""Whether a request fits a node, which GPUs it would get there, and why not.

"Does not fit" is data, never an exception. Each shortfall has a reason whose text is a constant (a text that varies
makes kube-scheduler retry in a hot loop: DESIGN 4.5), and numbers for people.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from extender.core import names
from extender.core.accounting import RESERVATION_LOST
from extender.core.inventory import REASON_TEXT as INVENTORY_TEXT
from extender.core.inventory import Inventory
from extender.core.requests import LIMITS, GpuRequest, Share
from extender.core.values import GpuState, HeldShare, NodeState, SharedGpu, ShareState

#: What one reservation pod needs of its node besides the device: cpu in milli, memory in bytes, a pod slot.
RESERVATION_NEEDS: Final[Mapping[str, int]] = MappingProxyType(
    {names.CPU: 50, names.MEMORY: 64 * 1024 * 1024, names.PODS: 1}
)

REASON_TEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        **INVENTORY_TEXT,
        "NotPrepared": "the pod is not prepared for the enforcement backend of this node",
        "GpuMemory": "no shared GPU has room and none is free",
        "GpuTooSmall": "the share is larger than a GPU of this node",
        "GpuCount": "the node has fewer GPUs than the pod asks for",
        "WholeGpus": "not enough whole GPUs are free",
        "ReservationRoom": "no room for the reservation pod that a new shared GPU needs",
        "ReservationFailed": "reservation pods have failed on this node: no GPU is opened here for a while",
        "UnitCount": "the node has fewer units than the pod asks for",
        "ReservationLost": "a shared GPU of this node has lost its reservation pod",
        "ShareUnreadable": "a pod of this node has placement annotations that cannot be read",
        "BindRefused": "the API refused to bind this pod here a short while ago",
        "UnknownNode": "the node is not known to the ledger",
    }
)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a request does not fit a node. ``resolvable``: it would, if pods there ended."""

    reason: str
    unit: str
    asked: int
    free: int
    #: The most that one GPU (or the whole node) could give now.
    largest: int
    resolvable: bool

    @property
    def text(self) -> str:
        """The constant sentence for kube-scheduler and people."""
        return REASON_TEXT[self.reason]


class Placement(NamedTuple):
    """Which devices of a node a request gets.

    For a share: ``on`` are shared GPUs that exist, ``new`` is how many more are opened; ``mib`` follows the same order,
    existing first. For whole GPUs ``on`` is empty and ``whole`` is their number.
    """

    on: tuple[SharedGpu, ...] = ()
    new: int = 0
    mib: tuple[int, ...] = ()
    whole: int = 0


Verdict = Placement | Shortfall
#: Smaller is better: the order in which a share tries the shared GPUs of a node that have room for it.
GpuOrder = Callable[[SharedGpu, int], float]


def tightest(gpu: SharedGpu, mib: int) -> float:
    """Best fit: what stays free elsewhere stays in large pieces."""
    return gpu.free_mib - mib


def fit(state: NodeState, request: GpuRequest, order: GpuOrder = tightest) -> Verdict:
    """The placement of ``request`` on that node, or the shortfall that speaks first."""
    if request.share is not None:
        return _fit_share(state, request, request.share, order)
    for resource, count in request.gpus:
        shortfall = _count_gpus(state, resource, count)
        if shortfall is not None:
            return shortfall
    if state.closed is not None and is_kept_out(state.closed, request):
        return _refused(state.closed, 1, "pod")
    whole = state.inventory.whole_resource
    return Placement(whole=dict(request.gpus).get(whole, 0) if whole else 0)


def is_kept_out(closed: str, request: GpuRequest) -> bool:
    """Whether a node that is closed for that reason does not take the pod: whatever asks for a device.

    While a device is lost, room for any other pod may be what a reservation pod of the repair needs. What the node
    needs to run comes before that: without a device plugin, as while that is replaced, nothing can be repaired.
    """
    return request.asks_for_gpu or (closed == RESERVATION_LOST and not request.is_critical)


def _count_gpus(state: NodeState, resource: str, count: int) -> Shortfall | None:
    inventory = state.inventory
    if resource == inventory.whole_resource or (resource == names.GPU_RESOURCE and not inventory.units):
        return _count_whole(state, count)
    # kube-scheduler counts units; more than the node has would never be granted anywhere.
    total = state.node.allocatable.get(resource, 0)
    if inventory.mode == "dra" or count <= total:
        return None
    return Shortfall("UnitCount", resource, count, total, total, resolvable=False)


def _count_whole(state: NodeState, count: int) -> Shortfall | None:
    total = state.inventory.whole_gpus
    if state.inventory.mode == "dra":
        return None
    if state.inventory.unusable is not None:
        return _refused(state.inventory.unusable, count)
    if count > total:
        return Shortfall("GpuCount", "GPU", count, state.whole_free, total, resolvable=False)
    if state.closed is not None:
        return _refused(state.closed, count)
    if count > state.whole_free:
        return Shortfall("WholeGpus", "GPU", count, state.whole_free, state.whole_free, resolvable=True)
    return None


def _refused(reason: str, asked: int, unit: str = "GPU") -> Shortfall:
    return Shortfall(reason, unit, asked, 0, 0, resolvable=False)


def refusal(state: NodeState, request: GpuRequest, placement: Placement) -> Shortfall | None:
    """Why this placement cannot be made on that node; what is free on the GPUs that it names is left to the ledger."""
    share = request.share
    if share is None:
        verdict = fit(state, request)
        return verdict if isinstance(verdict, Shortfall) else None
    return _share_refusal(state, request, share) or _open(state, request, share, placement.new)


def _fit_share(state: NodeState, request: GpuRequest, share: Share, order: GpuOrder) -> Verdict:
    refused = _share_refusal(state, request, share)
    if refused is not None:
        return refused
    on = _pick(state, share, order)
    new = share.devices - len(on)
    mib = tuple(share.mib_of(gpu.memory_mib) for gpu in on)
    mib += (share.mib_of(state.inventory.memory_mib or 0),) * new
    return _open(state, request, share, new) or Placement(on, new, mib)


def _share_refusal(state: NodeState, request: GpuRequest, share: Share) -> Shortfall | None:
    """Why no share of that kind is given out on the node, whatever is free there."""
    inventory = state.inventory
    memory_mib = inventory.memory_mib
    if inventory.share_refusal is not None or memory_mib is None:
        return _refused(inventory.share_refusal or "MemoryUnknown", share.memory_mib or 0, "MiB")
    if not is_prepared(request, inventory):
        return _refused("NotPrepared", share.memory_mib or 0, "MiB")
    mib_new = share.mib_of(memory_mib)
    if share.devices > inventory.whole_gpus:
        return Shortfall("GpuCount", "GPU", share.devices, state.whole_free, inventory.whole_gpus, resolvable=False)
    largest = max([inventory.largest_mib, *(gpu.memory_mib for gpu in state.gpus)])
    if mib_new > largest:
        return Shortfall("GpuTooSmall", "MiB", mib_new, 0, largest, resolvable=False)
    return _refused(state.closed, mib_new, "MiB") if state.closed is not None else None


def is_prepared(request: GpuRequest, inventory: Inventory) -> bool:
    """Whether the node's backend could hold the pod to its share."""
    return inventory.enforcement not in LIMITS or inventory.enforcement in request.backends


def _pick(state: NodeState, share: Share, order: GpuOrder) -> tuple[SharedGpu, ...]:
    roomy = [
        (order(gpu, mib), index, gpu)
        for index, gpu in enumerate(state.gpus)
        if (mib := share.mib_of(gpu.memory_mib)) <= gpu.free_mib and gpu.takes(share.compute_mode)
    ]
    roomy.sort(key=lambda entry: entry[:2])
    return tuple(gpu for _, _, gpu in roomy[: share.devices])


def has_choice(state: NodeState, share: Share) -> bool:
    """Whether a share that fits may be placed on that node in more ways than one."""
    roomy = sum(gpu.takes(share.compute_mode) and share.mib_of(gpu.memory_mib) <= gpu.free_mib for gpu in state.gpus)
    return roomy > 1 or (roomy == 1 and state.whole_free > 0)


def _open(state: NodeState, request: GpuRequest, share: Share, missing: int) -> Shortfall | None:
    """Why so many GPUs cannot be opened, or None."""
    if not missing:
        return None
    memory_mib = state.inventory.memory_mib or 0
    # Where the node's GPUs differ, others may be larger than what a new one counts for.
    if missing > state.whole_free or share.mib_of(memory_mib) > memory_mib:
        return _memory_shortfall(state, share)
    if state.barred:
        return _refused("ReservationFailed", missing)
    for resource, need in RESERVATION_NEEDS.items():
        own = 1 if resource == names.PODS else request.resources.get(resource, 0)
        free = state.free.get(resource, 0)
        if own + need * missing > free:
            return Shortfall("ReservationRoom", resource, own + need * missing, max(0, free), max(0, free), True)
    return None


def _memory_shortfall(state: NodeState, share: Share) -> Shortfall:
    memory_mib = state.inventory.memory_mib or 0
    free = [gpu.free_mib for gpu in state.gpus if gpu.takes(share.compute_mode)]
    free += [memory_mib] * state.whole_free
    return Shortfall(
        "GpuMemory",
        "MiB",
        share.mib_of(memory_mib) * share.devices,
        sum(free),
        max(free, default=0),
        resolvable=True,
    )


def with_placement(state: NodeState, request: GpuRequest, placement: Placement, uid: str) -> NodeState:
    """The node as it would stand with that pod on it: for claims and what-ifs, never for the books."""
    share = request.share
    mode = share.compute_mode if share is not None else names.TIME_SLICING
    chosen = {gpu.id: mib for gpu, mib in zip(placement.on, placement.mib, strict=False)}
    gpus = [_with_share(gpu, uid, chosen[gpu.id], mode) if gpu.id in chosen else gpu for gpu in state.gpus]
    gpus += [
        _with_share(_new_gpu(state, f"{uid}/{index}"), uid, mib, mode)
        for index, mib in enumerate(placement.mib[len(placement.on) :])
    ]
    return state._replace(
        gpus=tuple(gpus),
        whole_held=state.whole_held + placement.whole,
        whole_free=max(0, state.whole_free - placement.whole - placement.new),
        free=_less(state.free, request, placement),
    )


def _new_gpu(state: NodeState, gpu_id: str) -> SharedGpu:
    return SharedGpu(gpu_id, None, state.inventory.memory_mib or 0, GpuState.ASSUMED, None, (), 0)


def _with_share(gpu: SharedGpu, uid: str, mib: int, mode: str) -> SharedGpu:
    held = HeldShare(uid, "", "", mib, ShareState.ASSUMED, observed=False)
    return gpu._replace(shares=(*gpu.shares, held), used_mib=gpu.used_mib + mib, compute_mode=mode)


def _less(free: Mapping[str, int], request: GpuRequest, placement: Placement) -> Mapping[str, int]:
    return {
        resource: amount
        - request.resources.get(resource, 0)
        - (resource == names.PODS)
        - RESERVATION_NEEDS.get(resource, 0) * placement.new
        for resource, amount in free.items()
    }
