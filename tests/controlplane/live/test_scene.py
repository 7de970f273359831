"""A test finds nothing of the one before it."""

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.client import PODS, Client
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Stage


async def test_what_comes_while_the_nodes_go_is_gone_as_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reservation pod that an extender was opening: the next test would count it among its own."""
    async with Scene(stage) as scene:
        await scene.add(make_node("n").gpus(1, mib=81920))
        removed = scene.referee.remove_node

        async def late(name: str) -> None:
            await removed(name)
            await scene.admin.create_pod(make_pod("late").spec(schedulerName="nobody").build())

        monkeypatch.setattr(scene.referee, "remove_node", late)
    async with Client(stage.plane) as admin:
        assert "late" not in [pod["metadata"]["name"] for pod in (await admin.get(PODS))["items"]]
