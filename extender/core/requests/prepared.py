"""For which enforcement backends a pod is prepared: whose variables its containers take from what the Binding writes.

A pod's containers are fixed before anybody knows its node, so this says where it can be held to its share.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from extender.core import names
from extender.core.requests.pod import Json

#: Backend → the variable that carries its limit, and the annotation that this is taken from. The others need none.
LIMITS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        names.HAMI_CORE: ("CUDA_DEVICE_MEMORY_LIMIT", names.HAMI_MEMORY_LIMIT),
        names.MPS: ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", names.MPS_MEMORY_LIMIT),
    }
)
VARIABLES: Final = frozenset(variable for variable, _ in LIMITS.values())


def prepared(containers: Sequence[Json], shared: Sequence[str]) -> frozenset[str]:
    """The keys of ``LIMITS`` for which every container that sees the share is prepared.

    ``shared``: their names, in the order in which the Binding numbers them.
    """
    by_name = {str(container.get("name")): _fields(container) for container in containers}
    if not any(by_name.values()):
        return frozenset()  # As most pods.
    return frozenset(
        backend
        for backend, (variable, key) in LIMITS.items()
        if all(
            by_name.get(name, {}).get(variable) == f"metadata.annotations['{key}.{place}']"
            for place, name in enumerate(shared)
        )
    )


def prepares(entry: object) -> bool:
    """Whether the entry of a container's ``env`` is one of ``VARIABLES``, whatever JSON it is."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return isinstance(name, str) and name in VARIABLES


def _fields(container: Json) -> dict[str, object]:
    """Variable → the pod's field that it is taken from; of two with one name the later counts, as for the kubelet."""
    entries = container.get("env")
    if not isinstance(entries, list):
        return {}
    return {str(entry["name"]): _field(entry) for entry in entries if prepares(entry)}


def _field(entry: Mapping[str, Any]) -> object:
    for key in ("valueFrom", "fieldRef", "fieldPath"):
        found = entry.get(key)
        if not isinstance(found, Mapping):
            return found
        entry = found
    return None
