"""What would still fit by the referee's account of the cards: the product's ledger is not asked.

A card that an idle reservation pod holds is free: nobody uses it, and it can be given back.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Final

from tests.controlplane.gpu_node import Admitted, Device, GpuNode, annotations, requests

Pod = Mapping[str, Any]
GPU: Final = "nvidia.com/gpu"
NUMBER: Final = "gpu-fraction-num-devices"


def fits(pod: Pod, nodes: Iterable[GpuNode]) -> bool:
    """Whether the pod would find room on one of the nodes now; a new reservation needs no room here."""
    return any(_fits(pod, node) for node in nodes)


def _fits(pod: Pod, node: GpuNode) -> bool:
    demand = requests(pod)
    if any(_used(node, name) + demand.get(name, 0) > total for name, total in node.room.items()):
        return False
    if demand.get(GPU):
        return (
            sum(1 for device in _cards(node) if not _strangers(node, device) and not used(node, device)) >= demand[GPU]
        )
    asked = annotations(pod)
    wanted = [device for device in _cards(node) if _takes(node, device, share_of(asked, device))]
    return len(wanted) >= number_of(asked)


def number_of(written: Mapping[str, str]) -> int:
    """On how many cards a pod with these annotations asks for a share. Raises ValueError."""
    return int(written.get(NUMBER, "1"))


def share_of(written: Mapping[str, str], device: Device) -> int:
    """MiB on that card that a pod with these annotations asks for. Raises ValueError."""
    if "gpu-fraction" in written:
        exact = Fraction(written["gpu-fraction"]) * device.mib
        return max(1, exact.numerator // exact.denominator)
    return int(written["gpu-memory"])


def used(node: GpuNode, device: Device) -> int:
    """MiB of the card that shares have."""
    return sum(mib for pod in node.admitted.values() for uuid, mib in pod.shares if uuid == device.uuid)


def _takes(node: GpuNode, device: Device, mib: int) -> bool:
    return not _strangers(node, device) and used(node, device) + mib <= device.mib


def _cards(node: GpuNode) -> list[Device]:
    return [device for device in node.devices.values() if device.uuid not in node.unhealthy]


def _strangers(node: GpuNode, device: Device) -> list[Admitted]:
    return [pod for pod in node.admitted.values() if device in pod.devices and not pod.is_reservation]


def _used(node: GpuNode, resource: str) -> int:
    return sum(pod.demand.get(resource, 0) for pod in node.admitted.values())
