"""The four scheduler verbs: a body in, an answer out."""

from dataclasses import dataclass, field
from typing import Any

from extender import wire
from extender.binding.outcome import BindFailed, StillOpening
from extender.core.decisions import REFUSED, Filtered
from extender.core.errors import InputError
from extender.core.podreader import namespaced_name, uid_of
from extender.service import Service


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, the label it counts under, and what the log line says."""

    body: Any
    result: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def error(cls, sentence: str, *, result: str = "error", **facts: Any) -> "Answer":
        """``Error`` alone: never a failure map, never a score."""
        return cls({"Error": sentence}, result, {"error": sentence, **facts})


class Verbs:
    """extender/v1 on one service. Every method raises InputError for a body that cannot be read."""

    def __init__(self, service: Service) -> None:
        self._decisions = service.decisions
        self._binder = service.binder
        self._rejections = service.metrics.rejections
        self._audience = service.audience

    async def filter(self, body: bytes) -> Answer:
        """ExtenderArgs → ExtenderFilterResult."""
        args = wire.read(wire.ExtenderArgs, body)
        pod, nodes = args.pod(), args.names()
        self._binder.asked()
        found = self._decisions.filter(pod, nodes)
        for reason, count in found.rejections.items():
            self._rejections.labels(reason).inc(count)
        self._tell(pod, found)
        return Answer(
            wire.filter_result(args, found.nodes, found.failed, found.unresolvable),
            "fits" if found.nodes else "unfit",
            {
                **_who(pod),
                "asked": len(nodes),
                "passed": len(found.nodes),
                "rejected": dict(found.rejections),
            },
        )

    async def prioritize(self, body: bytes) -> Answer:
        """ExtenderArgs → HostPriorityList."""
        args = wire.read(wire.ExtenderArgs, body)
        pod, nodes = args.pod(), args.names()
        scores = self._decisions.prioritize(pod, nodes)
        best = max(scores, key=scores.__getitem__, default=None)
        return Answer(wire.host_priorities(scores), "scored", {**_who(pod), "asked": len(nodes), "best": best})

    async def bind(self, body: bytes) -> Answer:
        """ExtenderBindingArgs → ExtenderBindingResult."""
        args = wire.read(wire.ExtenderBindingArgs, body)
        if not (args.PodName and args.PodNamespace and args.PodUID and args.Node):
            raise InputError("ExtenderBindingArgs: PodName, PodNamespace, PodUID and Node must not be empty")
        who = {"namespace": args.PodNamespace, "pod": args.PodName, "uid": args.PodUID, "node": args.Node}
        try:
            await self._binder.bind(args.PodNamespace, args.PodName, args.PodUID, args.Node)
        except StillOpening as failure:
            self._audience.opening(args.PodNamespace, args.PodName, args.PodUID, args.Node)
            return Answer.error(str(failure), result="opening", **who)
        except BindFailed as failure:
            return Answer.error(str(failure), result="refused", **who)
        self._audience.bound(args.PodUID)
        held = self._decisions.ledger.pod(args.PodUID)
        gpus = [share.gpu_id for share in held.shares] if held is not None else []
        return Answer({"Error": ""}, "bound", {**who, "gpus": gpus})

    async def preempt(self, body: bytes) -> Answer:
        """ExtenderPreemptionArgs → ExtenderPreemptionResult."""
        args = wire.read(wire.ExtenderPreemptionArgs, body)
        if args.Pod is None:
            raise InputError("Pod is null: ExtenderPreemptionArgs must carry a pod")
        victims = args.victims()
        kept = self._decisions.preempt(args.Pod, {node: entry.uids() for node, entry in victims.items()})
        facts = {**_who(args.Pod), "candidates": len(victims), "kept": len(kept)}
        return Answer(wire.preemption_result(victims, kept), "kept" if kept else "none", facts)

    def _tell(self, pod: Any, found: Filtered) -> None:
        if found.nodes:
            self._audience.fits(uid_of(pod))
        elif found.rejections.get(REFUSED):  # none where no node was named
            self._audience.refused(pod, next(iter(found.unresolvable.values())))
        else:
            self._audience.rejected(pod)


def _who(pod: Any) -> dict[str, str]:
    namespace, name = namespaced_name(pod)
    return {"namespace": namespace, "pod": name, "uid": uid_of(pod)}
