"""What filter, prioritize, preempt and bind answer: the rules of one decision, without wire or API.

filter has no lasting effect, bind decides (DESIGN 4.1). Between the two a pod holds a claim.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from extender.core import fleet, names
from extender.core.backoff import Backoff
from extender.core.claims import Claim, Claims
from extender.core.codes import CODE, FITS, REASONS
from extender.core.codes import UNKNOWN_NODE as UNKNOWN_CODE
from extender.core.costs import Term, terms, total
from extender.core.fleet import Fleet, Rows
from extender.core.learned import Learned, refresh
from extender.core.ledger import Ledger
from extender.core.models import Product, Products, by_names, by_spec
from extender.core.options import SIGN, Nodes, Options, Order, Room, codes, is_plain, options, over_devices
from extender.core.placement import REASON_TEXT, Placement, Shortfall, Verdict, fit, has_choice, with_placement
from extender.core.podreader import is_reservation, uid_of
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.scoreboard import UNKNOWN, Asked, Ints, Scoreboard, Verdicts, best
from extender.core.seen import Seen
from extender.core.shapes import Shape
from extender.core.strategies import STRATEGIES, Strategy
from extender.core.values import GpuState, NodeState
from extender.core.workload import Workload

#: Pods whose opening GPU is remembered.
OPENERS: Final = 10_000
#: From so many on, nodes that stand alike are judged once.
MANY: Final = 64
#: The reason under which a refused request counts.
REFUSED: Final = "InvalidRequest"
#: The range of an extender's scores: extender/v1 MinExtenderPriority, MaxExtenderPriority.
BEST_SCORE: Final = 10

#: Code → constant sentence; FITS has none.
_TEXTS: Final = ("", *(REASON_TEXT[reason] for reason, _ in REASONS))

#: Gets a frozen copy of what was seen, the strategies in use, and where to bring what they learned: now, or later.
Refresher = Callable[[Seen, Collection[Strategy], Callable[[Learned], None]], None]


def at_once(seen: Seen, strategies: Collection[Strategy], adopt: Callable[[Learned], None]) -> None:
    """Learn in the middle of a decision: for replays, which must come out the same each time."""
    adopt(refresh(seen, strategies))


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decisions depend on."""

    #: How many nodes filter returns; 0 = all that fit.
    shortlist: int = 16
    strategy: str = names.DEFAULT_STRATEGY
    #: Whether kube-scheduler may try preemption where capacity is only taken.
    preemption: bool = False


@dataclass(frozen=True, slots=True)
class Filtered:
    """filter's answer. A rejected node is in exactly one map when nothing fits; else the maps are empty."""

    nodes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unresolvable: dict[str, str] = field(default_factory=dict)
    #: reason → how many of the nodes asked about
    rejections: Mapping[str, int] = field(default_factory=dict)


