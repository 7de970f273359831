"""The extender is away: ordinary pods do not notice, share pods wait for it."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, Stage


@pytest.fixture(autouse=True)
def default_scheduler(stage: Stage) -> Iterator[None]:
    """The cluster's own, which knows nothing of us; the scene's is that of the manifests."""
    process = stage.plane.start_scheduler({"profiles": [{"schedulerName": "default-scheduler"}]})
    yield
    process.stop()
    stage.plane.processes.remove(process)


async def test_ordinary_pods_run_and_share_pods_wait(scene: Scene, extender: Served) -> None:
    node = await scene.add(make_node("n").gpus(2, mib=8000))
    await scene.submit(make_pod("before").gpu_memory(3000))
    await scene.run("before")
    extender.process.kill()
    for ordinary in (make_pod("ordinary"), make_pod("whole").gpus(1)):
        await scene.admin.create_pod(ordinary.build())
    await scene.submit(*(make_pod(f"share-{number}").gpu_memory(2000) for number in range(2)), make_pod("through-us"))
    await scene.run("ordinary", "whole", seconds=20)
    assert (await scene.pod("share-0"))["spec"]["schedulerName"] == "gpu-scheduler", "admission needs nothing of ours"
    await scene.stay_pending("share-0", "share-1", "through-us", seconds=5)
    assert "before" in {pod.name.partition("/")[2] for pod in scene.referee.running().values()}

    extender.process.start()
    await asyncio.to_thread(extender.process.wait_until_ready)
    await scene.run("share-0", "share-1", "through-us")
    assert scene.cards(node) == [[2000, 2000, 3000]]
    assert scene.referee.violations() == []
