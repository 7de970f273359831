"""What the API shows, told to the ledger: a translator, nothing more."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from extender.core.decisions import Decisions
from extender.core.fields import child
from extender.core.podreader import (
    has_ended,
    is_reservation,
    lingers,
    namespaced_name,
    node_of,
    pod_on_node,
    reservation_of,
    uid_of,
)
from extender.core.record import NODE_KEY, RECORD_KEY, NodeRecord, UnreadableRecord, record_name
from extender.core.recordreader import recorded_gpus, recorded_pods, unreadable
from extender.core.values import Node, PodOnNode, Reservation, ShareState
from extender.core.workload import HALF_LIFE

Object = Mapping[str, Any]

#: Pods of a first list that are learned from: after so many more, a pod counts half.
LEARNED_FROM = HALF_LIFE


class Reflector:
    """Turns objects and their ends into evidence for the ledger."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._ledger = decisions.ledger
        self._claims = decisions.claims
        #: Called after each change of a reservation pod, and when a pod ends that is being bound.
        self.reservation_changed: Callable[[], None] = lambda: None
        #: Called with each reservation pod, new or changed.
        self.reservation_seen: Callable[[Reservation], None] = lambda _reservation: None

    def nodes(self, nodes: Iterable[Node]) -> None:
        """Nodes that are new or have changed."""
        for node in nodes:
            self._ledger.put_node(node)

    def node_gone(self, name: str) -> None:
        """The API has deleted the node. Its pods end by their own evidence."""
        self._ledger.drop_node(name)

    def pods(self, pods: Iterable[Object]) -> None:
        """All pods of a list; reservation pods first, so that no share ever looks lost for a moment."""
        listed = sorted(pods, key=lambda pod: not is_reservation(pod))
        for pod in listed:
            self.account(pod)
        for pod in self.youngest(listed):
            self.learn(pod)

    def youngest(self, pods: Iterable[Object]) -> list[Object]:
        """Of a first list, the pods to learn from what people ask for: older ones would hardly count any more."""
        bound = [pod for pod in pods if node_of(pod) is not None and not is_reservation(pod)]
        return sorted(bound, key=_created)[-LEARNED_FROM:]

    def learn(self, pod: Object) -> None:
        """What this pod asks for is what people ask for."""
        if node_of(pod) is not None and not is_reservation(pod):
            self._decisions.saw(pod)

    def pod(self, pod: Object) -> None:
        """A pod is new or has changed."""
        self.account(pod)
        self.learn(pod)

    def answered(self, pod: Object) -> None:
        """An answer of the API has shown this pod; the watch may have shown its end meanwhile, and that stands."""
        key = namespaced_name(pod)[1] if is_reservation(pod) else uid_of(pod)
        if not self._ledger.is_gone(key):
            self.pod(pod)

    def account(self, pod: Object) -> None:
        """The ledger's part of ``pod``; nothing is learned from it."""
        if is_reservation(pod):
            self._reservation(pod)
            return
        if has_ended(pod):
            self._release(uid_of(pod))
            return
        self._ledger.alive(uid_of(pod))
        if (holding := pod_on_node(pod)) is not None:
            self._ledger.observe(holding)
            self._claims.end(holding.uid)

    def confirmed(self) -> list[PodOnNode]:
        """Pods that the ledger holds as bound, on nodes that exist."""
        return [
            pod
            for state in self._ledger.snapshot()
            for pod in self._ledger.pods(state.name)
            if pod.state is ShareState.CONFIRMED
        ]

    def config_map(self, config_map: Object) -> None:
        """A node record is new or has changed; other ConfigMaps are none of ours."""
        data = config_map.get("data") or {}
        node = data.get(NODE_KEY)
        if not node or namespaced_name(config_map)[1] != record_name(node):
            return
        try:
            record = NodeRecord.parse(data.get(RECORD_KEY, ""))
        except UnreadableRecord as error:
            self._ledger.put_record(node, [unreadable(node, str(error))], ())
            return
        self._ledger.put_record(node, recorded_pods(node, record), recorded_gpus(node, record))

    def pod_gone(self, pod: Object, *, seen: bool = True) -> None:
        """The API has deleted the pod. One that was taken away while it ran counts for its own grace period more.

        ``seen``: whether ``pod`` is its last version. Else nobody knows how it went.
        """
        seconds = lingers(pod, seen=seen)
        if is_reservation(pod):
            self._reservation_gone(pod)
        elif seconds:
            asyncio.get_running_loop().call_later(seconds, self._ended, uid_of(pod))
        else:
            self._ended(uid_of(pod))

    def _ended(self, uid: str) -> None:
        self._release(uid)
        self._claims.end(uid)

    def _release(self, uid: str) -> None:
        held = self._ledger.pod(uid)
        self._ledger.release(uid)
        if held is not None and held.state is not ShareState.CONFIRMED:
            self.reservation_changed()

    def _reservation_gone(self, pod: Object) -> None:
        reservation = reservation_of(pod)
        if reservation is not None:
            self._ledger.drop_reservation(reservation.node, reservation.id)
            self.reservation_changed()

    def _reservation(self, pod: Object) -> None:
        reservation = reservation_of(pod)
        if reservation is None:
            return
        counts = self._ledger.put_reservation(reservation)
        if counts.device is not None and counts.memory_mib is not None:
            self._ledger.report(counts.node, counts.id, counts.device, counts.memory_mib)
        self.reservation_seen(reservation)
        self.reservation_changed()


def _created(pod: Object) -> str:
    return str(child(pod, "metadata").get("creationTimestamp") or "")
