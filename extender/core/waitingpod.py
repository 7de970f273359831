"""A pod that waits: what it asks for, and where it would go."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from extender.core.fields import child
from extender.core.intree import blockers
from extender.core.placement import Placement, fit
from extender.core.podreader import namespaced_name, uid_of
from extender.core.requests import GpuRequest
from extender.core.values import NodeState

Object = Mapping[str, Any]

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
    #: Smaller is earlier: priority, then when it came.
    rank: tuple[int, int]
    #: Equal for pods that fit in the same places.
    shape: Hashable
    #: The number of the last change that its last verdict knew of; less than any while there is none.
    judged: int = -1
    #: The node that it was last due for.
    offered: str = ""
    #: No poke before that time.
    not_before: float = 0.0

    @classmethod
    def of(cls, pod: Object, arrival: int) -> "WaitingPod | None":
        """None if nothing that is freed helps this pod: its request is refused."""
        request = GpuRequest.from_pod(pod)
        uid = uid_of(pod)
        if not isinstance(request, GpuRequest) or not uid:
            return None
        spec = child(pod, "spec")
        constraints = {"spec": {key: spec[key] for key in _CONSTRAINTS if spec.get(key)}}
        priority = spec.get("priority")
        rank = (-priority if isinstance(priority, int) else 0, arrival)
        return cls(uid, *namespaced_name(pod), request, constraints, rank, (request.shape, repr(constraints)))

    def placement(self, state: NodeState, node: Object | None) -> Placement | None:
        """Where it would go on a node that stands like that; None if anything that is known speaks against it.

        ``node``: its object, None if it is not at hand.
        """
        rules = ({}, {}) if node is None else (self.constraints, node)
        if blockers(*rules, state.free, self.request.resources):
            return None
        verdict = fit(state, self.request)
        return verdict if isinstance(verdict, Placement) else None


@dataclass(frozen=True, slots=True)
class Kind:
    """Pods that fit in the same places, by rank."""

    pods: list[WaitingPod]
    #: The least of theirs.
    judged: int


def by_kind(pods: Iterable[WaitingPod]) -> list[Kind]:
    """Each pod in one kind."""
    kinds: dict[Hashable, list[WaitingPod]] = {}
    for pod in sorted(pods, key=lambda pod: pod.rank):
        kinds.setdefault(pod.shape, []).append(pod)
    return [Kind(alike, min(pod.judged for pod in alike)) for alike in kinds.values()]
