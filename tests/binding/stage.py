"""A stage for one extender: two nodes of two GPUs each, whose device plugins do what a test says."""

from typing import Any

from extender.core import names
from extender.core.device_report import DeviceReport, changes
from extender.core.errors import NotFound
from extender.core.inspect import picture
from extender.core.nodereader import read_nodes
from extender.core.podreader import annotations_of, has_ended, node_of, reservation_of
from extender.core.record import RECORD_KEY, Entry, NodeRecord, record_name
from extender.embedded import EmbeddedCluster
from extender.snapshot import Snapshot
from tests.binding.world import FaultyApi, Process
from tests.builders import PodBuilder, make_node

CARD = 1000
GPUS = 2


class GpuCluster(EmbeddedCluster):
    """Devices are the device plugin's: what user pods run on means nothing to it."""

    def __init__(self, gpus: int = GPUS, *names_of_nodes: str, mib: int | None = CARD) -> None:
        nodes = [make_node(name).gpus(gpus, mib=mib).build() for name in names_of_nodes or ("n", "m")]
        super().__init__(Snapshot(nodes=tuple(nodes), pods=(), resource_slices=(), resource_claims=()))
        self.gpus = gpus
        #: Device → MiB, where its node does not say it.
        self.sizes: dict[str, int] = {}
        #: node → devices in the order in which they are given out; others follow.
        self.order: dict[str, list[str]] = {}
        #: What becomes of new reservation pods: ``report``, ``silent``, ``refused`` or ``pending``.
        self.fate = "report"
        #: Reservation pod → the device that it holds, whatever it has reported.
        self.held: dict[str, str] = {}

    def devices(self, node: str) -> list[str]:
        return [f"GPU-{node}-{index}" for index in range(self.gpus)]

    def _free_device(self, node: str) -> str:
        alive = {pod["metadata"]["name"] for pod in self.pods() if is_reservation(pod) and not has_ended(pod)}
        held = {device for name, device in self.held.items() if name in alive}
        ordered = [*self.order.get(node, ()), *self.devices(node)]
        free: str = next(device for device in ordered if device not in held)
        return free

    def _start_reservation(self, pod: dict[str, Any]) -> None:
        if self.fate == "pending":
            return
        if self.sizes:
            self._start_on_device(pod)
        else:
            super()._start_reservation(pod)
        if node_of(pod) is not None:
            self.held[pod["metadata"]["name"]] = str(annotations_of(pod)[names.DEVICE])
        if self.fate != "report":
            pod["metadata"]["annotations"] = {}
        if self.fate == "refused":
            pod["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError"}

    def _start_on_device(self, pod: dict[str, Any]) -> None:
        """As the agent does, whatever the node says of its GPUs."""
        planned = reservation_of(pod)
        assert planned is not None
        node = self._read[planned.node]
        if self._held(node.name, names.GPU_RESOURCE) >= self.gpus:
            return
        device = self._free_device(node.name)
        report = DeviceReport(device, self.sizes[device], node.boot_id or "")
        pod["spec"]["nodeName"] = node.name
        pod["status"] = {"phase": "Running"}
        pod["metadata"]["annotations"] = changes(report, {})

    # --- what may happen to reservation pods ----------------------------------------------------------------

    async def annotate(self, pod: dict[str, Any], annotations: dict[str, str | None]) -> None:
        metadata = pod["metadata"]
        await self.patch_pod(metadata["namespace"], metadata["name"], {"metadata": {"annotations": annotations}})

    async def end(self, pod: dict[str, Any]) -> None:
        """As a kubelet that does not take it any more."""
        metadata = pod["metadata"]
        await self.patch_pod(metadata["namespace"], metadata["name"], {"status": {"phase": "Failed"}})

    async def ask_to_go(self, pod: dict[str, Any]) -> None:
        """A deletion by somebody: its agent ignores it for a week."""
        metadata = pod["metadata"]
        patch = {"metadata": {"deletionTimestamp": "2026-09-14T09:00:00Z"}}
        await self.patch_pod(metadata["namespace"], metadata["name"], patch)

    def label(self, node: str, key: str, value: str) -> None:
        """As an administrator does."""
        self.nodes[node]["metadata"]["labels"][key] = value
        self._show_again(node)

    def reboot(self, node: str, boot: str) -> None:
        """The node comes back; its pods have not started again yet."""
        self.nodes[node]["status"]["nodeInfo"]["bootID"] = boot
        for device in self.devices(node):
            self.held = {name: held for name, held in self.held.items() if held != device}
        self._show_again(node)

    def remove(self, node: str) -> None:
        """The Node is deleted; the objects of its pods stay until somebody deletes them."""
        del self.nodes[node], self._read[node]
        for watcher in self._watchers:
            watcher.node_gone(node)

    def _show_again(self, node: str) -> None:
        self._read |= {read.name: read for read in read_nodes(list(self.nodes.values()))}
        for watcher in self._watchers:
            watcher.nodes([self._read[node]])


