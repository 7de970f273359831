"""kube-scheduler's own rules about one pod and one node, as far as these tools apply them.

In a cluster kube-scheduler applies all of them before it asks the extender. ``simulate``, ``explain`` and
``make run`` have no kube-scheduler: they apply ``blockers`` and say what else the pod asks for with
``unapplied_rules``. Nothing here raises: what cannot be read blocks.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from extender.core.errors import InputError
from extender.core.fields import text
from extender.core.names import PODS
from extender.core.requests.quote import plain
from extender.core.selectors import HARD_EFFECTS, any_term_matches, tolerated
from extender.core.unapplied import unapplied_rules

__all__ = ["blockers", "is_gated", "unapplied_rules"]

Object = Mapping[str, Any]

GATED: Final = "scheduling gates hold the pod back"
OTHER_NODE: Final = "the pod names another node in spec.nodeName"
SELECTOR: Final = "node selector does not match"
MALFORMED_SELECTOR: Final = "node selector cannot be read"
AFFINITY: Final = "required node affinity does not match"
MALFORMED_AFFINITY: Final = "required node affinity cannot be read"
CORDONED: Final = "node is cordoned"
MALFORMED_TAINTS: Final = "taints of the node cannot be read"
MALFORMED_POD: Final = "the pod cannot be read"
MALFORMED_NODE: Final = "the node cannot be read"

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_CORDON: Final = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def blockers(pod: Object, node: Object, free: Mapping[str, int], requested: Mapping[str, int]) -> tuple[str, ...]:
    """Why kube-scheduler would not place the pod on the node: constants without numbers; empty if it would.

    ``free`` is what is left on the node and ``requested`` what the pod asks for, resource → cpu in thousandths,
    everything else in base units. A pod takes one of ``pods`` unless ``requested`` says otherwise.
    """
    spec, metadata = _part(pod, "spec"), _part(node, "metadata")
    node_spec, labels = _part(node, "spec"), _part(metadata or {}, "labels")
    if spec is None:
        return (MALFORMED_POD,)
    if metadata is None or node_spec is None or labels is None:
        return (MALFORMED_NODE,)
    name = text(metadata, "name") or ""
    found = [
        *([GATED] if is_gated(pod) else ()),
        *([OTHER_NODE] if spec.get("nodeName") and spec.get("nodeName") != name else ()),
        *_selector_blockers(spec, labels),
        *_affinity_blockers(spec, labels, name),
        *_taint_blockers(spec, node_spec),
        *_resource_blockers(free, requested),
    ]
    return tuple(dict.fromkeys(found))


def is_gated(pod: Object) -> bool:
    """Whether scheduling gates keep the pod from being scheduled at all."""
    spec = _part(pod, "spec")
    return spec is None or bool(spec.get("schedulingGates"))


def _selector_blockers(spec: Object, labels: Object) -> Iterator[str]:
    selector = _part(spec, "nodeSelector")
    if selector is None or not all(isinstance(value, str) for value in selector.values()):
        yield MALFORMED_SELECTOR
    elif any(labels.get(key) != value for key, value in selector.items()):
        yield SELECTOR


def _affinity_blockers(spec: Object, labels: Object, node_name: str) -> Iterator[str]:
    affinity = _part(spec, "affinity")
    node_affinity = None if affinity is None else _part(affinity, "nodeAffinity")
    if node_affinity is None:
        yield MALFORMED_AFFINITY
        return
    if node_affinity.get(_REQUIRED) is None:
        return
    required = _part(node_affinity, _REQUIRED)
    try:
        if required is None:
            yield MALFORMED_AFFINITY
        elif not any_term_matches(required.get("nodeSelectorTerms"), labels, node_name):
            yield AFFINITY
    except InputError:
        yield MALFORMED_AFFINITY


def _taint_blockers(spec: Object, node_spec: Object) -> Iterator[str]:
    tolerations = _list(spec, "tolerations") or []
    cordoned = bool(node_spec.get("unschedulable")) and not tolerated(_CORDON, tolerations)
    if cordoned:
        yield CORDONED
    taints = _list(node_spec, "taints")
    if taints is None or not all(isinstance(taint, Mapping) for taint in taints):
        yield MALFORMED_TAINTS
        return
    for taint in taints:
        # The node controller repeats the cordon as a taint; once is enough.
        said = cordoned and taint.get("key") == _CORDON["key"]
        if taint.get("effect") in HARD_EFFECTS and not said and not tolerated(taint, tolerations):
            yield f"untolerated taint {_taint_text(taint)}"


def _resource_blockers(free: Mapping[str, int], requested: Mapping[str, int]) -> Iterator[str]:
    for resource, amount in {**requested, PODS: requested.get(PODS, 1)}.items():
        # Nobody can ask for less than nothing, and such a request must not make room.
        if amount < 0 or amount > max(free.get(resource, 0), 0):
            yield "no pod slot is left" if resource == PODS else f"insufficient {plain(resource)}"


def _taint_text(taint: Object) -> str:
    value = f"={plain(taint.get('value'))}" if taint.get("value") else ""
    return f"{plain(taint.get('key'))}{value}:{taint.get('effect')}"


def _part(parent: object, key: str) -> Object | None:
    """The object under ``key``: empty where it is absent or null, None where it is something else."""
    value = parent.get(key, {}) if isinstance(parent, Mapping) else None
    if value is None and isinstance(parent, Mapping):
        return {}
    return value if isinstance(value, Mapping) else None


def _list(parent: Object, key: str) -> list[Any] | None:
    """The list under ``key``: empty where it is absent or null, None where it is something else."""
    value = parent.get(key)
    if value is None:
        return []
    return value if isinstance(value, list) else None
