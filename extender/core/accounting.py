"""A node's state as a pure function of the node, its pods and its reservation pods.

Nothing is counted up or down over time, so nothing can drift: after each change the node is derived anew.
Accounting goes by device UUID; the ids of shared GPUs are names only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from extender.core import names
from extender.core.device_report import Problem
from extender.core.values import (
    GpuState,
    HeldShare,
    Node,
    NodeState,
    PodOnNode,
    Reservation,
    SharedGpu,
    ShareOnGpu,
)

RESERVATION_LOST = "ReservationLost"
SHARE_UNREADABLE = "ShareUnreadable"


@dataclass(slots=True)
class _Gpu:
    """A shared GPU while it is being put together."""

    id: str
    uuid: str | None
    memory_mib: int
    state: GpuState
    usable: bool = True
    mode: str | None = None
    #: By pod UID.
    shares: list[HeldShare] = field(default_factory=list)
    used_mib: int = 0

    def add(self, pod: PodOnNode, share: ShareOnGpu) -> None:
        self.shares.append(HeldShare(pod.uid, pod.namespace, pod.name, share.mib, pod.state, pod.observed))
        self.used_mib += share.mib
        self.usable = self.usable and self.mode in (None, pod.compute_mode)
        self.mode = pod.compute_mode

    def freeze(self) -> SharedGpu:
        return SharedGpu(
            self.id,
            self.uuid,
            self.memory_mib,
            self.state,
            self.mode,
            tuple(self.shares),
            self.used_mib,
            self.usable,
        )


class _Gpus:
    """The node's shared GPUs, found by device where it is known and by id otherwise."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._by_id: dict[str, _Gpu] = {}
        self._by_uuid: dict[str, _Gpu] = {}

    def reserve(self, reservation: Reservation) -> None:
        gpu = _Gpu(
            reservation.id,
            reservation.device,
            reservation.memory_mib or self._node.inventory.memory_mib or 0,
            _reservation_state(reservation),
            usable=reservation.undecodable is None and reservation.problem is None,
        )
        self._by_id[gpu.id] = gpu
        if gpu.uuid is not None:
            self._by_uuid.setdefault(gpu.uuid, gpu)

    def hold(self, pod: PodOnNode, share: ShareOnGpu) -> None:
        gpu = self._of(share)
        if gpu is None:
            gpu = self._lose(share)
        gpu.add(pod, share)

    def _of(self, share: ShareOnGpu) -> _Gpu | None:
        if share.uuid is None:
            return self._by_id.get(share.gpu_id)
        gpu = self._by_uuid.get(share.uuid)
        if gpu is None:
            named = self._by_id.get(share.gpu_id)
            gpu = named if named is not None and named.uuid is None else None
        return gpu

    def _lose(self, share: ShareOnGpu) -> _Gpu:
        """No reservation pod holds the device of this share: nobody may get it, and nobody may think it free."""
        gpu_id = share.gpu_id
        while gpu_id in self._by_id:
            gpu_id += "-lost"
        gpu = _Gpu(gpu_id, share.uuid, self._node.inventory.memory_mib or 0, GpuState.LOST)
        self._by_id[gpu_id] = gpu
        if gpu.uuid is not None:
            self._by_uuid[gpu.uuid] = gpu
        return gpu

    def freeze(self) -> tuple[SharedGpu, ...]:
        """In the order of the ids: the same whether the ledger saw events or was rebuilt from a list."""
        return tuple(gpu.freeze() for _, gpu in sorted(self._by_id.items()))


def _reservation_state(reservation: Reservation) -> GpuState:
    if reservation.closing:
        return GpuState.CLOSING
    return GpuState.READY if reservation.device is not None else GpuState.ASSUMED


def holds_device(reservation: Reservation, node: Node) -> bool:
    """Whether the reservation pod still keeps its device from others.

    After a reboot the device plugin may have given the device to somebody else before the pod started again.
    """
    rebooted = None not in (reservation.boot_id, node.boot_id) and reservation.boot_id != node.boot_id
    other = reservation.foreign or reservation.problem == Problem.OTHER_DEVICE
    return not (reservation.ended or rebooted or other)


def derive(node: Node, pods: Iterable[PodOnNode], reservations: Iterable[Reservation]) -> NodeState:
    """The node as it stands when exactly these pods and reservation pods are on it."""
    pods = tuple(pods)
    # In the order of names, not of events: where evidence contradicts itself, the first one holds the device, and one
    # that is not in doubt comes before one that is.
    listed = sorted(reservations, key=lambda reservation: (reservation.undecodable is not None, reservation.id))
    reservations = [reservation for reservation in listed if not reservation.lost]
    node = _less_held(node, reservations)
    holders = sorted((pod for pod in pods if pod.shares), key=lambda pod: pod.uid)
    gpus = _Gpus(node)
    #: Reservation pods that hold some device, but nobody knows which.
    strays = 0
    for reservation in reservations:
        if holds_device(reservation, node):
            gpus.reserve(reservation)
        elif not reservation.ended:
            strays += 1
    for pod in holders:
        for share in pod.shares:
            gpus.hold(pod, share)
    shared = gpus.freeze()
    whole = _whole(node, pods)
    whole_held = node.claimed_gpus + sum(whole)
    return NodeState(
        node=node,
        gpus=shared,
        whole_held=whole_held,
        whole_pods=len(whole) + node.claiming_pods,
        whole_free=max(0, node.inventory.whole_gpus - whole_held - len(shared) - strays),
        free=_free(node, pods, reservations),
        closed=_closed(shared, pods, repaired=len(listed) == len(reservations)),
    )


def _less_held(node: Node, reservations: Iterable[Reservation]) -> Node:
    """Where a node's GPUs differ, what the next one counts for depends on which are held already."""
    if node.inventory.reported is None:
        return node
    held = {r.device for r in reservations if r.device is not None and holds_device(r, node)}
    return replace(node, inventory=replace(node.inventory, memory_mib=node.inventory.new_mib(held)))


def _whole(node: Node, pods: Iterable[PodOnNode]) -> list[int]:
    """Whole GPUs of each pod that holds any."""
    resource = node.inventory.whole_resource
    if resource is None:
        return []
    return [count for pod in pods if (count := pod.resources.get(resource, 0)) > 0]


def _free(node: Node, pods: Iterable[PodOnNode], reservations: Iterable[Reservation]) -> Mapping[str, int]:
    held = [pod.resources for pod in pods] + [r.resources for r in reservations if not r.ended]
    free = dict(node.allocatable)
    if names.PODS in free:
        free[names.PODS] -= len(held)
    for resources in held:
        for resource, amount in resources.items():
            if resource in free:
                free[resource] -= amount
    return free


def _closed(gpus: Iterable[SharedGpu], pods: Iterable[PodOnNode], *, repaired: bool) -> str | None:
    # A record that still says so closes the node too: other extenders may know more than this one.
    if not repaired or any(gpu.state is GpuState.LOST for gpu in gpus):
        return RESERVATION_LOST
    if any(pod.undecodable is not None for pod in pods):
        return SHARE_UNREADABLE
    return None