class World:
    """A cluster of two nodes and one extender."""

    def __init__(self, cluster: GpuCluster | None = None) -> None:
        self.cluster = cluster or GpuCluster()
        self.process = Process(self.cluster)
        self.ledger = self.process.decisions.ledger

    @property
    def api(self) -> FaultyApi:
        return self.process.api

    def restart(self) -> None:
        """The extender dies; another one starts."""
        self.process.die()
        self.process = Process(self.cluster)
        self.ledger = self.process.decisions.ledger

    async def pod(self, builder: PodBuilder) -> Any:
        return await self.cluster.submit(builder.build())

    async def bind(self, pod: Any, node: str = "n") -> None:
        metadata = pod["metadata"]
        await self.process.binder.bind(metadata["namespace"], metadata["name"], metadata["uid"], node)

    async def error(self, pod: Any, node: str = "n", uid: str | None = None) -> str:
        """What bind says; empty where it succeeds."""
        return await self.process.bind(pod, node, uid) or ""

    async def delete(self, pod: Any) -> None:
        metadata = pod["metadata"]
        await self.cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"])

    async def stored(self, pod: Any) -> Any:
        return await self.cluster.get_pod(pod["metadata"]["namespace"], pod["metadata"]["name"])

    async def record(self, node: str = "n") -> NodeRecord:
        """As it stands in the API."""
        found = await self.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name(node))
        return NodeRecord.parse(found["data"][RECORD_KEY])

    async def pass_by(self, seconds: float, step: float = 5.0) -> None:
        """Time goes by, with a pass of the reconciler every few seconds."""
        for _ in range(int(seconds / step)):
            await self.process.reconciler.once()
            self.process.now += step
        await self.process.reconciler.once()

    def kinds(self) -> list[str]:
        """What the reconciler has told."""
        return [notice.kind.value for notice in self.process.notices]

    def reservations(self) -> list[Any]:
        return [pod for pod in self.cluster.pods() if is_reservation(pod)]

    def gpus(self, node: str = "n") -> dict[str, str]:
        """Device → state of the node's shared GPUs, as the ledger has them."""
        state = self.ledger.state(node)
        assert state is not None
        return {gpu.uuid or gpu.id: gpu.state.value for gpu in state.gpus}

    def seen(self) -> Any:
        return picture(list(self.ledger.snapshot()))

    def reservation_pods(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.cluster.pods() if is_reservation(p)]

    async def entries(self, node: str = "n") -> list[Entry]:
        """What stands in the node record."""
        try:
            found = await self.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name(node))
        except NotFound:
            return []
        return list(NodeRecord.parse(found["data"][RECORD_KEY]).entries())

    def account(self) -> dict[str, int]:
        """Device → MiB given out, by what is written on bound pods alone."""
        held: dict[str, int] = {}
        for pod in self.cluster.pods():
            annotations = pod["metadata"].get("annotations") or {}
            if pod["spec"].get("nodeName") and names.SHARED_GPUS in annotations:
                for device in annotations[names.VISIBLE_DEVICES].split(","):
                    held[device] = held.get(device, 0) + int(annotations[names.MEMORY_MIB])
        return held


def is_reservation(pod: Any) -> bool:
    return bool(pod["metadata"]["namespace"] == names.RESERVATION_NAMESPACE)
