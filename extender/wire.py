"""extender/v1 as kube-scheduler speaks it: Go field names, null for whatever is unset.

Source: k8s.io/kube-scheduler/extender/v1/types.go (its structs have no JSON tags). Unknown fields are ignored: a newer
kube-scheduler may send more. Answers are plain dictionaries written by orjson, always with Content-Length.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from extender.core.errors import InputError
from extender.core.fields import child, text

Json = dict[str, Any]
#: Go's: a larger number could not be sent back.
Int64 = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
_Model = TypeVar("_Model", bound="_Message")


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class NodeList(_Message):
    """A v1 NodeList, of which only the names matter; the items go back as they came."""

    items: list[Json] | None = None


class ExtenderArgs(_Message):
    """The body of filter and prioritize. With ``nodeCacheCapable: true`` only NodeNames is set, else only Nodes."""

    Pod: Json | None = None
    Nodes: NodeList | None = None
    NodeNames: list[StrictStr] | None = None

    def pod(self) -> Json:
        """The pod. Raises InputError where there is none."""
        if self.Pod is None:
            raise InputError("Pod is null: ExtenderArgs must carry a pod")
        return self.Pod

    def names(self) -> list[str]:
        """The nodes asked about, as they came. Raises InputError where there are none."""
        if self.NodeNames is not None:
            return self.NodeNames
        if self.Nodes is None:
            raise InputError("Nodes and NodeNames are both null: ExtenderArgs must name the nodes")
        return [_name(item, index) for index, item in enumerate(self.Nodes.items or ())]


class ExtenderBindingArgs(_Message):
    """The body of bind."""

    PodName: StrictStr
    PodNamespace: StrictStr
    PodUID: StrictStr
    Node: StrictStr


class MetaPod(_Message):
    """A victim by UID."""

    UID: StrictStr


class MetaVictims(_Message):
    """Victims of one candidate node, by UID."""

    Pods: list[MetaPod | None] | None = None
    NumPDBViolations: Int64 | None = None

    def uids(self) -> list[str]:
        """The victims' UIDs in the order given: the most important first."""
        return [pod.UID for pod in self.Pods or () if pod is not None]


class Victims(_Message):
    """Victims of one candidate node, as whole pods."""

    Pods: list[Json | None] | None = None
    NumPDBViolations: Int64 | None = None

    def uids(self) -> list[str]:
        """The victims' UIDs in the order given."""
        uids = (text(child(pod, "metadata"), "uid") for pod in self.Pods or ())
        return [uid for uid in uids if uid is not None]


class ExtenderPreemptionArgs(_Message):
    """The body of preempt: one of the two maps is set."""

    Pod: Json | None = None
    NodeNameToVictims: dict[str, Victims | None] | None = None
    NodeNameToMetaVictims: dict[str, MetaVictims | None] | None = None

    def victims(self) -> dict[str, MetaVictims | Victims]:
        """Candidate node → its victims; nodes without an entry have none."""
        given = self.NodeNameToMetaVictims if self.NodeNameToMetaVictims is not None else self.NodeNameToVictims
        return {node: victims or MetaVictims() for node, victims in (given or {}).items()}


def read(model: type[_Model], body: bytes) -> _Model:
    """The message in a body. Raises InputError that names the first bad field."""
    if not body.strip():
        raise InputError(f"the body is empty: it must be {model.__name__} as JSON")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InputError(f"{model.__name__}: {where}: {first['msg']}") from error


def filter_result(args: ExtenderArgs, passed: list[str], failed: Json, unresolvable: Json, error: str = "") -> Json:
    """ExtenderFilterResult, in the form in which the nodes came."""
    nodes: Json | None = None
    if args.NodeNames is None and args.Nodes is not None:
        by_name = {_name(item, 0): item for item in args.Nodes.items or ()}
        nodes = {"metadata": {}, "items": [by_name[name] for name in passed]}
    return {
        "Nodes": nodes,
        "NodeNames": passed if nodes is None else None,
        "FailedNodes": failed,
        "FailedAndUnresolvableNodes": unresolvable,
        "Error": error,
    }


def host_priorities(scores: dict[str, int]) -> list[Json]:
    """HostPriorityList."""
    return [{"Host": host, "Score": score} for host, score in scores.items()]


def preemption_result(victims: dict[str, MetaVictims | Victims], kept: list[str]) -> Json:
    """ExtenderPreemptionResult: always by UID; kube-scheduler dereferences every entry, so none is null."""
    return {
        "NodeNameToMetaVictims": {
            node: {
                "Pods": [{"UID": uid} for uid in victims[node].uids()],
                "NumPDBViolations": victims[node].NumPDBViolations or 0,
            }
            for node in kept
        }
    }


def _name(item: Json, index: int) -> str:
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        raise InputError(f"ExtenderArgs: Nodes.items.{index}.metadata.name: must be a string")
    return name
