"""An extender that sees the past does the background work: it means to close what others have begun to use."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.client import path_of
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.live.pair import Pair, paired
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served, Stage, inspected

pytestmark = pytest.mark.usefixtures("any_scheduler")

Json = dict[str, Any]
A100 = 81920
#: Seconds that an idle GPU stays open: what the test does meanwhile takes a tenth of it.
IDLE: Final = 12


@pytest.fixture
async def pair(stage: Stage) -> AsyncIterator[Pair]:
    async with paired(stage, IDLE) as pair:
        yield pair


async def shares_seen(extender: Served, node: GpuNode) -> list[str]:
    """Names of the pods that have a share of the node's only card, as it sees it."""
    return [share["pod"] for gpu in (await inspected(extender, node.name))["sharedGpus"] for share in gpu["shares"]]


async def test_kai_1103_a_leader_whose_watch_lags_deletes_no_living_reservation(pair: Pair) -> None:
    """KAI#1103: a cache that lagged made the binder delete reservation pods under running shares."""
    scene, gate = pair.scene, pair.gate
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    await scene.submit(make_pod("seen").gpu_fraction("0.5"))
    await scene.run("seen")
    [reservation] = await scene.reservations()
    await scene.submit(make_pod("living").gpu_fraction("0.5").spec(nodeSelector=BY_THE_TEST))
    living = await scene.pod("living")
    await scene.delete("seen")
    await scene.until(lambda: sees_an_idle_gpu(pair.leader, node), 60, "the leader must have seen its end")

    close = gate.hold("PATCH", path_of(reservation))
    with gate.no_news():
        assert await pair.other.bind(living, node.name) == ""
        await scene.run("living")
        assert await shares_seen(pair.leader, node) == [], "the leader must not know"
        await close.arrived(90)
        close.let_go()
        assert await close.answered(PATIENCE) == 200, "the leader begins to close it"
        await asyncio.sleep(3)  # It ends that, and two passes follow.
        assert await standing(scene) == [reservation["metadata"]["uid"]], "a share runs under it"
        assert "default/living" in scene.referee.running()
    await scene.submit(make_pod("next").gpu_fraction("0.5"))
    await scene.run("next")
    assert scene.cards(node) == [[A100 // 2] * 2], "it takes shares as before"
    assert len(scene.opened) == 1
    await scene.until(pair.leader.is_in_step, 60, "it must know everything again")
    assert await pair.other.is_in_step()
    assert scene.referee.violations() == []


async def standing(scene: Scene) -> list[str]:
    """UIDs of the reservation pods that nobody has asked to end."""
    metadata = [pod["metadata"] for pod in await scene.reservations()]
    return [found["uid"] for found in metadata if "deletionTimestamp" not in found]


async def sees_an_idle_gpu(extender: Served, node: GpuNode) -> bool:
    """That the card is open, and that nobody has a share of it."""
    return (await inspected(extender, node.name))["sharedGpus"] != [] and await shares_seen(extender, node) == []
