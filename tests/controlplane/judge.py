"""The judge's account of every card: what must never be seen on a node, in the judge's words."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.controlplane.gpu_node import SHARES, Admitted, Device, GpuNode
from tests.controlplane.room import NUMBER, number_of, share_of


class Kind(StrEnum):
    """What is wrong."""

    #: The shares on a card are more than its memory.
    OVERSUBSCRIBED = "oversubscribed"
    #: A card that shares use was given to a pod that is no reservation.
    GIVEN_AWAY = "given away"
    #: A card was given to two pods.
    GIVEN_TWICE = "given twice"
    #: A card that shares use is held by no reservation pod: unavoidable only where one was lost by force.
    UNHELD = "unheld"
    #: A share pod started with a device that its node does not have.
    UNKNOWN_DEVICE = "unknown device"
    #: A pod that asks for a share runs without a device.
    UNPLACED = "unplaced"
    #: A share pod has another number of devices, or other sizes on them, than its user asked for.
    MISSIZED = "missized"
    #: A share pod's environment shows other devices than its annotations account for.
    MISLED = "misled"


@dataclass(frozen=True, slots=True)
class Violation:
    """One of them, on one node."""

    kind: Kind
    node: str
    text: str


def judge(node: GpuNode) -> Iterator[Violation]:
    """What is wrong on that node now."""
    pods = [admitted for admitted in node.admitted.values() if admitted.running]
    for device in node.devices.values():
        for kind, text in _of_device(device, pods):
            yield Violation(kind, node.name, f"{device.uuid}: {text}")
    for admitted in pods:
        for kind, text in _of_pod(admitted, node):
            yield Violation(kind, node.name, f"{admitted.name}: {text}")


def _of_device(device: Device, pods: list[Admitted]) -> Iterator[tuple[Kind, str]]:
    holders = [admitted for admitted in pods if device in admitted.devices]
    users = [(admitted, mib) for admitted in pods for uuid, mib in admitted.shares if uuid == device.uuid]
    listed = ", ".join(f"{admitted.name} {mib} MiB" for admitted, mib in users)
    if len(holders) > 1:
        yield Kind.GIVEN_TWICE, ", ".join(holder.name for holder in holders)
    if not users:
        return
    if sum(mib for _, mib in users) > device.mib:
        yield Kind.OVERSUBSCRIBED, f"{listed} on {device.mib} MiB"
    strangers = [holder.name for holder in holders if not holder.is_reservation]
    if strangers:
        yield Kind.GIVEN_AWAY, f"to {', '.join(strangers)} under {listed}"
    if not any(holder.is_reservation for holder in holders):
        yield Kind.UNHELD, listed


def _of_pod(admitted: Admitted, node: GpuNode) -> Iterator[tuple[Kind, str]]:
    unknown = [uuid for uuid, _ in admitted.shares if uuid not in node.devices]
    if unknown:
        yield Kind.UNKNOWN_DEVICE, f"runs with {unknown}"
    if admitted.asks_for_share and not admitted.shares:
        yield Kind.UNPLACED, "asks for a share and runs without a device"
    if admitted.asks_for_share and admitted.shares and not unknown and not _is_as_asked(admitted, node):
        yield Kind.MISSIZED, f"asked for {_request(admitted)}, has {admitted.shares}"
    if admitted.asks_for_share and admitted.sees not in (None, {uuid for uuid, _ in admitted.shares}):
        yield Kind.MISLED, f"sees {admitted.sees}, accounted {admitted.shares}"


def _is_as_asked(admitted: Admitted, node: GpuNode) -> bool:
    """By its user's words and the size of the cards; what cannot be read has asked for nothing."""
    try:
        right = all(share_of(admitted.asked, node.devices[uuid]) == mib for uuid, mib in admitted.shares)
        return right and len({uuid for uuid, _ in admitted.shares}) == len(admitted.shares) == number_of(admitted.asked)
    except ValueError:
        return False


def _request(admitted: Admitted) -> dict[str, str]:
    return {key: value for key, value in admitted.asked.items() if key in (*SHARES, NUMBER)}
