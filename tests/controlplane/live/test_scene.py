"""A test finds nothing of the one before it, and counts nothing of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from extender.core import names
from extender.core.reservation import Template, reservation_pod
from tests.builders import make_node, make_pod
from tests.controlplane.client import PODS, Client
from tests.controlplane.gate import Gate, Held
from tests.controlplane.gpu_node import RESERVATIONS
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Stage
from tests.controlplane.users import EXTENDER

_RESERVATIONS = f"/api/v1/namespaces/{RESERVATIONS}/pods"


async def names_of_pods(stage: Stage) -> list[str]:
    async with Client(stage.plane) as admin:
        return [pod["metadata"]["name"] for pod in (await admin.get(PODS))["items"]]


async def test_what_comes_while_the_nodes_go_is_gone_as_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reservation pod that an extender was opening: the next test would count it among its own."""
    async with Scene(stage) as scene:
        await scene.add(make_node("n").gpus(1, mib=81920))
        removed = scene.referee.remove_node

        async def late(name: str) -> None:
            await removed(name)
            await scene.admin.create_pod(make_pod("late").spec(schedulerName="nobody").build())

        monkeypatch.setattr(scene.referee, "remove_node", late)
    assert "late" not in await names_of_pods(stage)


async def test_what_comes_when_nothing_was_left_is_gone_as_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request was on its way when the scene looked for the last time."""
    late: list[Any] = []
    async with Scene(stage) as scene:
        await scene.add(make_node("n").gpus(1, mib=81920))
        get = scene.admin.get

        async def empty_and_then(path: str) -> Any:
            found = await get(path)
            if path == PODS and not (found["items"] or scene.referee.nodes or late):
                late.append(await scene.admin.create_pod(make_pod("late").spec(schedulerName="nobody").build()))
            return found

        monkeypatch.setattr(scene.admin, "get", empty_and_then)
    assert late
    assert "late" not in await names_of_pods(stage)


@pytest.fixture
async def gate(stage: Stage) -> AsyncIterator[Gate]:
    """In front of the only extender."""
    async with Gate(stage.plane) as gate:
        stage.start_scheduler(await gate.start_extender(stage, "opening"))
        yield gate
        stage.stop()


async def test_a_gpu_that_an_extender_is_opening_is_waited_for(stage: Stage, gate: Gate) -> None:
    """Its pod is gone, and so is its node; the request that creates its reservation pod is still on its way."""
    creation = gate.hold("POST", _RESERVATIONS)
    async with Scene(stage) as scene:
        await scene.add(make_node("n").gpus(1, mib=81920))
        await scene.submit(make_pod("opens").gpu_fraction("0.5"))
        await creation.arrived(PATIENCE)
        landing = asyncio.create_task(lands_later(creation))
    assert await landing == 201
    assert await names_of_pods(stage) == []


async def lands_later(creation: Held) -> int:
    """Long after the scene has found that no pod is left."""
    await asyncio.sleep(3)
    creation.let_go()
    return await creation.answered(PATIENCE)


async def test_what_another_scene_has_left_does_not_count(scene: Scene) -> None:
    node = await scene.add(make_node("n").gpus(1, mib=81920))
    left = reservation_pod("share-left", "of-another-scene", names.GPU_RESOURCE, Template("nobody", "x"))
    async with Client(scene.stage.plane, EXTENDER) as extender:
        await extender.post(_RESERVATIONS, left)
    await scene.submit(make_pod("p").gpu_fraction("0.5"))
    await scene.run("p")
    await scene.until(lambda: scene.has_opened(1), PATIENCE, "its own counts")
    assert [pod["spec"]["nodeName"] for pod in scene.opened.values()] == [node.name]
    assert [pod["spec"]["nodeName"] for pod in await scene.reservations()] == [node.name]
