"""Where things stand in a pod's JSON.

What is absent or null is empty, as Go's JSON makes it. What has another type than the API gives it raises
``InputError``: nobody can say what such a pod asks for, so it must not pass as one that asks for nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from extender.core.errors import InputError
from extender.core.names import CRITICAL_PRIORITIES
from extender.core.requests.quote import quote

Json: TypeAlias = Mapping[str, Any]

_EMPTY: Json = {}


class PodSpec(NamedTuple):
    """The parts of ``spec`` that say what a pod asks for."""

    #: In the order in which they start, sidecars among them.
    init_containers: list[Json]
    containers: list[Json]
    #: What the pod asks for as a whole (``spec.resources``).
    resources: Json
    overhead: Json
    #: Whether it belongs to what Kubernetes lets run first of all.
    is_critical: bool


def read_spec(pod: object) -> PodSpec:
    """Raises ``InputError`` where the pod has another shape than the API's."""
    spec = child(_object(pod, "the pod"), "spec")
    return PodSpec(
        _objects(spec, "initContainers"),
        _objects(spec, "containers"),
        child(spec, "resources"),
        child(spec, "overhead"),
        spec.get("priorityClassName") in CRITICAL_PRIORITIES,
    )


def annotations(pod: object) -> Json:
    """``metadata.annotations`` with values as they came, which need not be text."""
    return child(child(_object(pod, "the pod"), "metadata"), "annotations")


def is_sidecar(init_container: Json) -> bool:
    """Whether an init container keeps running beside the ordinary ones."""
    return init_container.get("restartPolicy") == "Always"


def container_names(containers: list[Json]) -> tuple[str, ...]:
    """The names of those that have one."""
    names = (container.get("name") for container in containers)
    return tuple([name for name in names if isinstance(name, str)])


def child(parent: Json, key: str) -> Json:
    """The object under ``key``; empty where it is absent or null."""
    value = parent.get(key)
    return _EMPTY if value is None else _object(value, key)


def _objects(parent: Json, key: str) -> list[Json]:
    values = parent.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise InputError(f"{key} is {quote(values)} but must be a list")
    return [_object(value, f"{key}[{i}]") for i, value in enumerate(values)]


def _object(value: object, what: str) -> Json:
    if isinstance(value, dict):
        return value
    raise InputError(f"{what} is {quote(value)} but must be an object")
