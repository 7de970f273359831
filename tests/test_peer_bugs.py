"""What users of other GPU-sharing schedulers suffered, each as a test: it must not happen here."""

import asyncio
import copy
from typing import Any

import pytest

from extender.core import names
from tests.builders import make_node, make_pod
from tests.client import serve

A100 = 81920


def bound(pod: dict[str, Any], node: str, **annotations: str) -> dict[str, Any]:
    """The pod as it stands once it is bound."""
    pod = copy.deepcopy(pod)
    pod["spec"]["nodeName"] = node
    pod["metadata"]["annotations"] |= {
        names.PREFIX + key.replace("_", "-"): value for key, value in annotations.items()
    }
    pod["status"] = {"phase": "Running"}
    return pod


def reservation(gpu_id: str, node: str, device: str, mib: int = A100) -> dict[str, Any]:
    """A reservation pod that has reported."""
    pod = make_pod(gpu_id, names.RESERVATION_NAMESPACE).container("agent", limits={"nvidia.com/gpu": 1}).build()
    return bound(pod, node, device=device, device_memory_mib=str(mib))


@pytest.mark.parametrize("overlapping", [1, 4, 16])
async def test_kai_2153_sixteen_halves_on_eight_gpus(overlapping: int) -> None:
    """KAI#2153: 16 pods of 0.5 at once on 8 GPUs ended with up to 4 pods on one card; one by one it worked.

    Here filter and prioritize of several pods run before the first of them is bound.
    """
    async with serve(make_node("n").gpus(8, mib=A100).build(), make_node("cpu").build()) as extender:
        pods = [await extender.submit(make_pod(f"p{i}").gpu_fraction("0.5").build()) for i in range(16)]
        for start in range(0, 16, overlapping):
            batch = pods[start : start + overlapping]
            chosen = [await extender.cycle(pod) for pod in batch]
            errors = list(
                await asyncio.gather(*(extender.bind(pod, node or "") for pod, node in zip(batch, chosen, strict=True)))
            )
            assert errors == [""] * len(batch)
        assert await extender.shares("n") == [[A100 // 2] * 2] * 8


async def test_kai_2153_binds_in_any_order() -> None:
    """KAI#2153, and the binds come back in the reverse order of the decisions."""
    async with serve(make_node("n").gpus(8, mib=A100).build()) as extender:
        pods = [await extender.submit(make_pod(f"p{i}").gpu_fraction("0.5").build()) for i in range(17)]
        chosen = [await extender.cycle(pod) for pod in pods]
        assert chosen == ["n"] * 16 + [None], "the claims of the others leave no room for the last one"
        for pod in reversed(pods[:16]):
            assert await extender.bind(pod, "n") == ""
        assert await extender.shares("n") == [[A100 // 2] * 2] * 8


async def test_kai_416_kai_rounding_23_times_2000_mib_on_46068() -> None:
    """KAI#416 and KAI's two-decimal fractions: 23 pods of 2000 MiB on 46068 MiB were given 2303 MiB each, 115 %."""
    async with serve(make_node("l40s").gpus(1, mib=46068).build()) as extender:
        landed = [await extender.schedule(make_pod(f"p{i}").gpu_memory(2000).build()) for i in range(24)]
        assert landed == ["l40s"] * 23 + [None]
        [sizes] = await extender.shares("l40s")
        assert sizes == [2000] * 23
        assert sum(sizes) <= 46068


async def test_aliyun_184_unsigned_underflow() -> None:
    """Aliyun#184 and its unsigned subtraction: a GPU over its limit read as almost infinitely free.

    A node over its limit looks full, and says so.
    """
    card = reservation("share-1", "n", "GPU-1", 8192)
    held = [
        bound(
            make_pod(f"old{i}").gpu_memory(6000).build(),
            "n",
            shared_gpus="share-1",
            visible_devices="GPU-1",
            memory_mib="6000",
        )
        for i in range(2)
    ]
    whole = [bound(make_pod("w").container("c", limits={"nvidia.com/gpu": 3}).build(), "n")]
    async with serve(make_node("n").gpus(2, mib=8192).build(), pods=[card, *held, *whole]) as extender:
        answer = await extender.filter(make_pod("new").gpu_memory(1).build())
        assert answer["NodeNames"] == []
        assert list(answer["FailedAndUnresolvableNodes"]) == ["n"]
        whole_pod = make_pod("new2").container("c", limits={"nvidia.com/gpu": 1}).build()
        assert (await extender.filter(whole_pod))["NodeNames"] == []
        assert {d["kind"] for d in (await extender.get("/check"))["differences"]} == {"overcommitted"}


async def test_aliyun_201_idle_gpu_reads_full() -> None:
    """Aliyun#201: after repeated create and delete, an idle GPU read as full."""
    async with serve(make_node("n").gpus(1, mib=A100).build()) as extender:
        for round_ in range(50):
            pods = [make_pod(f"p{round_}-{i}").gpu_fraction(".25").build() for i in range(4)]
            assert [await extender.schedule(pod) for pod in pods] == ["n"] * 4
            assert [await extender.delete(pod) for pod in pods] == [200] * 4
            node = await extender.inspect("n")
            assert (node["sharedGpus"], node["wholeGpusHeld"]) == ([], 0)
        whole = make_pod("whole").container("c", limits={"nvidia.com/gpu": 1}).build()
        assert await extender.schedule(whole) == "n"


async def test_hami_2911_restart_serves_only_what_is_true() -> None:
    """HAMi#2911: after a failover a stale cache was published as ready.

    A fresh process, given the pods that exist, has the account of the one before.
    """
    node = make_node("n").gpus(2, mib=A100).build()
    async with serve(node) as before:
        for i in range(3):
            assert await before.schedule(make_pod(f"p{i}").gpu_fraction("0.4").build()) == "n"
        pods = list(before.cluster.pods())
        seen = await before.get("/inspect")
    async with serve(node, pods=pods) as after:
        assert await after.get("/inspect") == seen
        assert (await after.get("/check"))["differences"] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory_mib", "lots"), ("memory_mib", "-1"), ("memory_mib", ""), ("visible_devices", ""), ("shared_gpus", "a,b")],
)
async def test_hami_2959_undecodable_annotation(key: str, value: str) -> None:
    """HAMi#2958, HAMi#2959: an annotation that could not be decoded made a live pod invisible, its memory free.

    The node gives out nothing until somebody has looked, and says why.
    """
    annotations = {"shared_gpus": "share-1", "visible_devices": "GPU-1", "memory_mib": "60000"} | {key: value}
    pod = bound(make_pod("old").gpu_memory(60000).build(), "n", **annotations)
    nodes = make_node("n").gpus(8, mib=A100).build(), make_node("m").gpus(1, mib=A100).build()
    async with serve(*nodes, pods=[reservation("share-1", "n", "GPU-1"), pod]) as extender:
        assert (await extender.filter(make_pod("new").gpu_memory(100).build()))["NodeNames"] == ["m"]
        assert (await extender.inspect("n"))["unusable"] == "ShareUnreadable"
        assert "unreadable" in {d["kind"] for d in (await extender.get("/check"))["differences"]}


async def test_kai_848_no_reservation_on_a_full_node() -> None:
    """KAI#848: the binder made reservation pods on a full node for hours.

    A bind that does not fit opens nothing, however often it is tried.
    """
    full = [bound(make_pod("w").container("c", limits={"nvidia.com/gpu": 2}).build(), "n")]
    async with serve(make_node("n").gpus(2, mib=A100).build(), pods=full) as extender:
        pod = await extender.submit(make_pod("p").gpu_fraction("0.5").build())
        for _ in range(20):
            assert await extender.bind(pod, "n") == "no shared GPU has room and none is free"
        assert [p["metadata"]["namespace"] for p in extender.cluster.pods()].count(names.RESERVATION_NAMESPACE) == 0
        assert (await extender.inspect("n"))["sharedGpus"] == []


async def test_kai_611_one_stuck_pod_blocks_nobody() -> None:
    """KAI#611: one stuck pod blocked every fractional bind of the cluster."""
    stuck = make_pod("stuck", names.RESERVATION_NAMESPACE).container("agent", limits={"nvidia.com/gpu": 1}).build()
    nodes = make_node("n").gpus(2, mib=A100).build(), make_node("m").gpus(2, mib=A100).build()
    # A reservation pod that never reports, and another that is not even bound.
    pods = [bound(stuck, "n"), make_pod("other", names.RESERVATION_NAMESPACE).build()]
    async with serve(*nodes, pods=pods) as extender:
        assert await extender.schedule(make_pod("p").gpu_fraction("0.5").build(), ["m"]) == "m"


async def test_k8s_96579_bind_that_succeeded_but_timed_out() -> None:
    """k8s#96579: a bind succeeded, its answer was lost, and kube-scheduler bound again and again.

    The second bind for the same node is a success; for another node it is an error, and the pod stays.
    """
    async with serve(make_node("n").gpus(1, mib=A100).build(), make_node("m").gpus(1, mib=A100).build()) as extender:
        pod = await extender.submit(make_pod("p").gpu_fraction("0.5").build())
        both = list(await asyncio.gather(extender.bind(pod, "n"), extender.bind(pod, "n")))
        assert both == ["", ""]
        assert await extender.bind(pod, "n") == ""
        assert "already bound to node n" in await extender.bind(pod, "m")
        assert await extender.shares("n") == [[A100 // 2]]
        assert await extender.shares("m") == []


async def test_hami_1942_init_containers_count_by_maximum() -> None:
    """HAMi#1942: requests of init containers were summed, not maxed, so pods asked for more than they could use."""
    pod = (
        make_pod("p")
        .init_container("prepare")
        .container("main")
        .annotation("nvidia.com/container.prepare.gpu-memory.request", "6Gi")
        .annotation("nvidia.com/container.main.gpu-memory.request", "5Gi")
        .build()
    )
    async with serve(make_node("n").gpus(1, mib=8192).build()) as extender:
        assert await extender.schedule(pod) == "n"
        assert await extender.shares("n") == [[6 * 1024]]


async def test_hami_2622_several_containers_all_count() -> None:
    """HAMi#2622: of several containers not all were counted."""
    pod = (
        make_pod("p")
        .container("a")
        .container("b")
        .annotation("nvidia.com/container.a.gpu-memory.request", "3Gi")
        .annotation("nvidia.com/container.b.gpu-memory.request", "4Gi")
        .build()
    )
    whole = (
        make_pod("w").container("a", limits={"nvidia.com/gpu": 1}).container("b", limits={"nvidia.com/gpu": 1}).build()
    )
    async with serve(make_node("n").gpus(3, mib=8192).build()) as extender:
        assert await extender.schedule(pod) == "n"
        assert await extender.shares("n") == [[7 * 1024]]
        stored = await extender.submit(whole)
        assert await extender.bind(stored, "n") == ""
        assert (await extender.inspect("n"))["wholeGpusHeld"] == 2
        for name in ("a", "b"):
            placed = await extender.get("/embedded/pods/default/p")
            assert placed["metadata"]["annotations"][f"nvidia.com/container.{name}.gpus.devices"].startswith("GPU-")


async def test_aliyun_40_cards_of_8_and_16_gib_in_one_node() -> None:
    """Aliyun#40: cards of 8 and 16 GiB in one node were averaged to 12.

    Labels of one model and a capacity above its count prove that not all GPUs are of that size: nothing is guessed.
    """
    mixed = make_node("n").gpus(2, mib=16384).label("nvidia.com/gpu.count", "1").build()
    pod = make_pod("p").gpu_memory(12288).build()
    async with serve(mixed) as extender:
        answer = await extender.filter(pod)
        assert answer["NodeNames"] == []
        assert set(answer["FailedAndUnresolvableNodes"]) == {"n"}
        assert (await extender.inspect("n"))["memoryMiB"] is None
    labelled = copy.deepcopy(mixed)
    labelled["metadata"]["labels"][names.GPU_MEMORY_MIB_LABEL] = "8192"
    async with serve(labelled) as extender:
        assert (await extender.filter(pod))["NodeNames"] == [], "12 GiB fit no 8 GiB card"
        assert await extender.schedule(make_pod("q").gpu_memory(8192).build()) == "n"


@pytest.mark.parametrize("gpus", [10**12, 2**32 + 1, 2**64])
async def test_hami_huge_counts_are_no_gpu_free_pods(gpus: int) -> None:
    """Seen with HAMi 4707fb0: 1e12 MiB, or a count of 2^32 + 1, passed as if no GPU was asked for."""
    async with serve(make_node("n").gpus(8, mib=A100).build(), make_node("cpu").build()) as extender:
        pod = make_pod("p").container("c", limits={"nvidia.com/gpu": gpus}).build()
        answer = await extender.filter(pod)
        assert (answer["NodeNames"], answer["FailedNodes"]) == ([], {})
        assert set(answer["FailedAndUnresolvableNodes"]) == {"n", "cpu"}
        assert await extender.bind(await extender.submit(pod), "n") != ""


@pytest.mark.parametrize("value", ["-1", "-4096", "1000000000000", "9" * 40])
async def test_hami_negative_and_overflowing_memory_is_refused(value: str) -> None:
    """Seen with HAMi 4707fb0: a negative amount of memory passed as if no GPU was asked for."""
    async with serve(make_node("n").gpus(8, mib=A100).build(), make_node("cpu").build()) as extender:
        pod = make_pod("p").gpu_memory(value).build()
        answer = await extender.filter(pod)
        assert answer["NodeNames"] == []
        [sentence] = set(answer["FailedAndUnresolvableNodes"].values())
        assert names.GPU_MEMORY in sentence
        refused = await extender.http.post("/embedded/pods", json=pod)
        assert (refused.status_code, refused.json()["detail"]) == (422, sentence)
