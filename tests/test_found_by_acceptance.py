"""What somebody found who knew nothing of the product but its contract: each must stay right."""

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.cli.serve import listener
from extender.config import Settings
from extender.service import embedded_service
from extender.snapshot import Snapshot
from tests.builders import make_node, make_pod
from tests.client import Extender, serve
from tests.conftest import Start
from tests.fixtures import NODES


def dra_cluster(*pods: dict[str, Any], claims: tuple[dict[str, Any], ...] = ()) -> Extender:
    """The node that only its ResourceSlice shows: one whole A100, one cut into MIG devices."""
    [slice_] = yaml.safe_load_all((NODES / "resourceslice-a100-gpu-and-mig.yaml").read_text())
    snapshot = Snapshot(nodes=(), pods=pods, resource_slices=(slice_,), resource_claims=claims)
    return Extender(embedded_service(Settings(), snapshot), ["p4d-03"])


async def test_pods_that_hold_gpus_by_claim_are_counted() -> None:
    """``totals.pods`` left out the pods that hold whole GPUs through a ResourceClaim."""
    pod = make_pod("p", "t").on_node("p4d-03").build()
    claim = {
        "metadata": {"name": "c", "namespace": "t"},
        "status": {
            "allocation": {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "p4d-03", "device": "gpu-0"}]}},
            "reservedFor": [{"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}],
        },
    }
    async with dra_cluster(pod, claims=(claim,)) as extender:
        seen = await extender.get("/inspect")
        assert seen["nodes"][0]["wholeGpusHeld"] == 1
        assert seen["totals"]["pods"] == 1


async def test_a_node_known_by_its_slice_alone_exists() -> None:
    """check said that a pod's node does not exist, though inspect showed it."""
    async with dra_cluster() as extender:
        assert await extender.schedule(make_pod("cpu").build()) == "p4d-03"
        assert (await extender.get("/check"))["differences"] == []


@pytest.mark.parametrize("key", ["nvidia.com/container.main.gpus.devices", "gpu-extender.io/shared-gpus"])
async def test_placement_annotations_are_not_the_users(key: str) -> None:
    """A user could name devices for NVIDIA's runtime himself."""
    async with serve(make_node("n").gpus(1, mib=8192).build()) as extender:
        forged = make_pod("p").annotation(key, "GPU-1").build()
        response = await extender.http.post("/embedded/pods", json=forged)
        assert response.status_code == 422
        assert key in response.json()["detail"]


async def test_a_fraction_is_told_exactly() -> None:
    """0.999999999999999999 was explained as 1.0."""
    async with serve(make_node("n").gpus(1, mib=8192).build()) as extender:
        for text in ("0.999999999999999999", "0.5", ".25", "0.000000000000000001"):
            pod = await extender.submit(make_pod(f"p{hash(text) % 10**9}").gpu_fraction(text).build())
            told = await extender.get(f"/explain/default/{pod['metadata']['name']}")
            assert told["request"]["fraction"] == "0" + text.removeprefix("0")


async def test_labelled_gpus_that_nobody_offers_make_the_node_unusable() -> None:
    """Labels said four GPUs, the device plugin offered none: unusable was null while filter refused every share."""
    node = make_node("n").gpus(4, mib=8192).build()
    for amounts in (node["status"]["capacity"], node["status"]["allocatable"]):
        amounts["nvidia.com/gpu"] = "0"
    async with serve(node) as extender:
        seen = await extender.inspect("n")
        assert (seen["unusable"], seen["wholeGpus"]) == ("NoHealthyGpu", 0)


async def test_a_uid_is_given_once() -> None:
    """A second pod with the UID of the first was stored; deleting it freed the first one's share."""
    async with serve(make_node("n").gpus(1, mib=1000).build()) as extender:
        first = make_pod("a").gpu_memory(600).build()
        assert await extender.schedule(first) == "n"
        second = make_pod("b").uid(first["metadata"]["uid"]).build()
        assert (await extender.http.post("/embedded/pods", json=second)).status_code == 409
        assert await extender.delete(first) == 200
        assert (await extender.http.post("/embedded/pods", json=second)).status_code == 201


def test_a_client_that_gives_up_in_mid_body_is_no_error(start: Start, cluster_file: Path) -> None:
    """kube-scheduler's time-out in the middle of a body left a traceback in the log."""
    service = start("--snapshot", str(cluster_file))
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"POST /scheduler/filter HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    assert service.get("/healthz").status_code == 200
    assert "Traceback" not in service.log()


@pytest.mark.parametrize(("stated", "counts"), [("5000", 5000), ("50000", 8192), ("junk", None)])
async def test_an_administrators_typo_gives_out_no_memory_that_is_not_there(stated: str, counts: int | None) -> None:
    """gpu-memory-mib above what GPU Feature Discovery measured was believed."""
    node = make_node("n").gpus(1, mib=8192).label("gpu-extender.io/gpu-memory-mib", stated).build()
    async with serve(node) as extender:
        assert (await extender.inspect("n"))["memoryMiB"] == counts


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Every request took 44 ms: connections of the listener had no TCP_NODELAY."""
    with listener("host/port", "127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
