"""Processes die and stop at any moment: nothing is given out twice, what fits runs in the end, no pod is killed."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.builders import make_node
from tests.controlplane.crowd import Crowd
from tests.controlplane.process import Process
from tests.controlplane.records import RECORDS
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, Stage

#: How often the extender is killed.
KILLS: Final = int(os.environ.get("KILLS", "100"))
DEVICE: Final = "gpu-extender.io/device"


@pytest.fixture(autouse=True)
def mended(stage: Stage) -> Iterator[None]:
    """The control plane is whole again after each test."""
    yield
    for process in stage.plane.processes:
        process.resume()


async def add_nodes(scene: Scene) -> None:
    for number in range(4):
        await scene.add(make_node(f"n-{number}").gpus(4, mib=80_000 if number % 2 else 40_000))


async def all_is_well(scene: Scene) -> None:
    await scene.all_that_fits_runs(90)
    assert scene.referee.violations() == []
    assert await scene.lost() == [], "somebody has deleted these"
    assert await scene.failed() == [], "a kubelet has refused these"


async def under_way(scene: Scene) -> set[str]:
    """What somebody has begun and not ended: reservations that have not reported, tries to bind unbound pods."""
    waiting = {pod["metadata"]["uid"] for pod in await scene.reservations() if DEVICE not in annotations(pod)}
    unbound = {pod["metadata"]["uid"] for pod in await scene.pending()}
    for found in (await scene.admin.get(RECORDS))["items"]:
        gpus = json.loads(found.get("data", {}).get("record", '{"gpus": {}}'))["gpus"]
        waiting |= {share["try"] for gpu in gpus.values() for uid, share in gpu["shares"].items() if uid in unbound}
    return waiting


def annotations(pod: dict[str, Any]) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


@pytest.mark.timeout(60 + 15 * KILLS)
async def test_kill_9_of_the_extender_at_random_moments_in_a_burst(
    scene: Scene, extender: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time new pods have just come and others have gone."""
    await add_nodes(scene)
    crowd = Crowd(scene, seed=9)
    hit = 0
    left: set[str] = set()  # what an earlier kill has left behind
    for number in range(KILLS):
        await crowd.come(40 if number == 0 else 8)
        gone = asyncio.create_task(crowd.go(8 if number else 0))
        await asyncio.sleep(crowd.moment(0.4))
        extender.process.kill()
        begun = await under_way(scene) - left
        hit += bool(begun)
        left |= begun
        extender.process.start()
        await asyncio.to_thread(extender.process.wait_until_ready)
        await gone
    assert hit, "none has met a bind"
    await all_is_well(scene)
    with capsys.disabled():
        print(f" {hit} of {KILLS} kills in the middle of a bind", end="")


async def test_kill_9_of_kube_scheduler_in_a_burst(scene: Scene, scheduler: Process) -> None:
    await add_nodes(scene)
    crowd = Crowd(scene, seed=10)
    for _ in range(4):
        await crowd.come(15)
        await asyncio.sleep(crowd.moment(0.6))
        scheduler.kill()
        await crowd.go(5)
        scheduler.start()
        await asyncio.to_thread(scheduler.wait_until_ready)
    await all_is_well(scene)


async def test_api_server_paused_for_10_seconds_in_a_burst(scene: Scene, stage: Stage) -> None:
    async with burst(scene, seed=11):
        stage.plane.apiserver.pause()
        await asyncio.sleep(10)
        stage.plane.apiserver.resume()


async def test_etcd_killed_and_started_again_in_a_burst(scene: Scene, stage: Stage) -> None:
    async with burst(scene, seed=12):
        stage.plane.etcd.kill()
        await asyncio.sleep(1)
        stage.plane.etcd.start()
        await asyncio.to_thread(stage.plane.etcd.wait_until_ready)
        await asyncio.to_thread(stage.plane.apiserver.wait_until_ready)


@asynccontextmanager
async def burst(scene: Scene, seed: int) -> AsyncIterator[None]:
    """Pods have just come; what is done meanwhile hits their binds. Others come and go afterwards, and all is well."""
    await add_nodes(scene)
    crowd = Crowd(scene, seed=seed)
    await crowd.come(30)
    await asyncio.sleep(0.4)
    yield
    await crowd.go(10)
    await crowd.come(20)
    await all_is_well(scene)
