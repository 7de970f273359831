"""Which pods and nodes contradict what they said before, or each other: kept at each change, so that a look is cheap.

A doubt may pass by itself, for pods and records are watched apart; ``consistency`` says what is wrong.
"""

from collections.abc import Iterable

from extender.core.remembered import by_device
from extender.core.values import PodOnNode, Reservation, ShareState


class Doubts:
    """UIDs of bound pods; names of nodes, for their reservation pods and records."""

    def __init__(self) -> None:
        self.pods: set[str] = set()
        self.nodes: set[str] = set()

    def pod(self, uid: str, pod: PodOnNode | None, entry: PodOnNode | None, *, has_record: bool) -> None:
        """``pod``: as it counts, None where it is gone. ``entry``: what its node's record says of it, if anything."""
        if pod is not None and _is_wrong(pod, entry, has_record=has_record):
            self.pods.add(uid)
        else:
            self.pods.discard(uid)

    def node(self, name: str, reservations: Iterable[Reservation], entries: Iterable[PodOnNode]) -> None:
        """Its reservation pods as the record knows them, and the record's entries."""
        listed = list(reservations)
        devices = [reservation.device for reservation in listed if reservation.device is not None]
        wrong = len(devices) != len(set(devices)) or any(r.undecodable or r.foreign for r in listed)
        if wrong or any(entry.undecodable for entry in entries):
            self.nodes.add(name)
        else:
            self.nodes.discard(name)


def _is_wrong(pod: PodOnNode, entry: PodOnNode | None, *, has_record: bool) -> bool:
    if pod.state is not ShareState.CONFIRMED:
        return False
    if pod.unserved or pod.changed or pod.undecodable is not None:
        return True
    if entry is None:
        return has_record and bool(pod.shares)
    return by_device(entry.shares) != by_device(pod.shares)
