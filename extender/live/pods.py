"""The pods of a cluster as last seen, and who is told of their changes."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from typing import Any

from extender.cluster import WatchEvent
from extender.core import names
from extender.core.errors import NotFound
from extender.core.fields import child
from extender.core.podreader import (
    annotations_of,
    is_reservation,
    is_unschedulable,
    namespaced_name,
    node_of,
    uid_of,
)
from extender.core.requests import GpuRequest
from extender.live.listwatch import DELETED
from extender.live.slim import slim
from extender.reflector import Reflector
from extender.turns import in_turns

Pod = dict[str, Any]
Key = tuple[str, str]
#: Reads one pod as it stands now. Raises ApiError.
ReadPod = Callable[[str, str], Awaitable[Pod]]


class Pods:
    """Sink of the watch; what the rest of the process reads."""

    def __init__(self, watcher: Reflector, read: ReadPod, repaired: Callable[[str], None]) -> None:
        self._watcher = watcher
        self._read = read
        #: Told ``missed``, ``changed`` or ``gone`` for each pod that only a new list has shown.
        self._repaired = repaired
        self._pods: dict[Key, Pod] = {}
        #: Those of them that are on no node.
        self._unbound: dict[Key, Pod] = {}
        self._listed = False

    # --- Sink ---------------------------------------------------------------------------------------------

    def slim(self, found: Pod) -> Pod:
        """See Sink."""
        return slim(found)

    async def replace(self, items: list[Pod]) -> None:
        """See Sink. What the watch has missed is made good."""
        if not self._listed:
            self._listed = True
            await self._first(items)
            return
        await self._release_vanished({uid_of(pod) for pod in items})
        async for pod in in_turns(_reservations_first(items)):
            before = self._pods.get(namespaced_name(pod))
            if before is None or _version(before) != _version(pod):
                self._repaired("missed" if before is None else "changed")
                self._put(pod)

    def change(self, event: WatchEvent) -> None:
        """See Sink."""
        if event.type == DELETED:
            self._end(event.object)
        else:
            self._put(slim(event.object))

    # --- reading ------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Pod]:
        return iter(tuple(self._pods.values()))

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod as last seen, not to be changed, or None."""
        return self._pods.get((namespace, name))

    def unschedulable(self, scheduler: str) -> list[Pod]:
        """Those that this scheduler has tried to place and could not."""
        unbound = (pod for pod in self._unbound.values() if child(pod, "spec").get("schedulerName") == scheduler)
        return [pod for pod in unbound if is_unschedulable(pod)]

    # --- inside -------------------------------------------------------------------------------------------

    def _put(self, pod: Pod) -> None:
        key = namespaced_name(pod)
        before = self._pods.get(key)
        if before is not None and uid_of(before) != uid_of(pod):
            self._watcher.pod_gone(before, seen=False)  # Its name is another's now.
        self._keep(key, pod)
        self._watcher.pod(pod)

    def _keep(self, key: Key, pod: Pod) -> None:
        self._pods[key] = pod
        if node_of(pod) is None:
            self._unbound[key] = pod
        else:
            self._unbound.pop(key, None)

    async def _first(self, items: list[Pod]) -> None:
        async for pod in in_turns(_reservations_first(items)):
            self._keep(namespaced_name(pod), pod)
            self._watcher.account(pod)
        async for young in in_turns(self._watcher.youngest(items)):
            self._watcher.learn(young)

    async def _release_vanished(self, listed: Set[str]) -> None:
        """End what is known and not in the list. Raises ApiError where nobody can be sure of it."""
        missing = [pod for pod in [*self, *self._bound_unseen()] if uid_of(pod) not in listed]
        # Shares before reservation pods, for the same reason as above.
        for pod in sorted(missing, key=is_reservation):
            if await self._is_gone(pod):
                self._repaired("gone")
                self._end(pod, seen=False)

    def _bound_unseen(self) -> list[Pod]:
        """Bound by us while the watch was broken: the ledger knows them, and no list or event has shown them yet."""
        seen = {uid_of(pod) for pod in self}
        return [
            {
                "metadata": {"namespace": held.namespace, "name": held.name, "uid": held.uid},
                "spec": {"terminationGracePeriodSeconds": held.grace},
            }
            for held in self._watcher.confirmed()
            if held.uid not in seen
        ]

    async def _is_gone(self, pod: Pod) -> bool:
        """Absence from a list is enough where no GPU memory is freed; else only a read that says so."""
        key = namespaced_name(pod)
        if key in self._pods and not _may_hold_a_share(pod):
            return True
        try:
            found = await self._read(*key)
        except NotFound:
            return True
        if uid_of(found) != uid_of(pod):
            return True
        self._put(slim(found))
        return False

    def _end(self, pod: Pod, *, seen: bool = True) -> None:
        key = namespaced_name(pod)
        if uid_of(self._pods.get(key, {})) == uid_of(pod):
            del self._pods[key]
            self._unbound.pop(key, None)
        self._watcher.pod_gone(pod, seen=seen)


def _reservations_first(pods: Iterable[Pod]) -> list[Pod]:
    """So that no share ever looks lost for a moment."""
    return sorted(pods, key=lambda pod: not is_reservation(pod))


def _may_hold_a_share(pod: Pod) -> bool:
    if is_reservation(pod) or annotations_of(pod).get(names.SHARED_GPUS):
        return True
    # We may have bound it since it was last seen.
    request = GpuRequest.from_pod(pod)
    return not isinstance(request, GpuRequest) or request.share is not None


def _version(pod: Pod) -> str:
    return str(pod["metadata"].get("resourceVersion"))