class Decisions:
    """One account, one set of claims, one scoreboard."""

    def __init__(  # noqa: PLR0913 - what is asked for has a default
        self,
        policy: Policy,
        *,
        claim_ttl: float,
        timer: Callable[[], float],
        refresher: Refresher = at_once,
        strategies: Mapping[str, Strategy] = STRATEGIES,
        workload: Workload | None = None,
    ) -> None:
        self.policy = policy
        self.workload = workload or Workload()
        self._refresher = refresher
        self._strategies = strategies
        self._board = Scoreboard(unknown_code=UNKNOWN_CODE)
        self._fleet = Fleet()
        #: Positions whose rows in the fleet are out of date.
        self._changed: set[int] = set()
        #: How many names had a position when rows were last written.
        self._written = 0
        self._learned = refresh(self._seen(), strategies.values())
        self._used = {policy.strategy}
        #: Told each node whose account or claims change.
        self.node_changed: Callable[[str], None] = lambda _name: None
        self.ledger = Ledger(touched=self._touch)
        self.claims = Claims(claim_ttl, timer, touched=self._touch)
        #: pod UID → where a GPU is being opened for it
        self._opening: LRUCache[str, tuple[str, str]] = LRUCache(maxsize=OPENERS)
        #: Pods (by UID) that the API refused to bind, and the nodes on which they wait.
        self.refused = Backoff(timer)

    # --- the verbs ----------------------------------------------------------------------------------------

    def filter(self, pod: Mapping[str, Any], nodes: Sequence[str]) -> Filtered:
        """The best nodes that fit, or why none does."""
        if is_reservation(pod):
            # The ledger counts it from the moment it was planned: kube-scheduler alone judges it.
            return Filtered(list(nodes))
        self.claims.expire()
        self.catch_up()
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            return Filtered(unresolvable=dict.fromkeys(nodes, request.sentence), rejections={REFUSED: len(nodes)})
        uid = uid_of(pod)
        asked = self._board.asked(nodes)
        self._learn(pod, uid, request, asked)
        verdicts = self._judged(request, uid, asked)
        found = verdicts.code.take(asked.positions)
        rejected = np.count_nonzero(found)  # FITS is 0.
        rejections = _rejections(found) if rejected else {}
        if rejected == len(nodes):
            return self._nothing_fits(nodes, found, rejections)
        if not request.asks_for_gpu:
            distinct = np.count_nonzero(asked.flags) == len(nodes)
            fitting = compress(nodes, (found == FITS).tolist()) if rejected else nodes
            return Filtered(list(fitting) if distinct else list(dict.fromkeys(fitting)), rejections=rejections)
        started = self._opened_for(uid, nodes, found)
        chosen = started or self._board.names(best(verdicts.cost, asked.flags, self.policy.shortlist))
        if len(chosen) == 1:
            self._claim(uid, chosen[0], request)
        return Filtered(chosen, rejections=rejections)

    def prioritize(self, pod: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, int]:
        """Each node asked about, once: 10 for the best, then 9, …; 0 where it does not fit."""
        scores = dict.fromkeys(nodes, 0)
        if is_reservation(pod):
            return scores
        self.claims.expire()
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            return scores
        uid = uid_of(pod)
        asked = self._board.asked(nodes if len(nodes) == len(scores) else list(scores))
        verdicts = self._judged(request, uid, asked)
        # Nodes without GPUs are all as good for a pod that wants none.
        equal = max(1, int(np.count_nonzero(asked.flags & (verdicts.cost == -np.inf))))
        order = best(verdicts.cost, asked.flags, equal + BEST_SCORE)
        for rank, name in enumerate(self._board.names(order)):
            scores[name] = score_of(rank, equal)
        if len(order) and request.asks_for_gpu:
            self._claim(uid, self._board.names(order[:1])[0], request)
        return scores

    def preempt(self, pod: Mapping[str, Any], victims: Mapping[str, Iterable[str]]) -> list[str]:
        """The candidates on which the pod would fit by the ledger once these victims are gone."""
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            return []
        return [node for node, uids in victims.items() if self._fits_without(node, uids, request)]

    def choose(self, node: str, request: GpuRequest) -> Verdict:
        """What bind gives the pod there; looks at no claim."""
        state = self.ledger.state(node)
        return UNKNOWN_NODE if state is None else self._chosen(state, request)

    def resume(self, uid: str, node: str, gpu_id: str) -> None:
        """A GPU is being opened there for the pod: until it is of no use, filter answers the pod with that node."""
        self._opening[uid] = (node, gpu_id)

    def place(self, state: NodeState, request: GpuRequest) -> tuple[Verdict, Mapping[str, Term]]:
        """The best placement on a node that stands like that, and the terms of its cost; or why it does not fit."""
        verdict = fit(state, request)
        return (verdict, {}) if isinstance(verdict, Shortfall) else self._best(state, request)

    def fitting(self, request: GpuRequest, nodes: Sequence[str]) -> frozenset[str]:
        """Those of the nodes that filter would find fit for a pod without a claim. Changes nothing."""
        asked = self._board.asked(nodes)
        found = self._judged(request, "", asked).code.take(asked.positions)
        return frozenset(compress(nodes, (found == FITS).tolist()))

    def expected(self, node: str) -> NodeState | None:
        """The node as filter sees it for a pod without a claim: every claim on it is a pod already."""
        return self._with_claims(node, "")

    def strategy_of(self, request: GpuRequest) -> Strategy:
        """The pod's own wish, else the setting."""
        return self._strategies[request.strategy or self.policy.strategy]

    # --- what is learned ----------------------------------------------------------------------------------

    def saw(self, pod: Mapping[str, Any]) -> None:
        """The API shows this pod: how a restarted process learns what people ask for."""
        uid = uid_of(pod)
        if not uid or self.workload.knows(uid):
            return
        request = GpuRequest.from_pod(pod)
        if isinstance(request, GpuRequest):
            self._count(uid, request, by_spec(pod, self._products()))

    def catch_up(self) -> None:
        """Learn if enough is new; before a decision, so that filter and prioritize of one pod see the same."""
        if self.workload.is_due():
            self.relearn()

    def relearn(self) -> None:
        """Start to learn from what was seen so far."""
        self._refresher(self._seen(), [self._strategies[name] for name in self._used], self.adopt)

    def adopt(self, learned: Learned) -> None:
        """From now on decide by this. Every cost may be another."""
        self._learned = self._learned.updated(learned)
        self._board.forget_verdicts()

    def fragmentation(self) -> Mapping[str, float]:
        """Per node that has GPUs: MiB that are free but useless for the requests seen."""
        self.catch_up()
        rows, positions = self._gpu_rows()
        nodes = Nodes.of(rows.facts, rows.free)
        mib = self._learned.fragmentation.of(nodes) * nodes.card
        return dict(zip(self._board.names(positions), mib.tolist(), strict=True))

    def _learn(self, pod: Mapping[str, Any], uid: str, request: GpuRequest, asked: Asked) -> None:
        if not uid or self.workload.knows(uid):
            return
        products = None
        if self._changed:
            self._write_rows()
        if request.asks_for_gpu and len(self._fleet.kinds) > 1:
            products = by_spec(pod, self._products())
            if products is None and len(asked.positions) < len(self._board):
                products = self._products_by_names(uid, request, asked)
        self._count(uid, request, products)

    def _count(self, uid: str, request: GpuRequest, products: Products) -> None:
        self._used.add(self.strategy_of(request).name)
        self.workload.count(uid, Shape.of(request, products))

    def _products(self) -> frozenset[Product]:
        """The GPU models there are."""
        # Only for nodes that are new: a restart brings many pods, and each changes a node.
        if self._board.placed > self._written:
            self._write_rows()
        return self._fleet.products

    def _products_by_names(self, uid: str, request: GpuRequest, asked: Asked) -> Products:
        named = asked.flags[: len(self._board)]
        missing = self._that_fit(uid, request, self._roomy(request, ~named))
        if not len(missing):
            return None  # Nothing that has room is missing: no sign that the pod is bound to any model.
        offered = self._that_fit(uid, request, self._roomy(request, named))
        room = self._by_product(np.concatenate((missing, offered)))
        return by_names(room, self._by_product(offered), self.workload.products)

    def _roomy(self, request: GpuRequest, nodes: NDArray[np.bool_]) -> Ints:
        """The positions of those of the nodes that have the CPU, memory and pod slot for the pod."""
        facts = self._fleet.facts(len(self._board))
        found: Ints = (nodes & (facts[fleet.CPU] >= request.cpu_milli)).nonzero()[0]
        if not len(found):
            return found  # As mostly: of nodes that are not named, CPU is what most lack.
        roomy = (facts[fleet.MEMORY].take(found) >= request.memory_bytes) & (facts[fleet.SLOTS].take(found) > 0)
        return found.compress(roomy)

    def _that_fit(self, uid: str, request: GpuRequest, positions: Ints) -> Ints:
        if not len(positions):
            return positions
        codes = self._judged(request, uid, self._board.at(positions)).code.take(positions)
        fitting: Ints = positions[codes == FITS]
        return fitting

    def _by_product(self, positions: Ints) -> Mapping[Product, int]:
        """How many of these nodes have GPUs of each model; models of which there is none are named, too."""
        kinds = self._fleet.facts(len(self._board))[fleet.KIND].take(positions)
        counts = np.bincount(kinds, minlength=len(self._fleet.kinds)).tolist()
        found: Counter[Product] = Counter()
        for kind, count in zip(self._fleet.kinds, counts, strict=True):
            if kind.card > 1:
                found[kind.product] += count
        return found

    def _seen(self) -> Seen:
        rows, _ = self._gpu_rows()
        return Seen.of(self.workload.take(), tuple(self._fleet.kinds), Nodes.of(rows.facts, rows.free))

    def _gpu_rows(self) -> tuple[Rows, NDArray[np.int64]]:
        """A copy of the rows of all nodes that have GPUs, and their positions."""
        self._write_rows()
        facts = self._fleet.facts(len(self._board))
        positions = np.flatnonzero(facts[fleet.KNOWN] * facts[fleet.HAS_GPUS])
        return self._fleet.at(positions), positions

    # --- inside -------------------------------------------------------------------------------------------

    def _touch(self, name: str) -> None:
        self._changed.add(self._board.place(name))
        self.node_changed(name)

    def _write_rows(self) -> None:
        for position in self._changed:
            state = self._with_claims(self._board.name(position), "")
            if self._fleet.put(position, state):
                self._board.touch(position)
            if state is None:
                self._board.release(position)
        self._changed.clear()
        self._written = self._board.placed

    def _judged(self, request: GpuRequest, uid: str, asked: Asked) -> Verdicts:
        """Verdicts on the nodes asked about, in which the pod's own claim does not count."""
        if self._changed:
            self._write_rows()
        verdicts = self._board.verdicts(
            request.shape,
            asked,
            lambda stale: self._judge_all(request, stale),
        )
        own = self.claims.of(uid)
        if own is not None:
            position = np.array([self._board.position(own.node)])
            state = self._with_claims(own.node, uid)
            verdicts = verdicts.copy()
            if state is not None:
                alone = self._fleet.row(state)
                verdicts.cost[position], verdicts.code[position] = self._judge(alone, request, position)
        return self._but_for_refused(uid, verdicts)

    def _but_for_refused(self, uid: str, verdicts: Verdicts) -> Verdicts:
        waits = self.refused.waits(uid)
        if not waits:  # Most pods wait nowhere.
            return verdicts
        position = np.array([self._board.position(node) for node in waits])
        position = position[position != UNKNOWN]
        verdicts = verdicts.copy()
        verdicts.cost[position], verdicts.code[position] = np.inf, CODE["BindRefused", False]
        return verdicts

    def _judge_all(self, request: GpuRequest, positions: Ints) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        """Cost and code of each of these nodes."""
        if len(positions) < MANY or not is_plain(request):
            return self._judge(self._fleet.at(positions), request, positions)
        chosen, like = self._fleet.distinct(positions)
        cost, code = self._judge(self._fleet.at(positions[chosen]), request, positions[chosen])
        return cost.take(like), code.take(like)

    def _judge(self, rows: Rows, request: GpuRequest, positions: Ints) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        """Cost and code of each row; ``positions`` are those of the rows."""
        room = self._room(rows, request)
        judged = codes(rows, request, room) if is_plain(request) else self._fits(request, positions)
        cost = np.full(len(rows), np.inf)
        fitting = judged == FITS
        fits = fitting.nonzero()[0]
        if not len(fits):
            return cost, judged
        if len(fits) < len(rows):
            # A share has no choice where there is no room, which spares a copy of rows; others have one on each row.
            rows, room = (rows.at(fits), None) if room is None else (rows, room.only(fitting))
        choices, amounts = self._choices(rows, request, room)
        costs = total(amounts, self.strategy_of(request).weights)
        if choices.is_share:
            # Every node that fits has a choice, no other has one, and choices are sorted by node.
            costs = np.minimum.reduceat(costs, choices.node.searchsorted(fits))
        cost[fits] = costs
        if not request.asks_for_gpu:
            cost[fits[rows.facts[fleet.HAS_GPUS] == 0]] = -np.inf
        return cost, judged

    def _room(self, rows: Rows, request: GpuRequest) -> Room | None:
        return Room.of(rows, request, tuple(self._fleet.sizes))

    def _fits(self, request: GpuRequest, positions: Ints) -> NDArray[np.int16]:
        """Codes one by one: for GPU resources that the arrays do not hold."""
        found = []
        for position in positions.tolist():
            state = self._with_claims(self._board.name(position), "")
            verdict = UNKNOWN_NODE if state is None else fit(state, request)
            found.append(CODE[verdict.reason, verdict.resolvable] if isinstance(verdict, Shortfall) else FITS)
        return np.array(found, np.int16)

    def _chosen(self, state: NodeState, request: GpuRequest) -> Verdict:
        """The best placement on a node that stands like that, weighed only where there are several."""
        verdict = fit(state, request)
        if isinstance(verdict, Shortfall) or request.share is None or not has_choice(state, request.share):
            return verdict
        return self._best(state, request)[0]

    def _best(self, state: NodeState, request: GpuRequest) -> tuple[Placement, Mapping[str, Term]]:
        """The cheapest choice on a node where there is one, and the terms of its cost."""
        row = self._fleet.row(state)
        strategy = self.strategy_of(request)
        choices, amounts = self._choices(row, request, self._room(row, request))
        best_choice = _best_of(choices, total(amounts, strategy.weights), strategy.order) if choices.is_share else 0
        return _placement(state, choices, best_choice), terms(amounts, strategy.weights, best_choice)

    def _choices(
        self, rows: Rows, request: GpuRequest, room: Room | None
    ) -> tuple[Options, Mapping[str, NDArray[np.float64]]]:
        """Every choice on these rows, and how much there is of each term of their costs."""
        strategy = self.strategy_of(request)
        choices = options(rows, request, room, fills_first=strategy.fills_first, order=strategy.order)
        return choices, strategy.terms(choices, self._learned.by_strategy.get(strategy.name))

    def _opened_for(self, uid: str, nodes: Sequence[str], found: NDArray[np.int16]) -> list[str]:
        """The node on which a GPU is being opened for the pod, if it fits there still; else nothing."""
        node, gpu_id = self._opening.get(uid, ("", ""))
        state = self.ledger.state(node)
        if state is not None and any(gpu.id == gpu_id and gpu.state is not GpuState.CLOSING for gpu in state.gpus):
            return [name for name, code in zip(nodes, found.tolist(), strict=True) if name == node and code == FITS]
        self._opening.pop(uid, None)
        return []

    def _with_claims(self, name: str, but_for: str) -> NodeState | None:
        """The node as if every claim on it were a pod already: each on the GPU it would get."""
        state = self.ledger.state(name)
        if state is None:
            return None
        for claim in self.claims.on(name):
            if claim.uid == but_for or self.ledger.pod(claim.uid) is not None:
                continue
            verdict = self._chosen(state, claim.request)
            if isinstance(verdict, Placement):
                state = with_placement(state, claim.request, verdict, claim.uid)
        return state

    def _nothing_fits(self, nodes: Sequence[str], codes: NDArray[np.int16], rejections: Mapping[str, int]) -> Filtered:
        if not self.policy.preemption:
            if len(rejections) == 1:  # The usual case in a full cluster.
                return Filtered(
                    unresolvable=dict.fromkeys(nodes, REASON_TEXT[next(iter(rejections))]), rejections=rejections
                )
            texts = map(_TEXTS.__getitem__, codes.tolist())
            return Filtered(unresolvable=dict(zip(nodes, texts, strict=True)), rejections=rejections)
        answer = Filtered(rejections=rejections)
        for name, code in zip(nodes, codes.tolist(), strict=True):
            where = answer.failed if REASONS[code - 1][1] else answer.unresolvable
            where[name] = _TEXTS[code]
        return answer

    def _fits_without(self, node: str, victims: Iterable[str], request: GpuRequest) -> bool:
        state = self.ledger.without(node, victims)
        return state is not None and isinstance(fit(state, request), Placement)

    def _claim(self, uid: str, node: str, request: GpuRequest) -> None:
        if uid and self.ledger.pod(uid) is None:
            self.claims.add(Claim(uid, node, request))


