"""The product on a real control plane: pods come in over kubectl's door and run on the devices that they were given."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.client import Client
from tests.controlplane.referee import Referee
from tests.controlplane.stage import Stage

Json = dict[str, Any]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        extender = stage.start_extender(observe_port=0)
        stage.start_scheduler(extender)
        yield stage


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.plane) as client:
        yield client


async def test_shares_and_whole_gpus_fill_two_nodes(stage: Stage, admin: Client) -> None:
    """12 half GPUs and a pod of two whole ones need exactly the eight GPUs there are."""
    async with Referee(admin, seed=1) as referee:
        for name in ("n-0", "n-1"):
            await referee.add_node(make_node(name).cpu(64).gpus(4, mib=80_000).build())
        halves = [make_pod(f"half-{number}").gpu_fraction("0.5") for number in range(12)]
        for pod in [*halves, make_pod("whole").gpus(2)]:
            await admin.create_pod(pod.spec(schedulerName="gpu-scheduler").build())
        await referee.wait_running({*(f"default/half-{number}" for number in range(12)), "default/whole"}, 30)
        assert referee.violations() == []
