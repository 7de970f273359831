"""200 pods of random sizes, whole and fractional, on the same nodes, while others go and new ones come."""

import asyncio

from tests.builders import make_node
from tests.controlplane.crowd import Crowd
from tests.controlplane.scene import Scene


async def test_200_pods_of_random_sizes_come_and_go(scene: Scene) -> None:
    """What stays pending does not fit, by the referee's account."""
    for number in range(6):
        await scene.add(make_node(f"n-{number}").gpus(4, mib=80_000 if number % 2 else 40_000))
    crowd = Crowd(scene, seed=2)
    await crowd.come(100)
    for _ in range(10):
        await asyncio.sleep(crowd.moment(0.5))
        await crowd.go(8)
        await crowd.come(10)
    await scene.all_that_fits_runs(60)
    assert len(scene.submitted) == 120
    assert await scene.pending(), "too few to fill the nodes"
    assert scene.referee.violations() == []
    assert await scene.lost() == []
    assert await scene.failed() == []
