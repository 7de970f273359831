"""The pods of a cluster as last seen, and who is told of their changes."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from extender.cluster import WatchEvent
from extender.core import names
from extender.core.errors import NotFound
from extender.core.podreader import annotations_of, is_reservation, namespaced_name, uid_of
from extender.live.listwatch import DELETED
from extender.reflector import Reflector

Pod = dict[str, Any]
Key = tuple[str, str]
#: Reads one pod as it stands now. Raises ApiError.
ReadPod = Callable[[str, str], Awaitable[Pod]]

# What no decision, explanation or difference looks at is most of a pod's size.
_METADATA: Final = frozenset({"managedFields"})
_SPEC: Final = frozenset({"dnsConfig", "hostAliases", "imagePullSecrets", "securityContext"})
_CONTAINER: Final = frozenset(
    {"args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "readinessProbe",
     "securityContext", "startupProbe", "volumeDevices", "volumeMounts"}
)  # fmt: skip
_STATUS: Final = frozenset({"hostIP", "hostIPs", "podIP", "podIPs", "qosClass"})
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")


class Pods:
    """Sink of the watch; what the rest of the process reads."""

    def __init__(self, watcher: Reflector, read: ReadPod, repaired: Callable[[str], None]) -> None:
        self._watcher = watcher
        self._read = read
        #: Told ``missed``, ``changed`` or ``gone`` for each pod that only a new list has shown.
        self._repaired = repaired
        self._pods: dict[Key, Pod] = {}
        self._listed = False

    # --- Sink ---------------------------------------------------------------------------------------------

    async def replace(self, items: list[Pod]) -> None:
        """See Sink. What the watch has missed is made good."""
        listed = {namespaced_name(pod): slim(pod) for pod in items}
        if not self._listed:
            self._pods, self._listed = listed, True
            self._watcher.pods(listed.values())
            return
        for key, pod in list(self._pods.items()):
            if key not in listed:
                await self._vanished(key, pod)
        # Reservation pods first, so that no share ever looks lost for a moment.
        for pod in sorted(listed.values(), key=lambda pod: not is_reservation(pod)):
            before = self._pods.get(namespaced_name(pod))
            if before is None or _version(before) != _version(pod):
                self._repaired("missed" if before is None else "changed")
                self._put(pod)

    def change(self, event: WatchEvent) -> None:
        """See Sink."""
        if event.type == DELETED:
            self._pods.pop(namespaced_name(event.object), None)
            self._watcher.pod_gone(event.object)
        else:
            self._put(slim(event.object))

    # --- reading ------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Pod]:
        return iter(tuple(self._pods.values()))

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod as last seen, not to be changed, or None."""
        return self._pods.get((namespace, name))

    # --- inside -------------------------------------------------------------------------------------------

    def _put(self, pod: Pod) -> None:
        key = namespaced_name(pod)
        before = self._pods.get(key)
        if before is not None and uid_of(before) != uid_of(pod):
            self._watcher.pod_gone(before)  # Its name is another's now.
        self._pods[key] = pod
        self._watcher.pod(pod)

    async def _vanished(self, key: Key, pod: Pod) -> None:
        """A pod is not in the list. What frees GPU memory needs more than absence: a read that says so."""
        self._repaired("gone")
        if is_reservation(pod) or annotations_of(pod).get(names.SHARED_GPUS):
            try:
                found = await self._read(*key)
            except NotFound:
                pass
            else:
                self._put(slim(found))
                return
        self._pods.pop(key, None)
        self._watcher.pod_gone(pod)


def slim(pod: Pod) -> Pod:
    """The pod without what nobody here reads: of 100,000 pods only that stays in memory."""
    kept = dict(pod)
    kept["metadata"] = _without(pod.get("metadata"), _METADATA)
    spec = _without(pod.get("spec"), _SPEC)
    for kind in _CONTAINERS:
        if isinstance(spec.get(kind), list):
            spec[kind] = [_without(container, _CONTAINER) for container in spec[kind]]
    kept["spec"] = spec
    kept["status"] = _without(pod.get("status"), _STATUS)
    return kept


def _without(found: Any, keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in keys} if isinstance(found, dict) else {}


def _version(pod: Pod) -> str:
    return str(pod["metadata"].get("resourceVersion"))
