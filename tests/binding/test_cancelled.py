"""The lead is lost in the middle of a pass: what was under way ends there, and nobody else's bind with it."""

import asyncio
from typing import Any

import pytest

from tests.binding.stage import World
from tests.builders import make_pod

#: Virtual seconds after which a bind hangs.
PATIENCE = 3600.0


class Gate:
    """A request of one kind that waits until it is let go."""

    def __init__(self, world: World, call: str, after: int = 1) -> None:
        self._reached = asyncio.Event()
        self._open = asyncio.Event()
        world.api.script[call, world.api.calls.count(call) + after, "before"] = self._wait

    async def _wait(self) -> None:
        self._reached.set()
        await self._open.wait()

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), PATIENCE)

    def open(self) -> None:
        self._open.set()


async def bound(world: World, name: str, mib: int) -> Any:
    pod = await world.pod(make_pod(name).gpu_memory(mib))
    assert await world.error(pod) == ""
    return pod


@pytest.fixture
async def world() -> World:
    """Two shared GPUs, one of which has been idle for so long that the next pass closes it."""
    made = World()
    await bound(made, "a", 600)
    await made.delete(await bound(made, "b", 600))
    await made.pass_by(50)
    made.process.now += 15
    return made


async def cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


async def test_a_bind_that_waits_for_the_next_put_goes_on(world: World) -> None:
    put = Gate(world, "put_config_map")
    leader = asyncio.create_task(world.process.reconciler.once())
    await put.reached()
    waiting = asyncio.create_task(world.error(await world.pod(make_pod("c").gpu_memory(300))))
    await asyncio.sleep(0.01)
    await cancel(leader)
    put.open()
    assert await asyncio.wait_for(waiting, PATIENCE) == ""


async def test_a_bind_in_the_same_put_goes_on(world: World) -> None:
    first, second = Gate(world, "put_config_map"), Gate(world, "put_config_map", 2)
    earlier = asyncio.create_task(world.error(await world.pod(make_pod("d").gpu_memory(100))))
    await first.reached()
    leader = asyncio.create_task(world.process.reconciler.once())
    await asyncio.sleep(0.01)
    with_it = asyncio.create_task(world.error(await world.pod(make_pod("c").gpu_memory(300))))
    await asyncio.sleep(0.01)
    first.open()
    await second.reached()
    await cancel(leader)
    second.open()
    assert await asyncio.wait_for(with_it, PATIENCE) == ""
    assert await asyncio.wait_for(earlier, PATIENCE) == ""


async def test_a_close_that_never_reached_the_api_leaves_the_gpu_open(world: World) -> None:
    patch = Gate(world, "patch_pod")
    leader = asyncio.create_task(world.process.reconciler.once())
    await patch.reached()
    await cancel(leader)
    world.api.script.clear()
    assert set(world.gpus().values()) == {"ready"}
    await bound(world, "e", 600)
