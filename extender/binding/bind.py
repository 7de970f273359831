"""bind: recheck under the ledger, open GPUs where needed, one atomic Binding, confirm.

One task per pod UID; a second call for the same pod and node waits for the first and gets its answer.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extender.binding.api import KubeApi, Pod
from extender.binding.reservations import Reservations
from extender.core import names
from extender.core.decisions import Decisions
from extender.core.errors import ApiError, LedgerError, NotFound
from extender.core.placement import Placement, Shortfall
from extender.core.podreader import namespaced_name, node_of, placement_annotations, uid_of
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.values import PodOnNode, ShareState


class BindFailed(Exception):
    """Why the pod was not bound, in a sentence for kube-scheduler's event."""


class Binder:
    """Binds pods by the account of one ``Decisions``."""

    def __init__(
        self,
        api: KubeApi,
        decisions: Decisions,
        reservations: Reservations,
        *,
        process: str,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._decisions = decisions
        self._ledger = decisions.ledger
        self._reservations = reservations
        self._process = process
        self._clock = clock
        self._tries = 0
        #: pod UID → when its room was assumed, until the outcome is known
        self._assumed: dict[str, float] = {}
        #: pod UID → node and the task that binds it there
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}

    async def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind the pod to the node. Raises BindFailed; idempotent by UID and node."""
        running = self._running.get(uid)
        if running is not None and running[0] != node:
            raise BindFailed(f"the pod is being bound to node {running[0]}")
        if running is None:
            task = asyncio.ensure_future(self._bind(namespace, name, uid, node))
            self._running[uid] = running = (node, task)
            task.add_done_callback(lambda done: self._ended(uid, done))
        # A caller that goes away must not stop a bind half-way.
        await asyncio.shield(running[1])

    def _ended(self, uid: str, done: "asyncio.Task[None]") -> None:
        self._running.pop(uid, None)
        if not done.cancelled():
            done.exception()  # Told to whoever waits; where nobody waits any more it is no news either.

    def oldest_assumed(self) -> float:
        """Seconds since the oldest room was assumed whose outcome is not known yet; 0 if there is none."""
        return self._clock() - min(self._assumed.values()) if self._assumed else 0.0

    async def _bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        try:
            pod = await self._api.get_pod(namespace, name)
        except NotFound as error:
            raise BindFailed(f"pod {namespace}/{name} does not exist") from error
        except ApiError as error:
            raise BindFailed(str(error)) from error
        if not self._is_unbound(pod, uid, node):
            return
        try:
            await self._place(pod, node)
        finally:
            self._decisions.claims.end(uid)

    def _is_unbound(self, pod: Pod, uid: str, node: str) -> bool:
        namespace, name = namespaced_name(pod)
        if uid_of(pod) != uid:
            raise BindFailed(f"pod {namespace}/{name} is another pod by now: its UID is {uid_of(pod)}")
        bound_to = node_of(pod)
        if bound_to not in (None, node):
            raise BindFailed(f"pod {namespace}/{name} is already bound to node {bound_to}")
        return bound_to is None

    async def _place(self, pod: Pod, node: str) -> None:
        request = GpuRequest.from_pod(pod)
        if isinstance(request, InvalidRequest):
            raise BindFailed(request.sentence)
        verdict = self._decisions.choose(node, request)
        if isinstance(verdict, Shortfall):
            raise BindFailed(verdict.text)
        assumed = self._assume(pod, node, request, verdict)
        self._assumed[assumed.uid] = self._clock()
        try:
            held = await self._reservations.open(assumed)
            await self._api.bind_pod(self._binding(pod, held, request.containers))
        except (ApiError, LedgerError) as error:
            await self._give_back(assumed)
            raise BindFailed(str(error)) from error
        finally:
            del self._assumed[assumed.uid]
        # Its end may have been seen before the answer to its Binding.
        if self._ledger.pod(held.uid) is not None:
            self._ledger.confirm(held.uid)

    def _assume(self, pod: Pod, node: str, request: GpuRequest, placement: Placement) -> PodOnNode:
        namespace, name = namespaced_name(pod)
        uid = uid_of(pod)
        try:
            return self._ledger.assume(
                uid=uid,
                namespace=namespace,
                name=name,
                node=node,
                request=request,
                placement=placement,
                new_ids=self._reservations.new_ids(node, uid, placement.new),
            )
        except LedgerError as error:
            raise BindFailed(str(error)) from error

    def _binding(self, pod: Pod, held: PodOnNode, containers: Sequence[str]) -> Mapping[str, Any]:
        namespace, name = namespaced_name(pod)
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": held.uid}
        if held.shares:
            self._tries += 1
            metadata["resourceVersion"] = (pod.get("metadata") or {}).get("resourceVersion")
            metadata["annotations"] = {
                **placement_annotations(held, tuple(containers)),
                names.TRY: f"{self._process}-{self._tries}",
            }
        return {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": metadata,
            "target": {"apiVersion": "v1", "kind": "Node", "name": held.node},
        }

    async def _give_back(self, assumed: PodOnNode) -> None:
        held = self._ledger.pod(assumed.uid)
        # Seen bound meanwhile, here or elsewhere: that stands, whatever the answer to our own Binding was.
        if held is not None and held.state is not ShareState.CONFIRMED:
            self._ledger.forget(assumed.uid)
        self._ledger.unplan(assumed)
        await self._reservations.close_idle(assumed.node)