UNKNOWN_NODE: Final = Shortfall("UnknownNode", "node", 1, 0, 0, resolvable=False)


def score_of(rank: int, equal: int = 1) -> int:
    """10 for each of the first ``equal`` ranks (0 is the best), then 9, 8, … down to 0."""
    return max(0, BEST_SCORE - max(0, rank - equal + 1))


def _best_of(choices: Options, costs: NDArray[np.float64], order: Order) -> int:
    """Of equal costs existing GPUs before new ones, in the order that the strategy likes."""
    return int(np.lexsort((over_devices(choices.left) * SIGN[order], choices.opened, costs))[0])


def _placement(state: NodeState, choices: Options, choice: int) -> Placement:
    if not choices.is_share:
        return Placement(whole=int(choices.whole[0, 0] - choices.whole[1, 0]))
    chosen = choices.on[:, choice].tolist()
    on = tuple(state.gpus[gpu] for gpu in chosen if gpu >= 0)
    return Placement(on, chosen.count(-1), tuple(choices.mib[:, choice].tolist()))


def _rejections(found: NDArray[np.int16]) -> dict[str, int]:
    """How many of these codes stand for each reason."""
    counts = np.bincount(found).tolist()
    rejections: dict[str, int] = {}
    for code in compress(range(FITS + 1, len(counts)), counts[FITS + 1 :]):
        reason, _ = REASONS[code - 1]
        rejections[reason] = rejections.get(reason, 0) + counts[code]
    return rejections
