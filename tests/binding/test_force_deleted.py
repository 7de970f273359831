"""A pod that somebody takes away while it runs counts until its own grace period is over."""

import asyncio
from itertools import count
from typing import Any

import pytest

from extender.core.errors import Unavailable
from tests.binding.stage import CARD, GpuCluster, World
from tests.builders import make_pod

RUNNING = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}


async def take_away(world: World, pod: Any, *, force: bool) -> None:
    """DELETED as the API server sends it: with a grace period of 0 where somebody has forced it."""
    metadata = pod["metadata"]
    patch = {"metadata": {"deletionGracePeriodSeconds": 0 if force else 30}, "status": RUNNING}
    await world.cluster.patch_pod(metadata["namespace"], metadata["name"], patch)
    await world.delete(pod)


@pytest.mark.parametrize("force", [True, False])
async def test_its_room_is_held_for_its_grace_period(force: bool) -> None:
    world = World()
    shared, whole = make_pod("p").gpu_memory(CARD).num_devices(2), make_pod("w").gpus(2)
    for builder, node in ((shared, "n"), (whole, "m")):
        builder.spec(terminationGracePeriodSeconds=45)
        pod = await world.pod(builder)
        await world.bind(pod, node)
        await take_away(world, pod, force=force)
    next_share, next_whole = await world.pod(make_pod("q").gpu_memory(1)), await world.pod(make_pod("v").gpus(1))
    assert bool(await world.error(next_share)) == force
    assert bool(await world.error(next_whole, "m")) == force
    await asyncio.sleep(44)
    assert bool(await world.error(next_whole, "m")) == force
    await asyncio.sleep(2)
    assert await world.error(next_share) == ""
    assert await world.error(next_whole, "m") == ""


async def test_no_bind_leaves_its_entry_out_meanwhile() -> None:
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(600))
    await world.bind(pod)
    await take_away(world, pod, force=True)
    await world.bind(await world.pod(make_pod("q").gpu_memory(400)))
    assert sorted(entry.pod for entry in await world.entries()) == ["default/p", "default/q"]
    await world.pass_by(40)
    assert len(await world.entries()) == 2
    await asyncio.sleep(31)
    await world.bind(await world.pod(make_pod("r").gpu_memory(600)))
    assert sorted(entry.pod for entry in await world.entries()) == ["default/q", "default/r"]


async def test_one_that_goes_before_anybody_knows_that_it_was_bound() -> None:
    """The Binding has landed, its answer is lost, and the fence finds no pod: its processes run all the same."""
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(600).spec(terminationGracePeriodSeconds=45))
    world.api.faults["bind_pod", 1] = "lost"
    world.api.script["patch_pod", 1, "before"] = lambda: take_away(world, pod, force=True)
    assert "nobody knows" in await world.error(pod)
    both = await world.pod(make_pod("r").gpu_memory(500).num_devices(2))
    await asyncio.sleep(44)
    assert await world.error(both)
    await asyncio.sleep(2)
    await world.bind(both)
    await world.process.binder.settle()
    assert world.process.binder.oldest_assumed() == 0


async def test_what_nobody_saw_go_is_given_up_in_the_end() -> None:
    """The watch never shows how a pod went whose bind has had no answer."""
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(600))

    async def go_unseen() -> None:
        world.process.die()  # Its watch, that is: the bind goes on.
        await world.delete(pod)

    world.api.faults["bind_pod", 1] = "never"
    world.api.script["patch_pod", 1, "before"] = go_unseen
    assert "nobody knows" in await world.error(pod)
    await asyncio.sleep(29)
    await world.process.binder.settle()
    assert world.process.binder.is_open(pod["metadata"]["uid"])
    await asyncio.sleep(2)
    await world.process.binder.settle()
    assert not world.process.binder.is_open(pod["metadata"]["uid"])
    assert await world.entries() == []


async def test_the_grace_period_begins_when_it_is_heard_of_not_with_the_pass_that_hears_it() -> None:
    """An API server that answers nothing for 35 s, a Binding that lands meanwhile, and a watch that stands still."""
    world = World(GpuCluster(8))
    for _ in range(7):
        await world.process.reservations.search("m", "x")
    world.api.faults["bind_pod", 1] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(CARD).num_devices(2))
    assert await world.error(pod) == "killed"
    dead = world.api
    world.restart()
    await world.pass_by(15)
    world.process.now += 50  # Seven GPUs are to be closed.
    world.process.sees_no_more()
    closes = count(1)

    async def no_answer() -> None:
        world.process.now += 5
        if next(closes) == 7:
            await dead.land_late_requests()
            await take_away(world, pod, force=True)
        raise Unavailable("no answer in time")

    first = world.api.calls.count("patch_pod") + 1
    for close in range(7):
        world.api.script["patch_pod", first + close, "before"] = no_answer
    await world.process.reconciler.once()
    for _ in range(2):
        world.process.now += 14
        await world.process.reconciler.once()
        assert len(await world.entries()) == 2
    world.process.now += 3
    await world.process.reconciler.once()
    assert await world.entries() == []
