"""Pods that this extender has rejected, and which of them may fit now that something was freed.

::

              ┌───────────── rejected again ◀────────────┐
              ▼                                          │
    rejected, waiting ──▶ due ──▶ poked ──▶ kube-scheduler asks ──▶ placed
              │
              └──▶ bound by others, or gone

A pod is due when a node offers more than at the pod's last verdict, and the pod fits there now.

A pod that was judged after the change needs no poke: kube-scheduler was faster. Of the others as many are due as fit
together, those of highest priority first; while the room stays free, twice as many each time, for kube-scheduler may
have reasons against the first ones that nobody here knows.
"""

import heapq
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from extender.core.decisions import Decisions
from extender.core.fields import child
from extender.core.intree import blockers
from extender.core.placement import Placement, fit, with_placement
from extender.core.podreader import namespaced_name, uid_of
from extender.core.requests import GpuRequest
from extender.core.room import has_more
from extender.core.values import NodeState

Object = Mapping[str, Any]

#: Seconds between two pokes of one pod.
INTERVAL: Final = 1.0
#: Pods that are due at once: kube-scheduler tries some hundred a second.
MOST_DUE: Final = 20
#: Pods that are remembered; kube-scheduler itself tries the others again after five minutes.
MOST_WAITING: Final = 5_000
#: Judgements of a kind of pod on a node in one call of ``due``: some 20 ms.
MOST_TRIALS: Final = 1_000
#: For one offer at most 2 ** that many times as many pods as fit.
MOST_ROUNDS: Final = 8
_CONSTRAINTS: Final = ("nodeSelector", "affinity", "tolerations")


@dataclass(slots=True, eq=False)
class WaitingPod:
    """A pod that filter has rejected."""

    uid: str
    namespace: str
    name: str
    request: GpuRequest
    #: What of the pod kube-scheduler's own rules look at.
    constraints: Object
    #: Smaller is earlier: priority, then since when it waits.
    rank: tuple[int, int]
    #: Equal for pods that fit in the same places.
    kind: Hashable
    #: The number of the last change that its last verdict knew of.
    judged: int
    #: The node that it was last due for.
    offered: str = ""
    not_before: float = 0.0


@dataclass(slots=True)
class _Offer:
    """A node that offers more than it did."""

    #: The number of the change.
    change: int
    #: How often pods were poked for it in vain.
    rounds: int = 0


