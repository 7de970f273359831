"""The kubelets of the referee: they follow the API, admit pods, run them, and end them as a kubelet does."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from tests.controlplane import statuses
from tests.controlplane.client import NODES, PODS, Answer, Client, path_of
from tests.controlplane.gpu_node import RESERVATIONS, Admitted, Device, GpuNode, Pod, Rejection

Json = dict[str, Any]
FOREVER: Final = float("inf")
_PAUSE: Final = 0.2  # seconds before a request is tried again
_NO_ANSWER: Final = (aiohttp.ClientError, OSError)


@dataclass(frozen=True, slots=True)
class Started:
    """What the container of a reservation pod finds when it starts."""

    client: Client
    pod: Pod
    device: Device
    node: str
    boot_id: str
    #: The kubelet has sent SIGTERM: the pod's deletion was asked for.
    terminated: asyncio.Event


#: The agent: started with the container, cancelled when the container ends.
Agent = Callable[[Started], Awaitable[None]]


async def report(started: Started) -> None:
    """What the real agent writes on its pod, once."""
    written = {
        "gpu-extender.io/device": started.device.uuid,
        "gpu-extender.io/device-memory-mib": str(started.device.mib),
        "gpu-extender.io/boot-id": started.boot_id,
    }
    await started.client.patch(path_of(started.pod), {"metadata": {"annotations": written}})


async def silence(_: Started) -> None:
    """An agent that never reports."""


class Kubelets:
    """One kubelet per node of ``nodes``. ``agent`` may be replaced while it runs."""

    def __init__(self, client: Client, agent: Agent) -> None:
        self.client = client
        self.nodes: dict[str, GpuNode] = {}
        self.agent = agent
        #: Seconds that a user's process runs on after SIGTERM, at most its grace period. Agents ignore SIGTERM.
        self.lingering = 0.05
        self._addresses = count(1)
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._agents: dict[str, asyncio.Task[None]] = {}
        self._terminated: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._endings: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self._failures: list[BaseException] = []
        #: pod UID → the last status decided on: one that was decided on earlier must not land after it
        self._statuses: dict[str, Json] = {}
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def look_at(self, node: GpuNode) -> None:
        """Who runs on that node has changed."""

    async def __aenter__(self) -> Self:
        self._spawn(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if error is None and self._failures:
            raise self._failures[0]

    # --- following the API --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                listed = await self.client.get(PODS)
                self._relisted(listed["items"])
                async for kind, pod in self.client.watch(PODS, listed["metadata"]["resourceVersion"]):
                    self._event(kind, pod)
            except (*_NO_ANSWER, Answer):
                await asyncio.sleep(_PAUSE)

    def _relisted(self, pods: Sequence[Pod]) -> None:
        listed = {pod["metadata"]["uid"] for pod in pods}
        for pod in [admitted.pod for node in self.nodes.values() for admitted in node.admitted.values()]:
            if pod["metadata"]["uid"] not in listed:
                self._event("DELETED", pod)
        for pod in pods:
            self._event("ADDED", pod)

    def _event(self, kind: str, pod: Pod) -> None:
        node, uid = self.nodes.get(pod["spec"].get("nodeName") or ""), pod["metadata"]["uid"]
        if node is None:
            return
        asked_to_end = kind == "DELETED" or bool(pod["metadata"].get("deletionTimestamp"))
        if uid in node.admitted:
            node.admitted[uid].pod = pod
            if asked_to_end:
                self._let_end(node, pod)
        elif asked_to_end and kind != "DELETED":
            self._spawn(self._delete(pod))
        elif uid not in self._seen and not asked_to_end and pod["status"]["phase"] == "Pending":
            self._seen.add(uid)
            self._admit(node, pod)

    def _admit(self, node: GpuNode, pod: Pod) -> None:
        answer = node.admit(pod)
        self.look_at(node)
        if isinstance(answer, Rejection):
            self._spawn(self._write_pod(pod, statuses.failed(answer)))
        else:
            self._spawn(self._start(node, answer))

    async def _start(self, node: GpuNode, admitted: Admitted) -> None:
        await self._write_pod(admitted.pod, statuses.running(admitted, self._address()))
        if admitted.is_reservation and admitted.devices and admitted in node.admitted.values():
            uid = admitted.pod["metadata"]["uid"]
            terminated = self._terminated[uid]
            started = Started(self.client, admitted.pod, admitted.devices[0], node.name, node.boot_id, terminated)
            self._agents[uid] = self._spawn(self._persist(lambda: self.agent(started)))

    # --- ends ---------------------------------------------------------------------------------------------

    def _let_end(self, node: GpuNode, pod: Pod) -> None:
        # 0 is a deletion by force: the object goes at once, but the kubelet gives the processes the pod's own time.
        own = pod["spec"].get("terminationGracePeriodSeconds", 30)
        grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or own)
        uid = pod["metadata"]["uid"]
        before = self._endings.get(uid)
        if before is not None:
            if before[0] <= grace:
                return  # grace only ever gets shorter
            before[1].cancel()
        self._terminated[uid].set()
        self._endings[uid] = (grace, self._spawn(self._end_after(node, pod, grace)))

    async def _end_after(self, node: GpuNode, pod: Pod, grace: float) -> None:
        uid = pod["metadata"]["uid"]
        lingering = FOREVER if pod["metadata"]["namespace"] == RESERVATIONS else self.lingering
        await asyncio.sleep(min(grace, lingering))
        admitted = node.admitted.get(uid)
        self._end(node, uid)
        if admitted is not None:
            await self._write_pod(pod, statuses.stopped(admitted))
        await self._delete(pod)

    def _end(self, node: GpuNode, uid: str) -> None:
        node.admitted.pop(uid, None)
        agent = self._agents.pop(uid, None)
        if agent is not None:
            agent.cancel()
        self.look_at(node)

    # --- writing ------------------------------------------------------------------------------------------

    async def _write_node(self, node: GpuNode) -> None:
        path = f"{NODES}/{node.name}/status"
        await self._persist(lambda: self.client.patch(path, {"status": statuses.of_node(node)}))

    async def _write_pod(self, pod: Pod, status: Json) -> None:
        uid = pod["metadata"]["uid"]
        self._statuses[uid] = status
        async with self._writing[uid]:
            if self._statuses[uid] is status:
                # The UID keeps a pod of the same name that came later from getting this status.
                body = {"metadata": {"uid": uid}, "status": status}
                await self._persist(lambda: self.client.patch(f"{path_of(pod)}/status", body))

    async def _delete(self, pod: Pod) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._persist(lambda: self.client.delete(path_of(pod), options))

    async def _persist(self, request: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await request()
            except Answer as answer:
                if answer.status in (404, 409) or (answer.status == 422 and "metadata.uid" in str(answer)):
                    return  # another pod by now, or none
                if answer.status < 500 and answer.status != 429:
                    raise
            except _NO_ANSWER:
                pass
            else:
                return
            await asyncio.sleep(_PAUSE)

    # --- inside -------------------------------------------------------------------------------------------

    def _address(self) -> str:
        number = next(self._addresses)
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failures.append(error)
