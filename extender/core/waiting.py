"""Pods that this extender has rejected, and which of them may fit now that something was freed.

::

              ┌───────────── rejected again ◀────────────┐
              ▼                                          │
    rejected, waiting ──▶ due ──▶ poked ──▶ kube-scheduler asks ──▶ placed
              │
              └──▶ bound by others, or gone

A pod is due when a node offers more than at the pod's last verdict, and the pod fits there now; or when it fits on a
node where the API had refused to bind it, and that is long enough ago.

A pod that was judged after the change needs no poke: kube-scheduler was faster. Of the others as many are due as fit
together, those of highest priority first; while the room stays free, twice as many each time, for kube-scheduler may
have reasons against the first ones that nobody here knows.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

from extender.core.decisions import Decisions
from extender.core.placement import Placement, with_placement
from extender.core.podreader import uid_of
from extender.core.room import has_more
from extender.core.values import NodeState
from extender.core.waitingpod import Kind, WaitingPod, by_kind

Object = Mapping[str, Any]

#: Seconds between two pokes of one pod.
INTERVAL: Final = 1.0
#: Pods that are due at once: kube-scheduler tries some hundred a second.
MOST_DUE: Final = 20
#: Pods that are remembered; kube-scheduler itself tries the others again after five minutes.
MOST_WAITING: Final = 5_000
#: Judgements of a kind of pod on a node in one call of ``due``: some 10 ms.
MOST_TRIALS: Final = 500


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
        #: UID → nodes that the pod was kept from by a refused bind, and until when.
        self._refused: dict[str, dict[str, float]] = {}
        decisions.node_changed = self._node_changed

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: object) -> bool:
        return uid in self._pods

    def rejected(self, pod: Object) -> None:
        """filter has just found no node for this pod, in this tick of the loop: it waits.

        Nothing happens for one whose request is refused: nothing that is freed helps it.
        """
        self._look()  # What is freed from now on counts from how things stand now.
        waiting = self._remember(pod)
        if waiting is not None:
            waiting.judged = self._changes
            self._keep_refused(waiting.uid)

    def found(self, pods: Iterable[Object]) -> None:
        """The API shows these unbound pods of our schedulers: a process that has died may have rejected them.

        Those that are not known yet are due if they fit anywhere. To be called after the first list.
        """
        for pod in pods:
            if uid_of(pod) not in self._pods:
                self._remember(pod)
        # Every node is an offer to them.
        self._changes += 1
        self._dirty.update(self._before)
        self._before.clear()

    def forget(self, uid: str) -> None:
        """filter has found a node for it, or it is bound or gone. Idempotent."""
        self._pods.pop(uid, None)
        self._refused.pop(uid, None)

    def due(self, now: float) -> list[WaitingPod]:
        """Pods to poke now, the most important first; ``missed`` for those that were not. To be called some times a
        second."""
        self._decisions.claims.expire()
        if self._pods:
            self._look()
        else:
            self._offers.clear()
        if not (self._offers or self._refused):
            return []
        self._drop_settled()
        chosen = self._no_longer_refused(now)
        trials = 0
        for name, kinds in self._matches():
            if trials >= MOST_TRIALS or len(chosen) >= MOST_DUE:
                break
            trials += len(kinds)
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
            self.forget(uid)

    # --- refused binds --------------------------------------------------------------------------------------

    def _keep_refused(self, uid: str) -> None:
        waits = self._decisions.refused.waits(uid)
        if waits:
            self._refused[uid] = dict(waits)

    def _no_longer_refused(self, now: float) -> list[WaitingPod]:
        """Pods that fit now on a node where their wait has just ended; their turn comes by when they were rejected."""
        chosen: list[WaitingPod] = []
        for uid, waits in list(self._refused.items()):
            pod = self._pods[uid]
            over = [node for node, until in waits.items() if until <= now]
            if not over or pod.not_before > now or self._is_binding(uid) or len(chosen) >= MOST_DUE:
                continue
            for node in over:
                del waits[node]
            if not waits:
                del self._refused[uid]
            states = filter(None, map(self._decisions.expected, over))
            fitting = next((state.name for state in states if self._placement(state, pod) is not None), None)
            if fitting is not None:
                pod.judged, pod.offered, pod.not_before = self._changes, fitting, now + INTERVAL
                chosen.append(pod)
        return chosen

    # --- who may fit ----------------------------------------------------------------------------------------

    def _remember(self, pod: Object) -> WaitingPod | None:
        """The last to be forgotten; None if nothing helps this pod."""
        waiting = self._pods.get(uid_of(pod)) or WaitingPod.of(pod, next(self._arrivals))
        self.forget(uid_of(pod))
        if waiting is None:
            return None
        if len(self._pods) >= self._most:
            self.forget(next(iter(self._pods)))
        self._pods[waiting.uid] = waiting
        return waiting

    def _matches(self) -> list[tuple[str, list[Kind]]]:
        """Nodes that offer something, and the kinds of pods that fit there and do not know; other offers end here."""
        kinds = by_kind(self._pods.values())
        names = list(self._offers)
        fitting = [(kind, self._decisions.fitting(kind.pods[0].request, names)) for kind in kinds]
        found = []
        for name in names:
            change = self._offers[name].change
            match = [kind for kind, nodes in fitting if name in nodes and kind.judged < change]
            if match:
                found.append((name, match))
            else:
                del self._offers[name]
        return found

    def _take_up(self, name: str, offer: _Offer, kinds: list[Kind], chosen: list[WaitingPod], now: float) -> bool:
        """Choose pods for that node's room; whether it may be of use later too."""
        state = self._decisions.expected(name)
        if state is None:
            return False
        kinds = [kind for kind in kinds if self._placement(state, kind.pods[0]) is not None]
        before = len(chosen)
        self._fill([state] * min(MOST_DUE, 2**offer.rounds), [self._ready(kind, offer, now) for kind in kinds], chosen)
        for pod in chosen[before:]:
            # From now on only what changes later is a reason for another poke.
            pod.judged, pod.offered, pod.not_before = self._changes, name, now + INTERVAL
        offer.rounds += len(chosen) > before
        return bool(kinds)

    def _ready(self, kind: Kind, offer: _Offer, now: float) -> Iterator[WaitingPod]:
        for pod in kind.pods:
            if pod.judged < offer.change and pod.not_before <= now and not self._is_binding(pod.uid):
                yield pod

    def _fill(self, rooms: list[NodeState], queues: Iterable[Iterator[WaitingPod]], chosen: list[WaitingPod]) -> None:
        """Choose pods by rank, each for the first of the rooms that still has place for it."""
        heads = [(pod.rank, 0, pod, queue) for queue in queues for pod in islice(queue, 1)]
        heapq.heapify(heads)
        while heads and len(chosen) < MOST_DUE:
            rank, room, pod, queue = heapq.heappop(heads)
            placement = self._placement(rooms[room], pod)
            if placement is not None:
                chosen.append(pod)
                rooms[room] = with_placement(rooms[room], pod.request, placement, pod.uid)
                # What had no place for this one has none for the next.
                for following in islice(queue, 1):
                    heapq.heappush(heads, (following.rank, room, following, queue))
            elif room + 1 < len(rooms):
                heapq.heappush(heads, (rank, room + 1, pod, queue))

    def _placement(self, state: NodeState, pod: WaitingPod) -> Placement | None:
        return pod.placement(state, self._nodes.get(state.name))