class Waiting:
    """For one ``Decisions``. ``nodes``: name → Node object, for kube-scheduler's own rules; may lack nodes."""

    def __init__(
        self,
        decisions: Decisions,
        nodes: Mapping[str, Object],
        *,
        is_binding: Callable[[str], bool] = lambda _uid: False,
        most: int = MOST_WAITING,
    ) -> None:
        self._decisions = decisions
        self._nodes = nodes
        #: Whether a bind of that pod is under way: a write to it would make its Binding fail.
        self._is_binding = is_binding
        self._most = most
        #: By UID, in the order of their last rejection.
        self._pods: dict[str, WaitingPod] = {}
        self._arrivals = count()
        self._changes = 0
        #: Nodes that changed and were not looked at since.
        self._dirty: set[str] = set()
        #: Each node as it was last looked at.
        self._before: dict[str, NodeState] = {}
        self._offers: dict[str, _Offer] = {}
        decisions.node_changed = self._node_changed

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: object) -> bool:
        return uid in self._pods

    def rejected(self, pod: Object) -> None:
        """filter has just found no node for this pod, in this tick of the loop: it waits.

        Nothing happens for one whose request is refused: nothing that is freed helps it.
        """
        request = GpuRequest.from_pod(pod)
        uid = uid_of(pod)
        if not isinstance(request, GpuRequest) or not uid:
            return
        self._look()  # What is freed from now on counts from how things stand now.
        known = self._pods.pop(uid, None)
        if known is None and len(self._pods) >= self._most:
            self._pods.pop(next(iter(self._pods)))
        self._pods[uid] = known or self._entry(pod, uid, request)
        self._pods[uid].judged = self._changes

    def forget(self, uid: str) -> None:
        """filter has found a node for it, or it is bound or gone. Idempotent."""
        self._pods.pop(uid, None)

    def due(self, now: float) -> list[WaitingPod]:
        """Pods to poke now, the most important first; ``missed`` for those that were not. To be called some times a
        second."""
        self._decisions.claims.expire()
        if self._pods:
            self._look()
        else:
            self._offers.clear()
        if not self._offers:
            return []
        self._drop_settled()
        kinds = self._by_kind()
        chosen: list[WaitingPod] = []
        for name in list(self._offers)[: MOST_TRIALS // max(1, len(kinds)) + 1]:
            offer = self._offers.pop(name)
            if self._take_up(name, offer, kinds, chosen, now):
                self._offers[name] = offer  # At the end: each node has its turn.
        return sorted(chosen, key=lambda pod: pod.rank)

    def missed(self, pod: WaitingPod) -> None:
        """A pod that was due was not poked, or nobody knows: what it was due for is an offer still."""
        self._before.pop(pod.offered, None)
        self._node_changed(pod.offered)

    # --- changes --------------------------------------------------------------------------------------------

    def _node_changed(self, name: str) -> None:
        self._changes += 1
        self._dirty.add(name)

    def _look(self) -> None:
        """Compare the nodes that changed with how they were."""
        for name in self._dirty:
            state = self._decisions.expected(name)
            if state is None:
                self._before.pop(name, None)
                self._offers.pop(name, None)
                continue
            if has_more(self._before.get(name), state):
                self._offers[name] = _Offer(self._changes)
            self._before[name] = state
        self._dirty.clear()

    def _drop_settled(self) -> None:
        ledger = self._decisions.ledger
        for uid in [uid for uid in self._pods if ledger.pod(uid) is not None or ledger.is_gone(uid)]:
            del self._pods[uid]

    # --- who may fit ----------------------------------------------------------------------------------------

    def _entry(self, pod: Object, uid: str, request: GpuRequest) -> WaitingPod:
        spec = child(pod, "spec")
        constraints = {"spec": {key: spec[key] for key in _CONSTRAINTS if spec.get(key)}}
        priority = spec.get("priority")
        rank = (-priority if isinstance(priority, int) else 0, next(self._arrivals))
        kind = (request.shape, repr(constraints))
        return WaitingPod(uid, *namespaced_name(pod), request, constraints, rank, kind, self._changes)

    def _by_kind(self) -> list[list[WaitingPod]]:
        kinds: dict[Hashable, list[WaitingPod]] = {}
        for pod in sorted(self._pods.values(), key=lambda pod: pod.rank):
            kinds.setdefault(pod.kind, []).append(pod)
        return list(kinds.values())

    def _take_up(
        self, name: str, offer: _Offer, kinds: list[list[WaitingPod]], chosen: list[WaitingPod], now: float
    ) -> bool:
        """Choose pods for that node's room; whether it may be of use later too."""
        state = self._decisions.expected(name)
        if state is None:
            return False
        unaware = [[pod for pod in pods if pod.judged < offer.change] for pods in kinds]
        fitting = [pods for pods in unaware if pods and self._placement(state, pods[0]) is not None]
        ready = [
            pod
            for pod in heapq.merge(*fitting, key=lambda pod: pod.rank)
            if pod.not_before <= now and not self._is_binding(pod.uid)
        ]
        if ready:
            for _ in range(2**offer.rounds):
                ready = self._fill(state, ready, chosen, now)
            offer.rounds = min(offer.rounds + 1, MOST_ROUNDS)
        return bool(fitting)

    def _fill(
        self, state: NodeState, ready: list[WaitingPod], chosen: list[WaitingPod], now: float
    ) -> list[WaitingPod]:
        """Choose as many as fit together; returns the others."""
        full: set[Hashable] = set()
        others: list[WaitingPod] = []
        for pod in ready:
            placement = None if pod.kind in full or len(chosen) >= MOST_DUE else self._placement(state, pod)
            if placement is None:
                full.add(pod.kind)
                others.append(pod)
                continue
            chosen.append(pod)
            # From now on only what changes later is a reason for another poke.
            pod.judged, pod.offered, pod.not_before = self._changes, state.name, now + INTERVAL
            state = with_placement(state, pod.request, placement, pod.uid)
        return others

    def _placement(self, state: NodeState, pod: WaitingPod) -> Placement | None:
        """Where the pod would go on a node that stands like that; None if anything that is known speaks against it."""
        node = self._nodes.get(state.name)
        rules = ({}, {}) if node is None else (pod.constraints, node)
        if blockers(*rules, state.free, pod.request.resources):
            return None
        verdict = fit(state, pod.request)
        return verdict if isinstance(verdict, Placement) else None
