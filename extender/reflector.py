"""What the API shows, told to the ledger: a translator, nothing more."""

from collections.abc import Iterable, Mapping
from typing import Any

from extender.core.decisions import Decisions
from extender.core.podreader import (
    has_ended,
    is_reservation,
    namespaced_name,
    node_of,
    pod_on_node,
    reservation_of,
    uid_of,
)
from extender.core.values import Node

Object = Mapping[str, Any]


class Reflector:
    """Turns objects and their ends into evidence for the ledger."""

    def __init__(self, decisions: Decisions) -> None:
        self._ledger = decisions.ledger
        self._claims = decisions.claims

    def nodes(self, nodes: Iterable[Node]) -> None:
        """Nodes that are new or have changed."""
        for node in nodes:
            self._ledger.put_node(node)

    def pods(self, pods: Iterable[Object]) -> None:
        """All pods of a list; reservation pods first, so that no share ever looks lost for a moment."""
        for pod in sorted(pods, key=lambda pod: not is_reservation(pod)):
            self.pod(pod)

    def pod(self, pod: Object) -> None:
        """A pod is new or has changed."""
        if is_reservation(pod):
            self._reservation(pod)
        elif has_ended(pod):
            self._ledger.release(uid_of(pod))
        elif (holding := pod_on_node(pod)) is not None:
            self._ledger.observe(holding)
            self._claims.end(holding.uid)

    def pod_gone(self, pod: Object) -> None:
        """The API has deleted the pod."""
        node = node_of(pod)
        if not is_reservation(pod):
            self._ledger.release(uid_of(pod))
            self._claims.end(uid_of(pod))
        elif node is not None:
            self._ledger.drop_reservation(node, namespaced_name(pod)[1])

    def _reservation(self, pod: Object) -> None:
        reservation = reservation_of(pod)
        if reservation is None:
            return
        self._ledger.put_reservation(reservation)
        if reservation.device is not None and reservation.memory_mib is not None:
            self._ledger.report(reservation.node, reservation.id, reservation.device, reservation.memory_mib)
