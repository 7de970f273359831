"""Why a pod is where it is, or why it is nowhere."""

import json
from typing import Any

import pytest

from extender.core import names
from tests.builders import make_node, make_pod
from tests.client import Extender, serve

CARD = 81920


def cluster() -> Extender:
    nodes = [make_node("a").gpus(2, mib=CARD).build(), make_node("b").gpus(2, mib=CARD).taint("x", "y").build()]
    return serve(*nodes, make_node("cpu").build())


async def told(extender: Extender, pod: Any, submit: bool = True) -> Any:
    if submit:
        await extender.submit(pod)
    metadata = pod["metadata"]
    found = await extender.get(f"/explain/{metadata['namespace']}/{metadata['name']}")
    assert [node["name"] for node in found["nodes"]] in ([], extender.nodes)
    return found


def by_name(found: Any) -> dict[str, Any]:
    return {node["name"]: node for node in found["nodes"]}


async def test_pending() -> None:
    async with cluster() as extender:
        pod = make_pod("p", "team").gpu_memory(4096).num_devices(2).build()
        found = await told(extender, pod)
        assert (found["state"], found["node"], found["sharedGpus"], found["invalid"]) == ("pending", None, [], None)
        assert found["request"] == {"memoryMiB": 4096, "devices": 2, "computeMode": "time-slicing"}
        nodes = by_name(found)
        assert (nodes["a"]["fits"], nodes["a"]["score"], nodes["a"]["reason"]) == (True, 10, None)
        assert (nodes["a"]["shortfalls"], nodes["a"]["scheduler"]) == ([], [])
        assert nodes["b"]["fits"], "a taint is kube-scheduler's word, told beside ours"
        assert len(nodes["b"]["scheduler"]) == 1
        assert (nodes["cpu"]["fits"], nodes["cpu"]["score"]) == (False, None)


async def test_scores_are_those_of_prioritize() -> None:
    async with cluster() as extender:
        await extender.schedule(make_pod("first").gpu_memory(100).build(), ["b"])
        pod = make_pod("p").gpu_memory(100).build()
        scores = await extender.prioritize(make_pod("twin").gpu_memory(100).build())
        # The twin's claim is a hint, not the ledger's.
        extender.service.decisions.claims.end(make_pod("twin").build()["metadata"]["uid"])
        found = by_name(await told(extender, pod))
        assert {name: node["score"] or 0 for name, node in found.items()} == scores


@pytest.mark.parametrize("strategy", names.STRATEGIES)
async def test_a_pod_without_gpus_leaves_them_to_others_in_so_many_words(strategy: str) -> None:
    async with cluster() as extender:
        found = by_name(await told(extender, make_pod("p").strategy(strategy).build()))
        costs = {name: sum(node["cost"].values()) for name, node in found.items()}
        assert costs["cpu"] < min(costs["a"], costs["b"])
        assert found["a"]["amounts"]["GPUs that it does not need"] == 2
        assert found["cpu"]["score"] > found["a"]["score"]


async def test_numbers_of_a_shortfall() -> None:
    async with cluster() as extender:
        for name in ("p", "q"):
            assert await extender.schedule(make_pod(name).gpu_memory(CARD - 1024).build(), ["a"]) == "a"
        found = by_name(await told(extender, make_pod("new").gpu_memory(4096).build()))
        assert found["a"]["reason"] == "no shared GPU has room and none is free"
        assert found["a"]["shortfalls"] == [
            {"reason": "GpuMemory", "unit": "MiB", "asked": 4096, "free": 2048, "largest": 1024, "resolvable": True}
        ]


async def test_bound_as_if_it_were_not_there() -> None:
    async with cluster() as extender:
        pod = make_pod("p").gpu_memory(CARD).num_devices(2).build()
        assert await extender.schedule(pod, ["a"]) == "a"
        found = await told(extender, pod, submit=False)
        assert (found["state"], found["node"]) == ("bound", "a")
        assert len(found["sharedGpus"]) == len(set(found["visibleDevices"])) == 2
        assert by_name(found)["a"]["fits"], "its own share does not stand in its way"
        assert found["annotations"]["gpu-extender.io/memory-mib"] == str(CARD)


async def test_invalid() -> None:
    pod = make_pod("p").gpu_fraction("2").build()
    async with serve(make_node("a").build(), pods=[pod]) as extender:
        found = await told(extender, pod, submit=False)
        assert (found["request"], found["nodes"], found["state"]) == (None, [], "pending")
        answer = await extender.filter(pod)
        assert answer["FailedAndUnresolvableNodes"] == {"a": found["invalid"]}


async def test_whole_gpus_cpu_and_ended() -> None:
    ended = make_pod("e").gpus(1).on_node("a", "Succeeded").build()
    async with serve(*[make_node("a").gpus(1).build(), make_node("cpu").build()], pods=[ended]) as extender:
        assert (await told(extender, ended, submit=False))["state"] == "ended"
        whole = await told(extender, make_pod("w").gpus(1).build())
        assert whole["request"] == {"gpus": {"nvidia.com/gpu": 1}}
        cpu = by_name(await told(extender, make_pod("c").build()))
        assert (cpu["cpu"]["score"], cpu["a"]["score"]) == (10, 9)


async def test_a_share_pod_that_was_bound_past_us() -> None:
    """It has no share, whatever it asks for: an explanation that kept silent would let it pass for one of ours."""
    past = make_pod("past").gpu_fraction("0.5").on_node("a", "Running").build()
    async with serve(make_node("a").gpus(1, mib=CARD).build(), pods=[past]) as extender:
        found = await told(extender, past, submit=False)
        assert (found["state"], found["sharedGpus"]) == ("bound", [])
        assert found["differences"] == ["asks for a share but was bound without one"]
        ours = make_pod("ours").gpu_fraction("0.5").build()
        assert await extender.schedule(ours, ["a"]) == "a"
        assert (await told(extender, ours, submit=False))["differences"] == []


async def test_an_explanation_is_json_and_changes_nothing() -> None:
    async with cluster() as extender:
        pod = make_pod("p").gpu_fraction("0.5").build()
        first = await told(extender, pod)
        before = await extender.get("/inspect")
        assert await told(extender, pod, submit=False) == first
        assert await extender.get("/inspect") == before
        assert json.loads(json.dumps(first))["request"]["fraction"] == "0.5"
