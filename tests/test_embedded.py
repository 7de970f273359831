"""The embedded cluster: it answers as an API server would, and its pods alone give the ledger back."""

import asyncio
import copy
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from extender.config import Settings
from extender.core import names
from extender.core.consistency import differences
from extender.core.errors import Conflict, NotFound, Refused
from extender.core.inspect import picture
from extender.core.placement import REASON_TEXT
from extender.service import Service, embedded_service
from extender.snapshot import Snapshot
from tests.builders import PodBuilder, make_node, make_pod
from tests.client import Extender, serve

CARD = 1000
NODE_NAMES = ("a", "b", "cpu")


def nodes() -> list[Any]:
    a, b = (make_node(name).gpus(3, mib=CARD).build() for name in ("a", "b"))
    return [a, b, make_node("cpu").build()]


# --- /embedded/pods ---------------------------------------------------------------------------------------


async def submit(extender: Extender, pod: Any) -> httpx.Response:
    return await extender.http.post("/embedded/pods", json=pod)


async def test_create_read_delete() -> None:
    async with serve(*nodes()) as extender:
        pod = make_pod("p", "team").gpu_fraction("0.5").build()
        created = await submit(extender, pod)
        assert created.status_code == 201
        assert created.json()["metadata"]["uid"] == pod["metadata"]["uid"]
        path = "/embedded/pods/team/p"
        assert (await extender.http.get(path)).json() == created.json()
        assert await extender.bind(created.json(), "a") == ""
        stored = (await extender.http.get(path)).json()
        assert stored["spec"]["nodeName"] == "a"
        assert stored["metadata"]["resourceVersion"] != created.json()["metadata"]["resourceVersion"]
        assert {"type": "PodScheduled", "status": "True"} in stored["status"]["conditions"]
        annotations = stored["metadata"]["annotations"]
        [gpu] = (await extender.inspect("a"))["sharedGpus"]
        assert annotations[names.SHARED_GPUS] == gpu["id"]
        assert annotations[names.VISIBLE_DEVICES] == gpu["uuid"]
        assert annotations[names.MEMORY_MIB] == "500"
        assert annotations["nvidia.com/container.main.gpus.devices"] == gpu["uuid"]
        assert annotations[names.TRY]
        assert annotations[names.GPU_FRACTION] == "0.5"
        deleted = await extender.http.delete(path)
        assert (deleted.status_code, deleted.json()) == (200, stored)
        assert (await extender.inspect("a"))["sharedGpus"] == [], "closed when the answer arrives"
        assert (await extender.http.get(path)).status_code == 404
        assert (await extender.http.delete(path)).status_code == 404
        assert list(extender.cluster.pods()) == []


