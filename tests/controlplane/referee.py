"""Plays the kubelets and device plugins of GPU nodes in a real API, and judges what it sees.

::

    async with Referee(client, seed=7) as referee:
        await referee.add_node(make_node("n").gpus(8).build())
        ...
        await referee.wait_running({"default/a", "default/b"}, seconds=10)
        assert referee.violations() == []

A pod runs from its admission until its process ends: a deletion that was asked for ends nothing yet, a force-deleted
pod runs on for its grace period. Every violation is kept, however short it lasted.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

from tests.controlplane import statuses
from tests.controlplane.client import NODES, Client, path_of
from tests.controlplane.gpu_node import Admitted, Device, GpuNode, Rejection, gpu_node_of
from tests.controlplane.judge import Kind, Violation, judge
from tests.controlplane.kubelets import Agent, Kubelets, report

Json = dict[str, Any]


class Referee(Kubelets):
    """Kubelets, device plugins and judge."""

    def __init__(self, client: Client, *, seed: int = 0, agent: Agent = report) -> None:
        super().__init__(client, agent)
        self._random = Random(seed)
        self._manifests: dict[str, Json] = {}
        self._violations: dict[Violation, None] = {}
        self._changed = asyncio.Condition()

    # --- what it says -------------------------------------------------------------------------------------

    def violations(self, but_for: Collection[Kind] = ()) -> list[Violation]:
        """Everything wrong that was ever seen, but for these kinds."""
        return [violation for violation in self._violations if violation.kind not in but_for]

    def violations_now(self) -> list[Violation]:
        """What is wrong at this moment."""
        return [violation for node in self.nodes.values() for violation in judge(node)]

    def forgive(self) -> None:
        """Forget what was seen: for a test that has provoked it."""
        self._violations.clear()

    def running(self) -> dict[str, Admitted]:
        """Pods whose processes run, by ``namespace/name``."""
        admitted = [admitted for node in self.nodes.values() for admitted in node.admitted.values()]
        return {each.name: each for each in admitted if each.running}

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for it; looked at after every change. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    async def wait_running(self, names: Collection[str], seconds: float) -> None:
        """Wait until all of these run. Raises AssertionError with those that do not."""
        try:
            await self.until(lambda: set(names) <= set(self.running()), seconds)
        except TimeoutError:
            raise AssertionError(f"not running: {sorted(set(names) - set(self.running()))}") from None

    # --- what it does to nodes and pods -------------------------------------------------------------------

    async def add_node(self, manifest: Mapping[str, Any], devices: Sequence[Device] | None = None) -> GpuNode:
        """Create the Node of a builder; ``devices``: other ones than it says."""
        node = gpu_node_of(manifest, self._random, devices)
        self.nodes[node.name] = node
        self._manifests[node.name] = dict(manifest)
        await self._create(node)
        return node

    async def reboot(self, name: str) -> None:
        """Everything on the node ends; what holds devices is Failed then, all else starts again."""
        await self._restarted(self.nodes[name], self.nodes[name].reboot())

    async def reimage(self, name: str) -> None:
        """Reboot; all devices have other UUIDs then."""
        await self._restarted(self.nodes[name], self.nodes[name].reimage())

    async def recreate_node(self, name: str) -> None:
        """Delete the Node and register it again, with a new UID; what runs there runs on."""
        await self.client.delete(f"{NODES}/{name}")
        await self._create(self.nodes[name])

    async def remove_node(self, name: str) -> None:
        """The machine is gone for good, and its Node; nobody writes the status of its pods any more."""
        node = self.nodes.pop(name)
        for uid in list(node.admitted):
            self._end(node, uid)
        await self.client.delete(f"{NODES}/{name}")

    async def fail_device(self, name: str, uuid: str, healthy: bool = False) -> None:
        """The device plugin finds the device unhealthy, or well again."""
        node = self.nodes[name]
        (node.unhealthy.discard if healthy else node.unhealthy.add)(uuid)
        await self._write_node(node)

    async def complete(self, pod_name: str) -> None:
        """The processes of ``namespace/name`` end by themselves, successfully."""
        admitted = self.running()[pod_name]
        self._end(self.nodes[admitted.pod["spec"]["nodeName"]], admitted.pod["metadata"]["uid"])
        await self._write_pod(admitted.pod, statuses.succeeded(admitted))

    async def force_delete(self, pod_name: str) -> None:
        """``kubectl delete --force --grace-period=0``: the object is gone at once, the processes are not."""
        await self.client.delete(path_of(self.running()[pod_name].pod), {"gracePeriodSeconds": 0})

    # --- inside -------------------------------------------------------------------------------------------

    def look_at(self, node: GpuNode) -> None:
        """Judge it, and wake those who wait."""
        self._violations.update(dict.fromkeys(judge(node)))
        self._spawn(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _create(self, node: GpuNode) -> None:
        await self.client.create_node(self._manifests[node.name])
        await self._write_node(node)

    async def _restarted(self, node: GpuNode, refused: Sequence[Admitted]) -> None:
        rejection = Rejection("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present")
        for admitted in refused:
            self._end(node, admitted.pod["metadata"]["uid"])
            await self._write_pod(admitted.pod, statuses.failed(rejection))
        for admitted in list(node.admitted.values()):
            await self._write_pod(admitted.pod, statuses.running(admitted, self._address()))
        await self._write_node(node)
        self.look_at(node)
