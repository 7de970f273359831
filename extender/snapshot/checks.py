"""What of each kind must be well formed, so that nothing behind it has to ask again.

Only fields that something reads are checked. Values of GPU annotations are not: a wrong one makes a refused
request, not a broken file.
"""

from typing import Any, Final

import orjson

from extender.core.errors import InputError
from extender.core.requests.quote import plain
from extender.snapshot.shapes import (
    Shape,
    an_object,
    each,
    fields,
    flag,
    integer,
    name,
    quantities,
    text,
    texts,
)

_METADATA: Final = fields(
    {
        "name": name,
        "namespace": name,
        "uid": text,
        "resourceVersion": text,
        "labels": texts,
        "annotations": texts,
        "creationTimestamp": text,
        "deletionTimestamp": text,
        "deletionGracePeriodSeconds": integer,
        "ownerReferences": each(fields({"kind": text, "name": text, "uid": text})),
    },
    required=("name",),
)

_RESOURCES: Final = fields({"requests": quantities, "limits": quantities, "claims": each(an_object)})
_CONTAINERS: Final = each(
    fields(
        {
            "name": name,
            "restartPolicy": text,
            "resources": _RESOURCES,
            "ports": each(fields({"containerPort": integer, "hostPort": integer})),
        },
        required=("name",),
    )
)
_CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_CONTAINER_STATUSES: Final = each(fields({"name": text, "state": an_object}))

_POD: Final = fields(
    {
        "metadata": _METADATA,
        "spec": fields(
            {
                **dict.fromkeys(_CONTAINER_LISTS, _CONTAINERS),
                "resources": _RESOURCES,
                "overhead": quantities,
                "nodeName": text,
                "nodeSelector": texts,
                "affinity": fields(dict.fromkeys(("nodeAffinity", "podAffinity", "podAntiAffinity"), an_object)),
                "tolerations": each(fields(dict.fromkeys(("key", "operator", "value", "effect"), text))),
                "schedulingGates": each(an_object),
                "topologySpreadConstraints": each(an_object),
                "volumes": each(an_object),
                "resourceClaims": each(an_object),
                "schedulerName": text,
                "priority": integer,
                "priorityClassName": text,
                "runtimeClassName": text,
                "restartPolicy": text,
                "hostNetwork": flag,
                "terminationGracePeriodSeconds": integer,
            }
        ),
        "status": fields(
            {
                "phase": text,
                "conditions": each(fields({"type": text, "status": text})),
                "initContainerStatuses": _CONTAINER_STATUSES,
                "containerStatuses": _CONTAINER_STATUSES,
                "ephemeralContainerStatuses": _CONTAINER_STATUSES,
            }
        ),
    },
    required=("metadata",),
)

_NODE: Final = fields(
    {
        "metadata": _METADATA,
        "spec": fields(
            {
                "unschedulable": flag,
                "taints": each(fields({"key": text, "value": text, "effect": text}, required=("key", "effect"))),
            }
        ),
        "status": fields(
            {
                "capacity": quantities,
                "allocatable": quantities,
                "conditions": each(fields({"type": text, "status": text}, required=("type", "status"))),
                "nodeInfo": fields({"bootID": text}),
            }
        ),
    },
    required=("metadata",),
)

_RESOURCE_SLICE: Final = fields(
    {
        "metadata": _METADATA,
        "spec": fields(
            {
                "driver": text,
                "nodeName": text,
                "allNodes": flag,
                "pool": fields({"name": text, "generation": integer, "resourceSliceCount": integer}),
                "devices": each(
                    fields(
                        {"name": text, "attributes": an_object, "capacity": an_object, "basic": an_object},
                        required=("name",),
                    )
                ),
            }
        ),
    },
    required=("metadata",),
)

_ALLOCATED: Final = fields({"driver": text, "pool": text, "device": text})
_RESOURCE_CLAIM: Final = fields(
    {
        "metadata": _METADATA,
        "spec": an_object,
        "status": fields(
            {
                "allocation": fields({"devices": fields({"results": each(_ALLOCATED)})}),
                "reservedFor": each(fields({"name": text, "uid": text})),
            }
        ),
    },
    required=("metadata",),
)

_SHAPES: Final[dict[str, Shape]] = {
    "Node": _NODE,
    "Pod": _POD,
    "ResourceSlice": _RESOURCE_SLICE,
    "ResourceClaim": _RESOURCE_CLAIM,
}


def check(kind: str, value: object) -> None:
    """Raise ``InputError``, which names field and value, unless ``value`` is a well-formed object of ``kind``."""
    _SHAPES[kind](value, "")
    _refuse_unwritable(value)
    if kind == "Pod":
        assert isinstance(value, dict)
        _refuse_same_names(value.get("spec") or {})


def _refuse_unwritable(value: object) -> None:
    """Whatever came in is sent out again as JSON; orjson reads deeper nesting than it writes."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise InputError(f"cannot be written as JSON: {error}") from None


def _refuse_same_names(spec: dict[str, Any]) -> None:
    """A request names a container, so the name must say which: across all lists, as in Kubernetes."""
    seen = set[str]()
    for key in _CONTAINER_LISTS:
        for index, container in enumerate(spec.get(key) or ()):
            if container["name"] in seen:
                raise InputError(f"spec.{key}[{index}].name {plain(container['name'])} is taken by another container")
            seen.add(container["name"])
