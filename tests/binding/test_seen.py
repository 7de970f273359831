"""bind works on the pod that the watch has shown: it saves a read, and what is too old costs one, nothing else."""

from copy import deepcopy
from typing import Any

import pytest

from tests.binding.stage import World
from tests.builders import PodBuilder, make_pod


async def seen_pod(world: World, builder: PodBuilder) -> Any:
    """A pod that the extender has seen as it is now, and will see no change of."""
    pod = deepcopy(await world.pod(builder))
    world.process.seen["default", pod["metadata"]["name"]] = pod
    return pod


@pytest.mark.parametrize("builder", [make_pod("p").gpu_memory(400), make_pod("p").gpus(1), make_pod("p")])
async def test_a_pod_that_was_seen_is_not_read(world: World, builder: PodBuilder) -> None:
    await world.bind(await world.pod(make_pod("opener").gpu_memory(100)))  # a reservation pod is read before it counts
    world.api.calls.clear()
    pod = await seen_pod(world, builder)
    assert await world.error(pod) == ""
    assert "get_pod" not in world.api.calls
    assert (await world.stored(pod))["spec"]["nodeName"] == "n"


async def test_somebody_has_written_to_the_pod_since(world: World) -> None:
    pod = await seen_pod(world, make_pod("p").gpu_memory(400))
    await world.cluster.patch_pod("default", "p", {"metadata": {"annotations": {"gpu-memory": "300"}}})
    assert await world.error(pod) == ""
    assert world.api.calls.count("bind_pod") == 2
    assert list(world.account().values()) == [400], "what kube-scheduler has judged is what is bound"


async def test_another_pod_has_its_name_by_now(world: World) -> None:
    pod = await seen_pod(world, make_pod("p").gpu_memory(400))
    await world.delete(pod)
    another = await world.pod(make_pod("p").uid("another").gpu_memory(900))
    assert another["metadata"]["uid"] != pod["metadata"]["uid"]
    assert await world.error(pod) != ""
    assert "nodeName" not in (await world.stored(another))["spec"]
    assert list((await world.record()).entries()) == []


async def test_it_is_gone_by_now(world: World) -> None:
    pod = await seen_pod(world, make_pod("p").gpu_memory(400))
    await world.delete(pod)
    assert await world.error(pod) != ""
    assert list((await world.record()).entries()) == []


async def test_it_is_bound_by_now(world: World) -> None:
    pod = await seen_pod(world, make_pod("p").gpu_memory(400))
    await world.cluster.bind_pod(
        {"metadata": {"namespace": "default", "name": "p"}, "target": {"kind": "Node", "name": "m"}}
    )
    assert "already" in await world.error(pod)
    assert (await world.stored(pod))["spec"]["nodeName"] == "m"
    assert world.reservation_pods() == [], "the ledger knows better than what was seen: nothing was begun"


async def test_what_was_seen_is_another_pod_than_the_one_asked_for(world: World) -> None:
    await seen_pod(world, make_pod("p").gpu_memory(400))
    await world.cluster.delete_pod("default", "p", "")
    pod = await world.pod(make_pod("p").uid("another").gpu_memory(900))
    assert await world.error(pod) == ""
    assert world.api.calls[0] == "get_pod"
    assert list(world.account().values()) == [900]
