"""What is kept of a pod: of 100,000 pods it is all that stays in memory.

What nobody here reads is left out; what pods have in common, as those of one Deployment do, is kept once for all of
them. So nothing of a pod that was kept may ever be changed.
"""

import sys
from functools import lru_cache
from typing import Any, Final

import orjson

from extender.core.requests.prepared import prepares

Json = dict[str, Any]

_METADATA: Final = frozenset({"generateName", "generation", "managedFields", "selfLink"})
_SPEC: Final = frozenset(
    {"dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases", "imagePullSecrets", "securityContext",
     "serviceAccount"}
)  # fmt: skip
_CONTAINER: Final = frozenset(
    {"args", "command", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "readinessProbe",
     "securityContext", "startupProbe", "terminationMessagePath", "terminationMessagePolicy", "volumeDevices",
     "volumeMounts"}
)  # fmt: skip
_STATUS: Final = frozenset({"hostIP", "hostIPs", "observedGeneration", "podIP", "podIPs", "qosClass", "startTime"})
_CONDITION: Final = frozenset({"lastProbeTime", "lastTransitionTime", "observedGeneration"})
_STATE: Final = frozenset({"containerID", "finishedAt", "startedAt"})
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_CONTAINER_STATUSES: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
#: Volumes that tie a pod to no node; the API server gives each pod one with a name of its own.
_LOOSE_VOLUMES: Final = frozenset({"configMap", "downwardAPI", "emptyDir", "projected", "secret"})


def slim(pod: Json) -> Json:
    """What has another shape than the API's stays as it is: it must be refused, not pass as empty."""
    kept = dict(pod)
    for part, shorten in (("metadata", _metadata), ("spec", _spec), ("status", _status)):
        if isinstance(pod.get(part), dict):
            kept[part] = shorten(pod[part])
    return kept


def _metadata(metadata: Json) -> Json:
    kept = _without(metadata, _METADATA)
    for key in ("labels", "ownerReferences"):  # Annotations and names are a pod's own.
        if key in kept:
            kept[key] = _common(kept[key])
    return kept


def _spec(spec: Json) -> Json:
    kept = _without(spec, _SPEC)
    for kind in _CONTAINERS:
        if kind in kept:
            kept[kind] = _with_our_variables(_each(kept[kind], _CONTAINER))
    if isinstance(kept.get("volumes"), list):
        kept["volumes"] = [volume for volume in kept["volumes"] if not _is_loose(volume)]
    return {key: _common(value) for key, value in kept.items()}


def _status(status: Json) -> Json:
    kept = _without(status, _STATUS)
    if "conditions" in kept:
        kept["conditions"] = _each(kept["conditions"], _CONDITION)
    for kind in _CONTAINER_STATUSES:
        if isinstance(kept.get(kind), list):
            kept[kind] = [_state(found) for found in kept[kind]]
    return {key: _common(value) for key, value in kept.items()}


def _state(found: Any) -> Any:
    """Of a container's status its state, without when it began."""
    state = found.get("state") if isinstance(found, dict) else None
    if not isinstance(state, dict):
        return found
    return {"state": {kind: _without(details, _STATE) for kind, details in state.items() if isinstance(details, dict)}}


def _is_loose(volume: Any) -> bool:
    return isinstance(volume, dict) and volume.keys() - {"name"} <= _LOOSE_VOLUMES


def _each(listed: Any, keys: frozenset[str]) -> Any:
    if not isinstance(listed, list):
        return listed
    return [_without(item, keys) if isinstance(item, dict) else item for item in listed]


def _with_our_variables(containers: Any) -> Any:
    """Of the variables only those that say for which enforcement the container is prepared."""
    if isinstance(containers, list):
        for container in containers:
            if isinstance(container, dict) and isinstance(container.get("env"), list):
                ours = [entry for entry in container.pop("env") if prepares(entry)]
                container.update({"env": ours} if ours else {})
    return containers


def _without(found: Json, keys: frozenset[str]) -> Json:
    return {key: value for key, value in found.items() if key not in keys}


def _common(value: Any) -> Any:
    """The one object for all that say the same."""
    if isinstance(value, dict | list):
        return _parsed(orjson.dumps(value))
    return sys.intern(value) if isinstance(value, str) else value


#: A few thousand: as many as a large cluster has different templates; what is forgotten is no longer shared, no more.
_parsed: Final = lru_cache(maxsize=8192)(orjson.loads)
