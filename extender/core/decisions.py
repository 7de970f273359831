"""What filter, prioritize, preempt and bind answer: the rules of one decision, without wire or API.

filter has no lasting effect, bind decides (DESIGN 4.1). Between the two a pod holds a claim.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.claims import Claim, Claims
from extender.core.inventory import Inventory
from extender.core.ledger import Ledger
from extender.core.placement import REASON_TEXT, Placement, Shortfall, Verdict, fit, with_placement
from extender.core.podreader import uid_of
from extender.core.request import GpuRequest, InvalidRequest
from extender.core.scoreboard import FITS, Scoreboard, Verdicts, best
from extender.core.strategies import STRATEGIES, Strategy
from extender.core.values import NodeState

#: The range of an extender's scores: extender/v1 MinExtenderPriority, MaxExtenderPriority.
BEST_SCORE: Final = 10

_REASONS: Final = tuple((reason, resolvable) for reason in REASON_TEXT for resolvable in (False, True))
_CODE: Final = {reason: code for code, reason in enumerate(_REASONS, start=1)}
_UNKNOWN_CODE: Final = _CODE["UnknownNode", False]


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decisions depend on."""

    #: How many nodes filter returns; 0 = all that fit.
    shortlist: int = 16
    strategy: str = names.BINPACK
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

    def __init__(self, policy: Policy, *, claim_ttl: float, timer: Callable[[], float]) -> None:
        self.policy = policy
        self._board = Scoreboard(unknown_code=_UNKNOWN_CODE)
        self.ledger = Ledger(touched=self._board.touch)
        self.claims = Claims(claim_ttl, timer, touched=self._board.touch)

    # --- the verbs ----------------------------------------------------------------------------------------

    def filter(self, pod: Mapping[str, Any], nodes: Sequence[str]) -> Filtered:
        """The best nodes that fit, or why none does."""
        self.claims.expire()
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            return Filtered(
                unresolvable=dict.fromkeys(nodes, request.sentence), rejections={"InvalidRequest": len(nodes)}
            )
        uid = uid_of(pod)
        positions, verdicts = self._judged(request, uid, nodes)
        codes = verdicts.code[positions]
        rejections = _rejections(codes)
        if not (codes == FITS).any():
            return self._nothing_fits(nodes, codes, rejections)
        if not request.asks_for_gpu:
            return Filtered(_distinct(nodes, codes), rejections=rejections)
        chosen = self._board.names(best(verdicts.cost, positions, self.policy.shortlist))
        if len(chosen) == 1:
            self._claim(uid, chosen[0], request)
        return Filtered(chosen, rejections=rejections)

    def prioritize(self, pod: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, int]:
        """Each node asked about, once: 10 for the best, then 9, …; 0 where it does not fit."""
        self.claims.expire()
        scores = dict.fromkeys(nodes, 0)
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            return scores
        uid = uid_of(pod)
        positions, verdicts = self._judged(request, uid, tuple(scores))
        order = best(verdicts.cost, positions, 0)
        # Nodes without GPUs are all as good for a pod that wants none.
        equal = max(1, int((verdicts.cost[order] == -np.inf).sum()))
        for rank, name in enumerate(self._board.names(order[: equal + BEST_SCORE])):
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
        if state is None:
            return UNKNOWN_NODE
        return fit(state, request, self.strategy_of(request).gpu_cost)

    def strategy_of(self, request: GpuRequest) -> Strategy:
        """The pod's own wish, else the setting."""
        return STRATEGIES[request.strategy or self.policy.strategy]

    def cost(self, state: NodeState, request: GpuRequest, placement: Placement) -> Mapping[str, float]:
        """The terms of the placement's cost, by the strategy that applies."""
        return self.strategy_of(request).terms(state, request, placement)

    # --- inside -------------------------------------------------------------------------------------------

    def _judged(
        self, request: GpuRequest, uid: str, nodes: Sequence[str]
    ) -> tuple[NDArray[np.int64], Verdicts]:
        """Positions of the nodes, and verdicts in which the pod's own claim does not count."""
        key = (request.shape if request.asks_for_gpu else None, request.strategy)
        verdicts = self._board.verdicts(key, lambda name: self._judge(name, request))
        own = self.claims.of(uid)
        if own is not None:
            position = self._board.positions([own.node])[0]
            verdicts = Verdicts(verdicts.cost.copy(), verdicts.code.copy(), verdicts.seen)
            verdicts.cost[position], verdicts.code[position] = self._judge(own.node, request, but_for=uid)
        return self._board.positions(nodes), verdicts

    def _judge(self, name: str, request: GpuRequest, but_for: str = "") -> tuple[float, int]:
        state = self._with_claims(name, but_for)
        if state is None:
            return np.inf, _UNKNOWN_CODE
        if not request.asks_for_gpu and not has_gpus(state.inventory):
            return -np.inf, FITS
        strategy = self.strategy_of(request)
        verdict = fit(state, request, strategy.gpu_cost)
        if isinstance(verdict, Shortfall):
            return np.inf, _CODE[verdict.reason, verdict.resolvable]
        return sum(strategy.terms(state, request, verdict).values()), FITS

    def _with_claims(self, name: str, but_for: str) -> NodeState | None:
        """The node as if every claim on it were a pod already: each on the GPU it would get."""
        state = self.ledger.state(name)
        if state is None:
            return None
        for claim in self.claims.on(name):
            if claim.uid == but_for or self.ledger.pod(claim.uid) is not None:
                continue
            verdict = fit(state, claim.request, self.strategy_of(claim.request).gpu_cost)
            if isinstance(verdict, Placement):
                state = with_placement(state, claim.request, verdict, claim.uid)
        return state

    def _nothing_fits(
        self, nodes: Sequence[str], codes: NDArray[np.int16], rejections: Mapping[str, int]
    ) -> Filtered:
        answer = Filtered(rejections=rejections)
        for name, code in zip(nodes, codes.tolist(), strict=True):
            reason, resolvable = _REASONS[code - 1]
            where = answer.failed if resolvable and self.policy.preemption else answer.unresolvable
            where[name] = REASON_TEXT[reason]
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


def has_gpus(inventory: Inventory) -> bool:
    """Whether there is anything on the node that a pod without GPUs should leave to others."""
    return inventory.physical_gpus != 0 or bool(inventory.units) or bool(inventory.slices)


def _rejections(codes: NDArray[np.int16]) -> dict[str, int]:
    counts = np.bincount(codes)
    rejections: dict[str, int] = {}
    for code in np.flatnonzero(counts).tolist():
        if code != FITS:
            reason = _REASONS[code - 1][0]
            rejections[reason] = rejections.get(reason, 0) + int(counts[code])
    return rejections


def _distinct(nodes: Sequence[str], codes: NDArray[np.int16]) -> list[str]:
    return list(dict.fromkeys(name for name, code in zip(nodes, codes.tolist(), strict=True) if code == FITS))