async def test_uid_and_namespace_are_filled_in() -> None:
    async with serve(*nodes()) as extender:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
        first = (await submit(extender, pod)).json()
        assert first["metadata"]["namespace"] == "default"
        assert len(first["metadata"]["uid"]) == 36
        await extender.delete(first)
        assert (await submit(extender, pod)).json()["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_name_is_taken_once() -> None:
    async with serve(*nodes()) as extender:
        pod = make_pod("p").build()
        assert (await submit(extender, pod)).status_code == 201
        again = await submit(extender, make_pod("p").uid("another").build())
        assert (again.status_code, again.json()) == (409, {"detail": 'pods "p" already exists in namespace default'})


REFUSED = [
    (make_pod("p").gpu_fraction("1.5"), "gpu-fraction"),
    (make_pod("p").annotation(names.SHARED_GPUS, "share-1"), f"annotation {names.SHARED_GPUS} is written by"),
    (make_pod("p", names.RESERVATION_NAMESPACE), "takes no pods but gpu-extender's own"),
    (make_pod("p").gpu_fraction("0.5").on_node("a"), "must be placed by gpu-extender"),
]


@pytest.mark.parametrize(("pod", "sentence"), REFUSED)
async def test_refused(pod: PodBuilder, sentence: str) -> None:
    async with serve(*nodes()) as extender:
        answer = await submit(extender, pod.build())
        assert answer.status_code == 422
        assert sentence in answer.json()["detail"]
        assert list(extender.cluster.pods()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"kind": "Node", "apiVersion": "v1"}'])
async def test_no_pod(content: bytes) -> None:
    async with serve(*nodes()) as extender:
        answer = await extender.http.post("/embedded/pods", content=content)
        assert answer.status_code == 422
        assert answer.json()["detail"]


async def test_a_pod_that_somebody_binds_by_itself_counts() -> None:
    async with serve(*nodes()) as extender:
        await extender.submit(make_pod("w").gpus(2).on_node("a").build())
        assert (await extender.inspect("a"))["wholeGpusHeld"] == 2
        await extender.delete(make_pod("w").build())
        assert (await extender.inspect("a"))["wholeGpusHeld"] == 0


# --- as an API server -------------------------------------------------------------------------------------


def binding(pod: Any, node: str = "a", **metadata: Any) -> Any:
    own = {key: pod["metadata"][key] for key in ("namespace", "name")}
    return {"metadata": own | metadata, "target": {"name": node}}


async def test_a_binding_is_refused_where_the_pod_is_another_by_now() -> None:
    async with serve(*nodes()) as extender:
        cluster = extender.cluster
        pod = await extender.submit(make_pod("p").build())
        with pytest.raises(Conflict, match="UID"):
            await cluster.bind_pod(binding(pod, uid="another"))
        with pytest.raises(Conflict, match="version"):
            await cluster.bind_pod(binding(pod, resourceVersion="0"))
        gated = await extender.submit(make_pod("g").spec(schedulingGates=[{"name": "wait"}]).build())
        with pytest.raises(Conflict, match="gates"):
            await cluster.bind_pod(binding(gated))
        await cluster.bind_pod(binding(pod, resourceVersion=pod["metadata"]["resourceVersion"]))
        with pytest.raises(Conflict, match="already assigned to node a"):
            await cluster.bind_pod(binding(pod, "b"))
        with pytest.raises(NotFound):
            await cluster.bind_pod(binding(make_pod("nobody").build()))


async def test_a_deletion_names_the_uid() -> None:
    async with serve(*nodes()) as extender:
        cluster = extender.cluster
        pod = await extender.submit(make_pod("p").build())
        with pytest.raises(Conflict, match="UID"):
            await cluster.delete_pod("default", "p", "another")
        await cluster.delete_pod("default", "p", pod["metadata"]["uid"])
        with pytest.raises(NotFound):
            await cluster.delete_pod("default", "p", pod["metadata"]["uid"])


async def test_no_reservation_without_a_gpu() -> None:
    async with serve(*nodes()) as extender:
        manifest = extender.service.reservations
        field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["cpu"]}]}
        term = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [field]}}
        pod = make_pod("share-1", names.RESERVATION_NAMESPACE).spec(affinity={"nodeAffinity": term}).build()
        assert manifest is not None
        with pytest.raises(Refused, match="no GPU"):
            await extender.cluster.create_pod(pod)
        assert list(extender.cluster.pods()) == []


async def test_what_is_read_is_a_copy() -> None:
    async with serve(*nodes()) as extender:
        stored = await extender.submit(make_pod("p").build())
        read = await extender.cluster.get_pod("default", "p")
        read["spec"]["nodeName"] = "a"
        assert (await extender.get("/embedded/pods/default/p")) == stored


async def test_a_device_that_something_holds_is_not_given_out() -> None:
    """Also where its holder has lost its reservation pod."""
    async with serve(*nodes()) as extender:
        for name in ("p", "q"):
            assert await extender.schedule(make_pod(name).gpu_memory(CARD).build(), ["a"]) == "a"
        first = (await extender.inspect("a"))["sharedGpus"][0]
        await extender.http.delete(f"/embedded/pods/{names.RESERVATION_NAMESPACE}/{first['id']}")
        node = await extender.inspect("a")
        assert node["unusable"] == "ReservationLost"
        lost = [gpu for gpu in node["sharedGpus"] if gpu["state"] == "lost"]
        assert [(gpu["uuid"], gpu["usedMiB"]) for gpu in lost] == [(first["uuid"], CARD)]
        assert await extender.schedule(make_pod("r").gpu_memory(1).build(), ["a"]) is None
        assert await extender.schedule(make_pod("cpu").build(), ["a"]) is None
        told = {found["name"]: found["reason"] for found in (await extender.get("/explain/default/cpu"))["nodes"]}
        assert told["a"] == REASON_TEXT["ReservationLost"], "to pods without GPUs, too"
        assert {d["kind"] for d in (await extender.get("/check"))["differences"]} == {"lost"}


