"""One test's nodes and pods on a stage, and what a test asks of them. All of it is gone when the scene ends.

::

    async with Scene(stage) as scene:
        node = await scene.add(make_node("n").gpus(8, mib=80_000))
        await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.5") for i in range(17)))
        await scene.run("p0", "p1")
        await scene.all_that_fits_runs()
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import aiohttp

from tests.builders import NodeBuilder, PodBuilder, make_pod
from tests.controlplane.client import PODS, Answer, Client, path_of
from tests.controlplane.gpu_node import RESERVATIONS, Device, GpuNode
from tests.controlplane.process import PATIENCE
from tests.controlplane.real_agent import RealAgent
from tests.controlplane.referee import Referee
from tests.controlplane.room import fits
from tests.controlplane.stage import Stage

Json = dict[str, Any]
#: A node selector that no node meets: kube-scheduler leaves the pod to the test.
BY_THE_TEST: Final = {"placed": "by-the-test"}
_RESERVATIONS: Final = f"/api/v1/namespaces/{RESERVATIONS}/pods"
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1/validatingadmission"
#: Where the manifests' Deployment is.
_PRODUCT: Final = "gpu-extender"
_SETTLED: Final = 0.5  # seconds that a state must last


class Scene:
    """Users' pods live in ``default``, their schedulerName is the manifests' unless they say another.

    In each reservation pod the real agent runs, as a process.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.admin = Client(stage.plane)
        self.referee = Referee(self.admin, agent=RealAgent(stage.plane))
        #: name → UID of every pod that was submitted and that no test has deleted
        self.submitted: dict[str, str] = {}
        #: UID → last state of every reservation pod that was ever there for this scene's nodes
        self.opened: dict[str, Json] = {}
        #: Names of this scene's nodes, those that are gone among them.
        self._nodes: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.referee.__aenter__()
        version = (await self.admin.get(_RESERVATIONS))["metadata"]["resourceVersion"]
        self._watch = asyncio.create_task(self._follow(version))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._clear()
            await self.referee.__aexit__(kind, error, trace)
        finally:
            self._watch.cancel()
            await self.admin.__aexit__(kind, error, trace)

    # --- what a test does ---------------------------------------------------------------------------------

    async def add(self, node: NodeBuilder, devices: Sequence[Device] | None = None) -> GpuNode:
        """A node whose name nobody has had: the builder's and a suffix; also its hostname label."""
        manifest = node.build()
        manifest["metadata"]["name"] += f"-{uuid4().hex[:6]}"
        manifest["metadata"]["labels"]["kubernetes.io/hostname"] = manifest["metadata"]["name"]
        self._nodes.add(manifest["metadata"]["name"])
        return await self.referee.add_node(manifest, devices)

    async def submit(self, *pods: PodBuilder) -> None:
        """Create them all at once, as a Deployment does."""
        await asyncio.gather(*(self._create(pod.build()) for pod in pods))

    async def delete(self, *names: str) -> None:
        """As their user does; returns once they are gone."""
        for name in names:
            del self.submitted[name]
            with suppress(Answer):
                await self.admin.delete(f"/api/v1/namespaces/default/pods/{name}")
        await self.until(lambda: self._are_gone(names), 60, f"{names} are not gone")

    async def delete_by_force(self, *names: str) -> None:
        """``kubectl delete --force``: the objects are gone at once, the processes are not."""
        for name in names:
            del self.submitted[name]
            await self.admin.delete(f"/api/v1/namespaces/default/pods/{name}", {"gracePeriodSeconds": 0})

    async def run(self, *names: str, seconds: float = 90) -> None:
        """Wait until all of these run, by their names in ``default``."""
        await self.referee.wait_running([f"default/{name}" for name in names], seconds)

    async def until(self, condition: Callable[[], Awaitable[object]], seconds: float, complaint: str) -> None:
        """Poll until it is so. Raises AssertionError with the complaint."""
        deadline = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < deadline, complaint
            await asyncio.sleep(0.1)

    async def all_that_fits_runs(self, seconds: float = 120) -> None:
        """Wait until what is pending does not fit, by the referee's account. Raises AssertionError with what would."""

        async def what_would() -> str:
            would = [pod for pod in await self.pending() if fits(pod, self.referee.nodes.values())]
            told, starting = {pod["metadata"]["name"]: told_why(pod) for pod in would}, await self.starting()
            return f"these would fit: {told}, starting: {starting}" if told or starting else ""

        await _nothing_for_a_while(what_would, seconds)

    async def forge(self, name: str, node: GpuNode, mib: str, **placed: str) -> None:
        """A pod that somebody with too many rights has bound to these devices, as if the extender had."""
        pod = await self.admin.create_pod(make_pod(name).spec(schedulerName="nobody").build())
        self.submitted[name] = pod["metadata"]["uid"]
        given = {"shared-gpus": "share-1", "visible-devices": "GPU-1", "memory-mib": mib}
        given |= {key.replace("_", "-"): value for key, value in placed.items()}
        await self.admin.bind(pod, node.name, {f"gpu-extender.io/{key}": value for key, value in given.items()})

    @asynccontextmanager
    async def refusing_bindings_of(self, prefix: str) -> AsyncIterator[None]:
        """A policy of the cluster's own denies the Binding of pods whose names begin so, for good."""
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/binding"]}
        denied = {"expression": f"!object.metadata.name.startsWith('{prefix}')", "message": "not here"}
        policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [denied]}
        named = {"metadata": {"name": prefix}}
        await self.admin.post(f"{_ADMISSION}policies", {**named, "spec": policy})
        binding = {"policyName": prefix, "validationActions": ["Deny"]}
        await self.admin.post(f"{_ADMISSION}policybindings", {**named, "spec": binding})
        await asyncio.sleep(1)  # It takes effect half a second after it was created.
        try:
            yield
        finally:
            await self.admin.delete(f"{_ADMISSION}policybindings/{prefix}")
            await self.admin.delete(f"{_ADMISSION}policies/{prefix}")

    # --- what there is ------------------------------------------------------------------------------------

    async def pods(self) -> list[Json]:
        """Users' pods."""
        return list((await self.admin.get("/api/v1/namespaces/default/pods"))["items"])

    async def pod(self, name: str) -> Json:
        """One of them as it stands."""
        return await self.admin.get(f"/api/v1/namespaces/default/pods/{name}")

    async def pending(self) -> list[Json]:
        """Those that no node has yet."""
        return [pod for pod in await self.pods() if not pod["spec"].get("nodeName")]

    async def has_pending(self, number: int) -> bool:
        """Whether exactly so many of them have no node."""
        return len(await self.pending()) == number

    async def has_opened(self, number: int) -> bool:
        """Whether there were so many reservation pods, or more."""
        return len(self.opened) >= number

    async def has_closed(self, number: int) -> bool:
        """Whether the end of so many reservation pods, or more, was asked for."""
        return sum(1 for pod in self.opened.values() if pod["metadata"].get("deletionTimestamp")) >= number

    async def has_reservations(self, number: int) -> bool:
        """Whether there are exactly so many now."""
        return len(await self.reservations()) == number

    async def starting(self) -> list[str]:
        """Those that have a node and do not run there yet."""
        bound = [pod for pod in await self.pods() if pod["spec"].get("nodeName")]
        return [pod["metadata"]["name"] for pod in bound if pod["status"]["phase"] == "Pending"]

    async def failed(self) -> list[str]:
        """Those that a kubelet has refused."""
        return [pod["metadata"]["name"] for pod in await self.pods() if pod["status"]["phase"] == "Failed"]

    async def reservations(self) -> list[Json]:
        """Reservation pods of this scene's nodes, and those that are meant for them."""
        return [pod for pod in (await self.admin.get(_RESERVATIONS))["items"] if self._is_ours(pod)]

    async def lost(self) -> list[str]:
        """Users' pods that somebody has deleted, and no test."""
        there = {pod["metadata"]["uid"] for pod in await self.pods() if not pod["metadata"].get("deletionTimestamp")}
        return [name for name, uid in self.submitted.items() if uid not in there]

    async def is_well(self) -> bool:
        """Whether nothing is wrong on any card now, whatever was before."""
        return not self.referee.violations_now()

    async def why(self, name: str) -> str:
        """What kube-scheduler tells the user of a pod that is pending."""
        return told_why(await self.pod(name))

    async def is_told(self, name: str, text: str) -> bool:
        """Whether that is among what kube-scheduler tells the user of the pod."""
        return text in await self.why(name)

    async def events(self, name: str, reason: str) -> list[Json]:
        """Those with that reason about one of this scene's pods or nodes."""
        found = (await self.admin.get("/api/v1/namespaces/default/events"))["items"]
        about = {"kind": "Node", "name": name} if name in self.referee.nodes else {"uid": self.submitted[name]}
        of_reason = [event for event in found if event["reason"] == reason]
        return [event for event in of_reason if about.items() <= event["involvedObject"].items()]

    async def was_told(self, name: str, reason: str) -> bool:
        """Whether there is such an event."""
        return len(await self.events(name, reason)) > 0

    async def stay_pending(self, *names: str, seconds: float = 2.5) -> None:
        """What must never run has its chance: longer than a scheduling cycle and a first retry take."""
        await asyncio.sleep(seconds)
        assert {pod["metadata"]["name"] for pod in await self.pending()} >= set(names)

    def cards(self, node: GpuNode) -> list[list[int]]:
        """MiB of the shares on each card of the node that has any, sorted."""
        by_device: dict[str, list[int]] = {}
        for admitted in node.admitted.values():
            for uuid, mib in admitted.shares:
                by_device.setdefault(uuid, []).append(mib)
        return sorted(sorted(sizes) for sizes in by_device.values())

    # --- inside -------------------------------------------------------------------------------------------

    async def _create(self, pod: Json) -> None:
        if pod["spec"]["schedulerName"] == "default-scheduler":
            pod["spec"]["schedulerName"] = "gpu-scheduler"
        created = await self.admin.create_pod(pod)
        self.submitted[created["metadata"]["name"]] = created["metadata"]["uid"]

    async def _follow(self, version: str) -> None:
        while True:
            with suppress(aiohttp.ClientError, Answer, OSError):
                async for _, pod in self.admin.watch(_RESERVATIONS, version):
                    if self._is_ours(pod):
                        self.opened[pod["metadata"]["uid"]] = pod
                    version = pod["metadata"]["resourceVersion"]
            await asyncio.sleep(0.2)

    def _is_ours(self, reservation: Json) -> bool:
        """One that another scene has left behind, or may yet, is for a node of that scene."""
        return node_meant(reservation) in self._nodes

    async def _are_gone(self, names: Sequence[str]) -> bool:
        return not set(names) & {pod["metadata"]["name"] for pod in await self.pods()}

    async def _clear(self) -> None:
        """Pods first, so that no GPU is found lost. The last open of a GPU, or a repair, may be on its way."""
        for _ in range(3):
            await self._delete_pods()
            await asyncio.sleep(0.1)
        for name in list(self.referee.nodes):
            await self.referee.remove_node(name)
        await _nothing_for_a_while(self._what_is_left, PATIENCE)

    async def _what_is_left(self) -> str:
        """Pods, but for those of the product's Deployment, which come again and again where its controller runs; and
        extenders that may yet make some."""
        left = await self._delete_pods() - {_PRODUCT}
        working = [each.process.name for each in self.stage.extenders if await each.is_at_work(self._nodes)]
        return f"left to the next test: pods in {left}, {working} at work" if left or working else ""

    async def _delete_pods(self) -> set[str]:
        """Namespaces of all there were. Users' first: without them nobody minds that reservations go."""
        pods = (await self.admin.get(PODS))["items"]
        for pod in sorted(pods, key=lambda pod: bool(pod["metadata"]["namespace"] == RESERVATIONS)):
            with suppress(Answer):
                await self.admin.delete(path_of(pod), {"gracePeriodSeconds": 0})
        return {pod["metadata"]["namespace"] for pod in pods}


async def _nothing_for_a_while(found: Callable[[], Awaitable[str]], seconds: float) -> None:
    """Wait until nothing is found, again and again. Raises AssertionError with what is found."""
    deadline = time.monotonic() + seconds
    since = time.monotonic()
    while time.monotonic() - since < _SETTLED:
        complaint = await found()
        if complaint:
            assert time.monotonic() < deadline, complaint
            since = time.monotonic()
        await asyncio.sleep(0.1)


def node_meant(reservation: Json) -> str | None:
    """The node that a reservation pod is on, or must go to; None for a forged one that names none."""
    spec = reservation["spec"]
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    fields = [field for term in required.get("nodeSelectorTerms", ()) for field in term.get("matchFields", ())]
    named = [name for field in fields if field["key"] == "metadata.name" for name in field["values"]]
    return spec.get("nodeName") or next(iter(named), None)


def told_why(pod: Json) -> str:
    """What kube-scheduler has written into the pod's condition."""
    conditions = pod["status"].get("conditions", ())
    return next((str(found.get("message")) for found in conditions if found["type"] == "PodScheduled"), "")
