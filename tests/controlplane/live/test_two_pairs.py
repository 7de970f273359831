"""Two extenders and two kube-schedulers on the same nodes: whoever binds, no card is given out twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.crowd import Crowd
from tests.controlplane.gpu_node import requests
from tests.controlplane.process import PATIENCE
from tests.controlplane.room import GPU
from tests.controlplane.scene import Scene
from tests.controlplane.stage import QUICK, Served, Stage, configuration

pytestmark = pytest.mark.usefixtures("any_scheduler")

A100 = 81920
OTHER = "gpu-scheduler-2"


@pytest.fixture(scope="module")
def pairs(stage: Stage) -> Iterator[list[Served]]:
    """gpu-scheduler asks the first extender, gpu-scheduler-2 the second: neither knows of the other.

    Both may open the last card; the reservation pod that finds none is given up, here sooner than people would want.
    """
    first = stage.start_extender("extender-1", **QUICK)
    second = stage.start_extender("extender-2", scheduler_name=OTHER, **QUICK)
    stage.start_scheduler(first, "scheduler-1")
    (profile,) = configuration(second)["profiles"]
    stage.start_scheduler(second, "scheduler-2", profiles=[profile | {"schedulerName": OTHER}])
    yield [first, second]
    stage.stop()


@pytest.fixture
async def scene(stage: Stage, pairs: list[Served]) -> AsyncIterator[Scene]:
    async with Scene(stage) as scene:
        yield scene


async def test_hami_2232_half_of_the_replicas_by_each_scheduler(scene: Scene) -> None:
    """HAMi#2232, KAI#2153 with two schedulers that decide at the same time for the same cards."""
    nodes = [await scene.add(make_node(f"n-{i}").gpus(4, mib=A100)) for i in range(2)]
    names = [f"p{i}" for i in range(16)]
    pods = [make_pod(name).gpu_fraction("0.5") for name in names]
    await scene.submit(*(pod.spec(schedulerName=OTHER) if i % 2 else pod for i, pod in enumerate(pods)))
    await scene.run(*names, seconds=60)
    assert [scene.cards(node) for node in nodes] == [[[A100 // 2] * 2] * 4] * 2
    assert scene.referee.violations() == []
    assert await scene.failed() == [], "a kubelet has refused a user's pod"


async def test_two_pods_of_two_cards_each_for_the_last_two_cards(scene: Scene) -> None:
    """Each might open one and wait for the other: one of them gets both."""
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    one = make_pod("one").gpu_fraction("0.6").num_devices(2)
    two = make_pod("two").gpu_fraction("0.6").num_devices(2).spec(schedulerName=OTHER)
    await scene.submit(one, two)
    await scene.until(lambda: scene.has_pending(1), 60, "one must run")
    await scene.all_that_fits_runs()
    assert scene.cards(node) == [[A100 * 6 // 10]] * 2
    assert scene.referee.violations() == []


async def test_a_crowd_by_two_schedulers(scene: Scene) -> None:
    """Each may give a node's last device to a pod that asks for whole ones: the kubelet refuses one, never a share."""
    for number in range(4):
        await scene.add(make_node(f"n-{number}").gpus(4, mib=80_000 if number % 2 else 40_000))
    crowds = Crowd(scene, seed=21), Crowd(scene, seed=22, prefix="d", scheduler=OTHER)
    for _ in range(4):
        await asyncio.gather(*(crowd.come(12) for crowd in crowds))
        await asyncio.sleep(crowds[0].moment(0.5))
        await crowds[0].go(10)
    await scene.all_that_fits_runs(60)
    assert scene.referee.violations() == []
    assert await scene.lost() == []
    refused = [await scene.pod(name) for name in await scene.failed()]
    assert [pod["metadata"]["name"] for pod in refused if GPU not in requests(pod)] == []


async def test_an_extender_that_stood_still_knows_again_who_has_what(scene: Scene, pairs: list[Served]) -> None:
    """Its watches show it later what the other one has bound meanwhile."""
    first, second = pairs
    await scene.add(make_node("n").gpus(2, mib=A100))
    await scene.submit(make_pod("seen").gpu_fraction("0.5").spec(schedulerName=OTHER))
    await scene.run("seen")
    second.process.pause()
    await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.5") for i in range(3)))
    await scene.run("p0", "p1", "p2")
    await scene.delete("seen")
    await scene.submit(make_pod("late").gpu_fraction("0.5"))
    await scene.run("late")
    second.process.resume()
    await scene.submit(make_pod("later").gpu_fraction("0.5").spec(schedulerName=OTHER))
    await scene.stay_pending("later")
    assert [pod for pod in scene.opened.values() if pod["metadata"].get("deletionTimestamp")] == []
    for extender in (first, second):
        await scene.until(extender.is_in_step, PATIENCE, "what it has and what there is differ")
    assert scene.referee.violations() == []


async def test_both_schedulers_take_every_pod(scene: Scene, stage: Stage, pairs: list[Served]) -> None:
    """Same name, both active: each pod is decided about twice, at the same time."""
    stage.start_scheduler(pairs[1], "scheduler-3")
    nodes = [await scene.add(make_node(f"n-{i}").gpus(4, mib=A100)) for i in range(2)]
    names = [f"p{i}" for i in range(24)]
    await scene.submit(*(make_pod(name).gpu_fraction("0.33") for name in names))
    await scene.run(*names, seconds=90)
    assert [scene.cards(node) for node in nodes] == [[[A100 * 33 // 100] * 3] * 4] * 2
    assert scene.referee.violations() == []
    assert await scene.failed() == [], "a kubelet has refused a user's pod"
