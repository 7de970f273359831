"""The environment that a kubelet gives a pod's containers when they start, resolved from the pod as it then stands.

No line of the product's. Only what the tests' pods use: values, fields of the pod, and references to other variables.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

Pod = Mapping[str, Any]

_KEYED: Final = re.compile(r"metadata\.(annotations|labels)\['(.*)'\]")
_REFERENCE: Final = re.compile(r"\$(\$)?\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def environments(pod: Pod) -> dict[str, dict[str, str]]:
    """Container → its variables; init containers too. Raises KeyError for a field that is not played."""
    containers = (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])
    return {container["name"]: _resolved(pod, container) for container in containers}


def _resolved(pod: Pod, container: Mapping[str, Any]) -> dict[str, str]:
    """In the order written: a variable sees those before it, and of two with one name the later counts."""
    found: dict[str, str] = {}
    for entry in container.get("env") or ():
        source = entry.get("valueFrom")
        found[entry["name"]] = (
            _expanded(entry.get("value", ""), found) if source is None else field(pod, source["fieldRef"]["fieldPath"])
        )
    return found


def field(pod: Pod, path: str) -> str:
    """A field of the downward API. An annotation or label that does not exist is empty, no error."""
    keyed = _KEYED.fullmatch(path)
    if keyed is not None:
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    part, _, name = path.partition(".")
    return str(pod[part][name])


def _expanded(value: str, known: Mapping[str, str]) -> str:
    def replaced(match: re.Match[str]) -> str:
        whole = match[0]
        return whole[1:] if match[1] else known.get(match[2], whole)

    return _REFERENCE.sub(replaced, value)