# --- random operations ------------------------------------------------------------------------------------

requests = st.one_of(
    st.sampled_from(["0.5", "0.3", "0.25", "0.9"]).map(lambda value: {names.GPU_FRACTION: value}),
    st.integers(1, CARD).map(lambda mib: {names.GPU_MEMORY: str(mib)}),
    st.tuples(st.integers(1, CARD), st.integers(2, 3)).map(
        lambda pair: {names.GPU_MEMORY: str(pair[0]), names.NUM_DEVICES: str(pair[1])}
    ),
)


class EmbeddedMachine(RuleBasedStateMachine):
    """Users come and go, the process is started again; the pods that are there say all there is to say."""

    pods: Bundle[Any] = Bundle("pods")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.extender = serve(*nodes())
        self.count = 0

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.extender.__aexit__())
        self.runner.close()

    def place(self, pod: PodBuilder) -> Any:
        built = pod.build()
        self.run(self.extender.schedule(built))
        return built

    @rule(target=pods, annotations=requests, mode=st.sampled_from([None, None, "sm-sharing"]))
    def share(self, annotations: dict[str, str], mode: str | None) -> Any:
        self.count += 1
        pod = make_pod(f"p{self.count}")
        if mode and names.NUM_DEVICES not in annotations and names.GPU_MEMORY in annotations:
            pod.container("main").container_gpu_memory("main", limit=f"{annotations[names.GPU_MEMORY]}Mi")
            return self.place(pod.compute_mode("main", mode))
        for key, value in annotations.items():
            pod.annotation(key, value)
        return self.place(pod)

    @rule(target=pods, gpus=st.integers(0, 3))
    def whole(self, gpus: int) -> Any:
        self.count += 1
        return self.place(make_pod(f"p{self.count}").gpus(gpus))

    @rule(target=pods, node=st.sampled_from(NODE_NAMES), gpus=st.integers(1, 2))
    def foreign(self, node: str, gpus: int) -> Any:
        """Somebody binds a pod by himself; more than the node has counts as what it is."""
        self.count += 1
        return self.run(self.extender.submit(make_pod(f"p{self.count}").gpus(gpus).on_node(node).build()))

    @rule(pod=pods, node=st.sampled_from(NODE_NAMES))
    def bind_again(self, pod: Any, node: str) -> None:
        self.run(self.extender.bind(pod, node))

    @rule(pod=consumes(pods))
    def delete(self, pod: Any) -> None:
        assert self.run(self.extender.delete(pod)) == 200

    @rule()
    def restart(self) -> None:
        self.extender = serve(*nodes(), pods=self.held())

    def held(self) -> list[Any]:
        """The pods as a list would show them, in another order than they came."""
        return copy.deepcopy(list(self.extender.cluster.pods()))[::-1]

    @invariant()
    def the_pods_give_the_same_account(self) -> None:
        rebuilt = embedded_service(Settings(), Snapshot(nodes=tuple(nodes()), pods=tuple(self.held())))
        assert self.picture(rebuilt) == self.picture(self.extender.service)
        self.extender.service.decisions.ledger.check()

    def picture(self, service: Service) -> Any:
        return picture(list(service.decisions.ledger.snapshot()))

    @invariant()
    def devices_are_distinct_and_none_is_idle(self) -> None:
        gpus = [gpu for node in self.picture(self.extender.service)["nodes"] for gpu in node["sharedGpus"]]
        devices = [gpu["uuid"] for gpu in gpus]
        assert None not in devices
        assert len(set(devices)) == len(devices)
        assert all(gpu["shares"] for gpu in gpus)
        assert all(gpu["usedMiB"] == sum(share["memoryMiB"] for share in gpu["shares"]) <= CARD for gpu in gpus)

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        service = self.extender.service
        kinds = {difference.kind for difference in differences(service.decisions.ledger, tuple(service.view.pods()))}
        # A pod that was bound past us may hold more than there is.
        assert kinds <= {"overcommitted"}


EmbeddedMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEmbedded = EmbeddedMachine.TestCase
