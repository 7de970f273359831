"""GPUs that are kept reserved ahead of demand: a pod takes one without waiting for a reservation pod to start."""

from collections.abc import Iterator

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import QUICK, Served, Stage, inspected


@pytest.fixture(scope="module")
def extender(stage: Stage) -> Iterator[Served]:
    """One spare GPU on each node."""
    yield stage.start_extender(**QUICK, spare_gpus=1)
    stage.stop()


async def ready(extender: Served, node: GpuNode) -> list[str]:
    """Ids of the node's shared GPUs that have reported their devices."""
    return [gpu["id"] for gpu in (await inspected(extender, node.name))["sharedGpus"] if gpu["state"] == "ready"]


async def has_ready(extender: Served, node: GpuNode, number: int) -> bool:
    return len(await ready(extender, node)) == number


async def test_a_share_lands_on_the_spare_and_another_is_opened(scene: Scene, extender: Served) -> None:
    node = await scene.add(make_node("n").gpus(3, mib=81_920))
    await scene.until(lambda: has_ready(extender, node, 1), PATIENCE, "a GPU is opened for nobody")
    [spare] = await ready(extender, node)
    await scene.submit(make_pod("first").gpu_fraction("0.5"))
    await scene.run("first")
    assert (await scene.pod("first"))["metadata"]["annotations"]["gpu-extender.io/shared-gpus"] == spare
    await scene.until(lambda: has_ready(extender, node, 2), PATIENCE, "the next one is opened")

    # Whoever wants whole GPUs comes first.
    await scene.submit(make_pod("whole").gpus(2))
    await scene.run("whole")
    assert await ready(extender, node) == [spare]
    assert scene.referee.violations() == []
