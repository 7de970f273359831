"""Why a pod is where it is, or why it is nowhere: every node's verdict with numbers (API: section 5)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple

from extender.core.consistency import of_pod
from extender.core.costs import Term, in_steps
from extender.core.decisions import Decisions, score_of
from extender.core.fleet import has_gpus
from extender.core.intree import blockers
from extender.core.ledger import Ledger
from extender.core.placement import Shortfall
from extender.core.podreader import annotations_of, has_ended, namespaced_name, node_of, uid_of
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.unapplied import unapplied_rules
from extender.core.values import NodeState, PodOnNode

Json = dict[str, Any]
#: Why a pod without GPUs goes elsewhere if it can, whatever the strategy says; it costs more than all else can.
NOT_NEEDED: Final = "GPUs that it does not need"
_FAR_MORE: Final = 2.0**50
#: Finds the Node object of a name, for kube-scheduler's own rules.
FindNode = Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an explanation is made from: frozen, so that it can be written while decisions go on."""

    pod: Mapping[str, Any]
    held: PodOnNode | None
    #: Every node; the pod's own as if the pod were not there.
    states: Sequence[NodeState]
    #: What this process last decided about the pod.
    last_decision: Mapping[str, Any] | None
    #: What is not as it should be about the pod, in ``check``'s words.
    differences: Sequence[str]


class Judged(NamedTuple):
    """A node, and the shortfall there, or the cost and what it is made of."""

    state: NodeState
    shortfall: Shortfall | None
    cost: float | None
    terms: Mapping[str, Term]


def gather(ledger: Ledger, pod: Mapping[str, Any], last_decision: Mapping[str, Any] | None) -> Evidence:
    """Taken from the ledger in one tick."""
    uid = uid_of(pod)
    held = ledger.pod(uid)
    states = [
        (ledger.without(state.name, [uid]) or state) if held is not None and held.node == state.name else state
        for state in ledger.snapshot()
    ]
    return Evidence(pod, held, states, last_decision, [found.text for found in of_pod(ledger, pod)])


def judge(decisions: Decisions, evidence: Evidence) -> Iterator[Judged]:
    """Each node's verdict, one at a time; none for a refused request.

    Judging uses tables of ``decisions`` that grow, so it belongs where decisions are made; a caller may pause between
    two nodes.
    """
    request = GpuRequest.from_pod(evidence.pod)
    if isinstance(request, GpuRequest):
        for state in evidence.states:
            yield Judged(state, *_judge(decisions, request, state))


def explain(evidence: Evidence, judged: Sequence[Judged], find_node: FindNode) -> Json:
    """``fits`` is our word; ``scheduler`` names kube-scheduler's own objections. Reads frozen values only."""
    pod, held = evidence.pod, evidence.held
    namespace, name = namespaced_name(pod)
    request = GpuRequest.from_pod(pod)
    return {
        "namespace": namespace,
        "pod": name,
        "uid": uid_of(pod),
        "request": None if isinstance(request, InvalidRequest) else describe(request),
        "invalid": request.sentence if isinstance(request, InvalidRequest) else None,
        "state": _state(pod, held),
        "node": node_of(pod) or (held.node if held is not None else None),
        "sharedGpus": [share.gpu_id for share in held.shares] if held is not None else [],
        "visibleDevices": [share.uuid for share in held.shares] if held is not None else [],
        "notApplied": list(unapplied_rules(pod)),
        "annotations": _placement_annotations(pod),
        "lastDecision": evidence.last_decision,
        "differences": list(evidence.differences),
        "nodes": [] if isinstance(request, InvalidRequest) else _verdicts(pod, request, judged, find_node),
    }


def decimal_text(fraction: Fraction) -> str:
    """A fraction below 1 as it may be written, exactly: it has at most 18 digits."""
    digits = f"{fraction.numerator * 10**18 // fraction.denominator:018d}"
    return "0." + (digits.rstrip("0") or "0")


def describe(request: GpuRequest) -> Json:
    """What is asked for, in API names; a fraction's MiB are known only on a node."""
    share = request.share
    if share is None:
        return {"gpus": dict(request.gpus)}
    described: Json = {
        "memoryMiB": share.memory_mib,
        "devices": share.devices,
        "computeMode": share.compute_mode,
    }
    if share.fraction is not None:
        described["fraction"] = decimal_text(share.fraction)
    return described


def _state(pod: Mapping[str, Any], held: PodOnNode | None) -> str:
    if has_ended(pod):
        return "ended"
    if node_of(pod) is not None:
        return "bound"
    return "pending" if held is None else "assumed"


def _placement_annotations(pod: Mapping[str, Any]) -> Json:
    return {key: value for key, value in annotations_of(pod).items() if key.startswith("gpu-extender.io/")}


def _verdicts(pod: Mapping[str, Any], request: GpuRequest, judged: Sequence[Judged], find_node: FindNode) -> list[Json]:
    scores = _scores([verdict.cost for verdict in judged])
    return [
        {
            "name": state.name,
            "fits": cost is not None,
            "score": scores.get(index),
            "reason": None if shortfall is None else shortfall.text,
            "shortfalls": [] if shortfall is None else [_shortfall(shortfall)],
            "amounts": {name: term.amount for name, term in terms.items()},
            "cost": {name: term.cost for name, term in terms.items()},
            "scheduler": list(_objections(pod, request, state, find_node)),
        }
        for index, (state, shortfall, cost, terms) in enumerate(judged)
    ]


def _scores(costs: Sequence[float | None]) -> dict[int, int]:
    """Index → score, as prioritize would give it if kube-scheduler asked about every node."""
    order = sorted((cost, index) for index, cost in enumerate(costs) if cost is not None)
    equal = max(1, sum(cost == float("-inf") for cost, _ in order))
    return {index: score_of(rank, equal) for rank, (_, index) in enumerate(order)}


def _judge(
    decisions: Decisions, request: GpuRequest, state: NodeState
) -> tuple[Shortfall | None, float | None, Mapping[str, Term]]:
    """The shortfall there or the cost, and the cost's terms."""
    verdict, terms = decisions.place(state, request)
    if isinstance(verdict, Shortfall):
        return verdict, None, {}
    cost = float(in_steps(sum(term.cost for term in terms.values())))
    if request.asks_for_gpu:
        return None, cost, terms
    if not has_gpus(state.inventory):
        return None, float("-inf"), {}
    return None, cost, {NOT_NEEDED: Term(state.inventory.physical_gpus or 1, _FAR_MORE), **terms}


def _shortfall(shortfall: Shortfall) -> Json:
    return {
        "reason": shortfall.reason,
        "unit": shortfall.unit,
        "asked": shortfall.asked,
        "free": shortfall.free,
        "largest": shortfall.largest,
        "resolvable": shortfall.resolvable,
    }


def _objections(pod: Mapping[str, Any], request: GpuRequest, state: NodeState, find_node: FindNode) -> tuple[str, ...]:
    node = find_node(state.name)
    if node is None:
        return ()
    unbound = {**pod, "spec": {**(pod.get("spec") or {}), "nodeName": None}}
    return blockers(unbound, node, state.free, request.resources)
