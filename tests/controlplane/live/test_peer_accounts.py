"""What users of other GPU-sharing schedulers suffered, end to end: how much of which card is given to whom."""

from typing import Any

import httpx
import pytest

from extender.core import names
from tests.builders import make_node, make_pod
from tests.controlplane.client import Answer
from tests.controlplane.gpu_node import Device
from tests.controlplane.judge import Kind
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, inspected

A100 = 81920


async def test_kai_2153_sixteen_halves_on_eight_gpus_and_one_too_many(scene: Scene) -> None:
    """KAI#2153: 16 pods of 0.5 at once on 8 GPUs ended with up to 4 pods on one card, and reservations in a loop."""
    node = await scene.add(make_node("n").gpus(8, mib=A100))
    await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.5") for i in range(17)))
    await scene.all_that_fits_runs()
    assert scene.cards(node) == [[A100 // 2] * 2] * 8
    assert len(await scene.reservations()) == 8
    assert scene.referee.violations() == []


async def test_kai_416_kai_rounding_23_times_2000_mib_on_46068(scene: Scene) -> None:
    """KAI#416 and KAI's two-decimal fractions: 23 pods of 2000 MiB on 46068 MiB were given 2303 MiB each, 115 %."""
    node = await scene.add(make_node("l40s").gpus(1, mib=46068))
    await scene.submit(*(make_pod(f"p{i}").gpu_memory(2000) for i in range(24)))
    await scene.all_that_fits_runs()
    assert scene.cards(node) == [[2000] * 23]
    assert scene.referee.violations() == []


async def test_hami_2232_replicas_of_0_6_get_a_card_each(scene: Scene) -> None:
    """HAMi#2232: concurrent replicas were given the same card twice."""
    nodes = [await scene.add(make_node(f"n-{i}").gpus(2, mib=A100)) for i in range(3)]
    await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.6") for i in range(6)))
    await scene.run(*(f"p{i}" for i in range(6)))
    assert [scene.cards(node) for node in nodes] == [[[A100 * 6 // 10]] * 2] * 3
    assert scene.referee.violations() == []


async def test_aliyun_184_a_card_over_its_limit_is_full(scene: Scene, extender: Served) -> None:
    """Aliyun#184 and its unsigned subtraction: a GPU over its limit read as almost infinitely free."""
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    await scene.submit(make_pod("first").gpu_memory(8000))
    await scene.run("first")
    given = (await scene.pod("first"))["metadata"]["annotations"]
    places = {"shared_gpus": given[names.SHARED_GPUS], "visible_devices": given[names.VISIBLE_DEVICES]}
    await scene.forge("forged", node, "6000", **places)
    await scene.run("forged")
    assert {found.kind for found in scene.referee.violations()} == {Kind.OVERSUBSCRIBED}, "that is the forgery"
    await scene.submit(make_pod("new").gpu_memory(1), make_pod("whole").gpus(1))
    await scene.stay_pending("new", "whole")
    assert {found["kind"] for found in (await extender.get("/check"))["differences"]} >= {"overcommitted"}


async def test_aliyun_201_what_is_deleted_leaves_nothing_behind(scene: Scene, extender: Served) -> None:
    """Aliyun#201: after repeated create and delete, an idle GPU read as full."""
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    for turn in range(4):
        quarters = [f"p{turn}-{i}" for i in range(4)]
        await scene.submit(*(make_pod(name).gpu_fraction(".25") for name in quarters))
        await scene.run(*quarters, seconds=15)
        await scene.delete(*quarters)

    async def holds_nothing() -> bool:
        return all(gpu["usedMiB"] == 0 for gpu in (await inspected(extender, node.name))["sharedGpus"])

    await scene.until(holds_nothing, PATIENCE, "what is gone still counts")
    assert scene.referee.violations() == []


async def test_hami_2911_a_restart_serves_only_what_is_true(scene: Scene, extender: Served) -> None:
    """HAMi#2911: after a failover a stale cache was published as ready."""
    node = await scene.add(make_node("n").gpus(3, mib=A100))
    await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.5") for i in range(4)), make_pod("whole").gpus(1))
    await scene.run("whole", *(f"p{i}" for i in range(4)))
    before = await inspected(extender, node.name)
    extender.process.kill()
    extender.process.start()
    asked = {"Pod": make_pod("late").gpu_memory(1).build(), "Nodes": None, "NodeNames": [node.name]}
    answers: list[dict[str, Any]] = []
    while not answers or answers[-1]["Error"]:
        try:
            answers.append(await extender.verb("filter", asked))
        except httpx.TransportError:
            assert extender.process.is_running()
    assert not any(answer.get("NodeNames") for answer in answers), "the node is full, whoever asks first"
    assert await inspected(extender, node.name) == before
    assert (await extender.get("/check"))["differences"] == []


async def test_hami_2959_an_undecodable_annotation_closes_the_node(scene: Scene, extender: Served) -> None:
    """HAMi#2958, HAMi#2959: an annotation that could not be decoded made a live pod invisible, its memory free."""
    broken = [{"mib": "lots"}, {"mib": "-1"}, {"mib": "60000", "shared_gpus": "a,b"}]
    dark = [await scene.add(make_node(f"dark-{i}").gpus(8, mib=A100)) for i in range(len(broken))]
    good = await scene.add(make_node("good").gpus(1, mib=A100))
    for number, (node, written) in enumerate(zip(dark, broken, strict=True)):
        await scene.forge(f"forged-{number}", node, **written)
        await scene.run(f"forged-{number}")
    scene.referee.forgive()
    await scene.submit(make_pod("one").gpu_fraction("0.9"), make_pod("two").gpu_fraction("0.9"))
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "one of two must run")
    await scene.stay_pending()
    assert [len(sizes) for sizes in scene.cards(good)] == [1]
    for node in dark:
        assert (await inspected(extender, node.name))["unusable"] == "ShareUnreadable"
    assert scene.referee.violations() == []


async def test_hami_1942_and_2622_all_containers_count_init_containers_by_maximum(scene: Scene) -> None:
    """HAMi#1942: requests of init containers were summed. HAMi#2622: of several containers not all were counted."""
    node = await scene.add(make_node("n").gpus(2, mib=8192))
    init = make_pod("init").init_container("prepare").container("main")
    init.container_gpu_memory("prepare", request="6Gi").container_gpu_memory("main", request="5Gi")
    both = make_pod("both").container("a").container("b")
    both.container_gpu_memory("a", request="3Gi").container_gpu_memory("b", request="4Gi")
    await scene.submit(init, both)
    await scene.run("init", "both")
    assert scene.cards(node) == [[6 * 1024], [7 * 1024]]
    [device] = (await scene.pod("both"))["metadata"]["annotations"][names.VISIBLE_DEVICES].split(",")
    for container in ("a", "b"):
        annotations = (await scene.pod("both"))["metadata"]["annotations"]
        assert annotations[f"nvidia.com/container.{container}.gpus.devices"] == device
    assert scene.referee.violations() == []


async def test_aliyun_40_cards_of_8_and_16_gib_in_one_node(scene: Scene) -> None:
    """Aliyun#40: cards of 8 and 16 GiB in one node were averaged to 12.

    Labels of one model and a capacity above its count prove that not all are of that size: nothing is guessed. With
    the administrator's word the smaller size counts, and a share is never larger than the card that it gets.
    """
    mixed = make_node("mixed").gpus(2, mib=16384).label("nvidia.com/gpu.count", "1")
    small = make_node("small").gpus(2, mib=16384).label(names.GPU_MEMORY_MIB_LABEL, "8192")
    devices = [Device("GPU-8", 8192), Device("GPU-16", 16384)]
    await scene.add(mixed, devices)
    await scene.submit(make_pod("large").gpu_memory(12288))
    await scene.stay_pending("large")
    await scene.add(small, [Device("GPU-8b", 8192), Device("GPU-16b", 16384)])
    await scene.submit(make_pod("a").gpu_memory(8192), make_pod("b").gpu_memory(8192))
    await scene.run("a", "b")
    await scene.stay_pending("large", seconds=1)
    assert scene.referee.violations() == []


@pytest.mark.parametrize("value", ["-1", "1000000000000", "9" * 40])
async def test_hami_absurd_amounts_of_memory_are_refused(scene: Scene, value: str) -> None:
    """Seen with HAMi 4707fb0: a negative amount, or 1e12 MiB, passed as if no GPU was asked for."""
    with pytest.raises(Answer, match=f"annotation {names.GPU_MEMORY} is "):
        await scene.submit(make_pod("absurd").gpu_memory(value))


@pytest.mark.parametrize("gpus", [10**12, 2**32 + 1])
async def test_hami_huge_counts_are_no_gpu_free_pods(scene: Scene, gpus: int) -> None:
    """Seen with HAMi 4707fb0: a count of 2^32 + 1 passed as if no GPU was asked for."""
    await scene.add(make_node("n").gpus(8, mib=A100))
    await scene.add(make_node("cpu"))
    await scene.submit(make_pod("huge").gpus(gpus))
    await scene.stay_pending("huge")
