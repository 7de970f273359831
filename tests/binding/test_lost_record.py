"""A node record that somebody has deleted: made anew from what the API has, after no older Binding can land."""

import pytest

from extender.core import names
from extender.core.errors import Unavailable
from extender.core.record import record_name
from tests.binding.stage import CARD, GPUS, World
from tests.binding.world import Process, violations
from tests.builders import make_pod


def delete_record(world: World, node: str = "n") -> None:
    """Watches do not show it."""
    del world.cluster._config_maps[names.RESERVATION_NAMESPACE, record_name(node)]


async def test_deleted_while_nothing_is_bound_and_a_binding_is_on_its_way() -> None:
    world = World()
    world.api.faults["bind_pod", 1] = "late"
    world.api.faults["patch_pod", 1] = "never"
    first = await world.pod(make_pod("first").gpu_memory(CARD).num_devices(GPUS))
    assert "nobody knows" in await world.error(first)
    late = world.api
    watching = Process(world.cluster)
    delete_record(world)
    world.process.die()
    world.process = watching
    world.ledger = watching.decisions.ledger
    second = await world.pod(make_pod("second").gpu_memory(CARD))
    await world.pass_by(30)  # The room of the deleted record's entries is held for a while.
    await world.error(second)
    await late.land_late_requests()
    assert violations(world.cluster, CARD, GPUS) == []
    assert list(world.account().values()) == [CARD]


async def test_made_anew_by_an_extender_whose_watch_is_late() -> None:
    """It has not heard of the pod that another one has bound a moment ago."""
    world = World()
    first = await world.pod(make_pod("first").gpu_memory(600))
    blind = Process(world.cluster)
    blind.die()
    await world.bind(first)
    for reservation in world.reservations():
        blind._watcher.pod(reservation)
    delete_record(world)
    second = await world.pod(make_pod("second").gpu_memory(600))
    await blind.bind(second, "n")
    assert violations(world.cluster, CARD, GPUS) == []
    entries = [(entry.pod, entry.mib) for entry in await world.entries()]
    assert ("default/first", 600) in entries or not entries


async def test_a_node_that_never_had_one_costs_no_fence() -> None:
    world = World()
    await world.bind(await world.pod(make_pod("p").gpu_memory(400)))
    assert "patch_pod" not in world.api.calls
    assert world.api.calls.count("list_pods") == 1
    await world.bind(await world.pod(make_pod("q").gpu_memory(400)))
    assert world.api.calls.count("list_pods") == 1


@pytest.mark.parametrize("call", ["list_pods", "patch_pod"])
async def test_it_is_not_made_while_anything_about_it_is_unknown(call: str) -> None:
    world = World()
    await world.bind(await world.pod(make_pod("first").gpu_memory(400)))
    waiting = await world.pod(make_pod("waiting").gpu_memory(400))
    delete_record(world)
    world.process = Process(world.cluster)
    world.ledger = world.process.decisions.ledger
    for which in range(1, 4):
        world.api.fail(call, which, Unavailable("no answer"))
    assert await world.error(waiting) == "no answer"
    assert await world.entries() == []
    world.api.script.clear()
    assert await world.error(waiting) == ""
    assert len(await world.entries()) == 2


async def test_a_binding_that_lands_while_the_record_is_made_anew() -> None:
    """After the first look at the node's pods, and before the fence."""
    world = World()
    await world.bind(await world.pod(make_pod("first").gpu_memory(300)))
    world.api.faults["bind_pod", 2] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert await world.error(pod) == "killed"
    dead = world.api
    delete_record(world)
    world.process = Process(world.cluster)
    world.process.die()  # Its watch shows nothing any more.
    world.ledger = world.process.decisions.ledger
    world.api.script["list_pods", 1, "after"] = dead.land_late_requests
    other = await world.pod(make_pod("other").gpu_memory(600))
    assert await world.error(other) == "the shared GPU no longer has room"
    assert violations(world.cluster, CARD, GPUS) == []
    assert list(world.account().values()) == [900]
