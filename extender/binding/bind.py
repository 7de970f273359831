"""bind: take the pod as it was last seen, then bind it by the protocol that its request needs.

One task per pod UID; a second call for the same pod and node waits for the first and gets its answer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from extender.binding.account import assume, confirm, give_back
from extender.binding.api import KubeApi, Pod
from extender.binding.outcome import BindFailed, Refusal, failure_of
from extender.binding.share import ShareBinding
from extender.core.decisions import Decisions
from extender.core.errors import ApiError, NotFound
from extender.core.placement import REASON_TEXT
from extender.core.podreader import is_reservation, namespaced_name, node_of, uid_of
from extender.core.requests import GpuRequest, InvalidRequest

#: Where to a pod is being bound while we find out how its last bind has ended.
SETTLING: Final = "the node of its last try, if that has succeeded"

#: Namespace and name → the pod as the watch has last shown it, not to be changed, or None.
Seen = Callable[[str, str], Pod | None]


class Binder:
    """Binds pods by the account of one ``Decisions``."""

    def __init__(
        self, api: KubeApi, decisions: Decisions, shares: ShareBinding, clock: Callable[[], float], seen: Seen
    ) -> None:
        self._api = api
        self._seen = seen
        self._decisions = decisions
        self._ledger = decisions.ledger
        self._shares = shares
        self._clock = clock
        #: pod UID → when its bind began, until the outcome is known
        self._begun: dict[str, float] = {}
        #: pod UID → where to it is being bound, and the task that does it
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def asked(self) -> None:
        """A pod is being placed: where binds are under way, its own follows them closely."""
        if self._running:
            self._shares.expect_more()

    async def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind the pod to the node. Raises BindFailed; idempotent by UID and node."""
        running = self._running.get(uid)
        if running is not None and running[0] != f"node {node}":
            raise BindFailed(f"the pod is being bound to {running[0]}")
        if running is None:
            task = asyncio.ensure_future(self._bind(namespace, name, uid, node))
            self._running[uid] = running = (f"node {node}", task)
            task.add_done_callback(partial(self._ended, uid))
        # A caller that goes away must not stop a bind half-way.
        await asyncio.shield(running[1])

    def _ended(self, uid: str, done: "asyncio.Task[None]") -> None:
        self._running.pop(uid, None)
        if not done.cancelled():
            done.exception()  # Told to whoever waits; where nobody waits any more it is no news either.

    async def settle(self) -> None:
        """Find out what became of tries whose outcome nobody knows, for pods that nobody tries to bind again."""
        for uid in self._shares.unknown():
            if uid not in self._running:
                task = asyncio.ensure_future(self._settle(uid))
                self._running[uid] = (SETTLING, task)
                task.add_done_callback(partial(self._ended, uid))
                await asyncio.shield(task)

    async def _settle(self, uid: str) -> None:
        with suppress(BindFailed):  # Not bound, or still unknown: the next call asks again.
            await self._shares.settle(uid)
        if not self._shares.is_unknown(uid):
            self._begun.pop(uid, None)

    def oldest_assumed(self) -> float:
        """Seconds since the oldest room was assumed whose outcome is not known yet; 0 if there is none."""
        waiting = [begun for uid, begun in self._begun.items() if self.is_open(uid)]
        return self._clock() - min(waiting) if waiting else 0.0

    def is_open(self, uid: str) -> bool:
        """Whether a bind of that pod is under way, or nobody knows how it has ended."""
        return uid in self._running or self._shares.is_unknown(uid)

    async def _bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        if node in self._decisions.refused.waits(uid):
            raise BindFailed(REASON_TEXT["BindRefused"])
        self._begun.setdefault(uid, self._clock())
        try:
            await self._shares.settle(uid)
            pod = await self._read(namespace, name, uid)
            if self._is_unbound(pod, node):
                await self._place(pod, node)
            self._decisions.refused.end(uid)
        except Refusal:
            self._decisions.refused.failed(uid, node)
            raise
        finally:
            self._decisions.claims.end(uid)
            if not self._shares.is_unknown(uid):
                self._begun.pop(uid, None)

    async def _read(self, namespace: str, name: str, uid: str) -> Pod:
        """An unbound pod that was seen is as good as one that is read: the Binding carries its UID and version.

        Raises BindFailed.
        """
        seen = self._seen(namespace, name)
        if seen is not None and uid_of(seen) == uid and node_of(seen) is None:
            return seen
        try:
            pod = await self._api.get_pod(namespace, name)
        except NotFound as error:
            raise BindFailed(f"pod {namespace}/{name} does not exist") from error
        except ApiError as error:
            raise BindFailed(str(error)) from error
        if uid_of(pod) != uid:
            raise BindFailed(f"pod {namespace}/{name} is another pod by now: its UID is {uid_of(pod)}")
        return pod

    def _is_unbound(self, pod: Pod, node: str) -> bool:
        bound_to = node_of(pod)
        if bound_to not in (None, node):
            namespace, name = namespaced_name(pod)
            raise BindFailed(f"pod {namespace}/{name} is already bound to node {bound_to}")
        return bound_to is None

    async def _place(self, pod: Pod, node: str) -> None:
        if is_reservation(pod):
            await self._bind_reservation(pod, node)
            return
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            raise BindFailed(request.sentence)
        if request.share is not None:
            await self._shares.bind(pod, node, request)
        else:
            await self._bind_whole(pod, node, request)

    async def _bind_reservation(self, pod: Pod, node: str) -> None:
        """Its GPU is in the ledger since it was planned, and its node is in its affinity."""
        try:
            await self._api.bind_pod(binding_of(pod, node))
        except ApiError as error:
            raise BindFailed(str(error)) from error

    async def _bind_whole(self, pod: Pod, node: str, request: GpuRequest) -> None:
        """Whole GPUs, units and pods without GPUs: the UID is all that the Binding needs."""
        assumed = assume(self._decisions, pod, node, request)
        try:
            await self._api.bind_pod(binding_of(pod, node))
        except Exception as error:
            # kube-scheduler counts these pods itself; the watch corrects us should the Binding have landed.
            give_back(self._ledger, assumed)
            if not isinstance(error, ApiError):
                raise
            raise failure_of(error) from error
        confirm(self._ledger, assumed.uid)


def binding_of(pod: Pod, node: str) -> dict[str, object]:
    """A v1 Binding with the UID as precondition."""
    namespace, name = namespaced_name(pod)
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": uid_of(pod)},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
