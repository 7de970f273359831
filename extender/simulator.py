"""kube-scheduler's cycle, played for a list of pods: in-tree rules, filter, prioritize, bind.

``simulate`` plays it against the service's own verbs in this process, ``make run`` against the same verbs over HTTP;
either way every decision about GPUs is the extender's.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from extender.core import names
from extender.core.errors import InputError
from extender.core.intree import blockers, is_gated
from extender.core.nodereader import allocatable
from extender.core.podreader import annotations_of, has_ended, namespaced_name, node_of, uid_of
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.requests.resources import requested
from extender.core.unapplied import unapplied_rules
from extender.verbs import Verbs

Json = dict[str, Any]
Object = Mapping[str, Any]


class Extender(Protocol):
    """The verbs as kube-scheduler calls them, and a pod read back."""

    async def call(self, verb: str, body: Json) -> Any:
        """POST the body to the verb; the decoded answer."""

    async def pod(self, namespace: str, name: str) -> Json:
        """The pod as the cluster holds it now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where one pod went, or why nowhere."""

    namespace: str
    name: str
    uid: str
    node: str | None = None
    shared_gpus: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory_mib: str | None = None
    #: Why it waits: reason → how many nodes say so.
    reasons: Mapping[str, int] = field(default_factory=dict)
    #: Rules of the pod that were not applied.
    not_applied: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """In the names of ``/inspect`` and ``/explain``; ``memoryMiB`` is the share on each device."""
        sizes = [int(mib) for mib in _list(self.memory_mib)]
        return {
            "namespace": self.namespace,
            "pod": self.name,
            "uid": self.uid,
            "node": self.node,
            "sharedGpus": list(self.shared_gpus),
            "visibleDevices": list(self.devices),
            "memoryMiB": (sizes[0] if len(sizes) == 1 else sizes) if sizes else None,
            "reasons": dict(self.reasons),
            "notApplied": list(self.not_applied),
        }


class Account:
    """What kube-scheduler's own filters count: every resource but GPU memory."""

    def __init__(self, nodes: Iterable[Object], pods: Iterable[Object]) -> None:
        self.nodes = {str(node["metadata"]["name"]): node for node in nodes}
        self.free = {name: allocatable(node) for name, node in self.nodes.items()}
        self._counted: set[str] = set()
        for pod in pods:
            if not has_ended(pod):
                self.take(pod)

    def take(self, pod: Object) -> None:
        """Count a bound pod, once."""
        node = node_of(pod)
        if node is None or node not in self.free or uid_of(pod) in self._counted:
            return
        self._counted.add(uid_of(pod))
        free = self.free[node]
        for resource, amount in {**requested(pod), names.PODS: 1}.items():
            free[resource] = free.get(resource, 0) - amount


class Cycle:
    """One kube-scheduler working through its queue."""

    def __init__(self, extender: Extender, nodes: Iterable[Object], pods: Iterable[Object]) -> None:
        self._extender = extender
        self._account = Account(nodes, pods)

    async def place_all(self, pods: Iterable[Object]) -> AsyncIterator[Outcome]:
        """Each pending pod's outcome, in the order in which kube-scheduler would take them."""
        for pod in queue_order(pods):
            yield await self.place(pod)

    async def place(self, pod: Object) -> Outcome:
        """One pod's scheduling and binding cycle."""
        if is_gated(pod):
            return self._waits(pod, Counter({"the pod has scheduling gates": 1}))
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            # Said of every node: what else some of them lack would only hide it.
            return self._waits(pod, Counter({request.sentence: len(self._account.nodes)}))
        feasible, reasons = self._in_tree(pod)
        if feasible:
            answer = await self._extender.call("filter", {"Pod": pod, "Nodes": None, "NodeNames": feasible})
            if answer.get("Error"):
                return self._waits(pod, Counter({answer["Error"]: len(feasible)}))
            passed = answer.get("NodeNames") or []
            if passed:
                return await self._bind(pod, await self._best(pod, passed))
            for rejected in ("FailedNodes", "FailedAndUnresolvableNodes"):
                reasons.update((answer.get(rejected) or {}).values())
        return self._waits(pod, reasons)

    def _in_tree(self, pod: Object) -> tuple[list[str], Counter[str]]:
        needs = requested(pod)
        feasible: list[str] = []
        reasons: Counter[str] = Counter()
        for name, node in self._account.nodes.items():
            found = blockers(pod, node, self._account.free[name], needs)
            reasons.update(found)
            if not found:
                feasible.append(name)
        return feasible, reasons

    async def _best(self, pod: Object, passed: Sequence[str]) -> str:
        if len(passed) == 1:
            return passed[0]
        body = {"Pod": pod, "Nodes": None, "NodeNames": passed}
        scores = {entry["Host"]: entry["Score"] for entry in await self._extender.call("prioritize", body)}
        # Among equals, in-tree scoring prefers the least used node.
        return max(passed, key=lambda name: (scores.get(name, 0), self._account.free[name].get(names.CPU, 0)))

    async def _bind(self, pod: Object, node: str) -> Outcome:
        namespace, name = namespaced_name(pod)
        body = {"PodName": name, "PodNamespace": namespace, "PodUID": uid_of(pod), "Node": node}
        answer = await self._extender.call("bind", body)
        if answer.get("Error"):
            return self._waits(pod, Counter({answer["Error"]: 1}))
        bound = await self._extender.pod(namespace, name)
        self._account.take(bound)
        annotations = annotations_of(bound)
        shared = _list(annotations.get(names.SHARED_GPUS))
        for reservation in shared:
            self._account.take(await self._extender.pod(names.RESERVATION_NAMESPACE, reservation))
        return Outcome(
            namespace,
            name,
            uid_of(pod),
            node,
            shared,
            _list(annotations.get(names.VISIBLE_DEVICES)),
            annotations.get(names.MEMORY_MIB),
            not_applied=unapplied_rules(pod),
        )

    def _waits(self, pod: Object, reasons: Counter[str]) -> Outcome:
        namespace, name = namespaced_name(pod)
        return Outcome(
            namespace,
            name,
            uid_of(pod),
            reasons=dict(reasons.most_common()),
            not_applied=unapplied_rules(pod),
        )


class InProcess:
    """The service's verbs without a socket: the same bytes in and out."""

    def __init__(self, verbs: Verbs, get_pod: Any) -> None:
        self._verbs = verbs
        self._get_pod = get_pod

    async def call(self, verb: str, body: Json) -> Any:
        """See Extender."""
        try:
            answer = await getattr(self._verbs, verb)(orjson.dumps(body))
        except InputError as error:
            return {"Error": str(error)}
        return answer.body

    async def pod(self, namespace: str, name: str) -> Json:
        """See Extender."""
        found: Json = await self._get_pod(namespace, name)
        return found


def pending(pods: Iterable[Object]) -> list[Object]:
    """The pods that wait for a scheduler."""
    return [pod for pod in pods if node_of(pod) is None and not has_ended(pod)]


def queue_order(pods: Iterable[Object]) -> list[Object]:
    """By priority, then age, then as given: kube-scheduler's PrioritySort."""

    def key(pod: Object) -> tuple[int, str]:
        priority = (pod.get("spec") or {}).get("priority")
        created = (pod.get("metadata") or {}).get("creationTimestamp") or "9999"
        return -(priority if isinstance(priority, int) else 0), str(created)

    return sorted(pods, key=key)


def _list(value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()
