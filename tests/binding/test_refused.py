"""A bind that is refused for good waits, on that node, longer each time; and a bug leaves no room assumed."""

from typing import Any

import pytest

from extender.core.errors import Busy, Refused, Unavailable
from extender.core.placement import REASON_TEXT
from tests.binding.stage import CARD, GPUS, World
from tests.binding.world import violations
from tests.builders import PodBuilder, make_pod

WAITS = REASON_TEXT["BindRefused"]


def refuse_everything(world: World, name: str) -> None:
    """As an admission webhook that does not like one pod (KAI-Scheduler #2075)."""
    bind = world.cluster.bind_pod

    async def bind_others(binding: Any) -> None:
        if binding["metadata"]["name"] == name:
            raise Refused("403: the webhook says no")
        await bind(binding)

    world.cluster.bind_pod = bind_others  # type: ignore[method-assign]


@pytest.mark.parametrize("builder", [make_pod("bad").gpu_memory(400), make_pod("bad").gpus(1), make_pod("bad")])
async def test_each_refusal_doubles_the_wait(builder: PodBuilder) -> None:
    world = World()
    refuse_everything(world, "bad")
    pod = await world.pod(builder)
    times = []
    for second in range(100):
        world.process.now = float(second)
        answer = await world.error(pod)
        assert answer in (WAITS, "403: the webhook says no")
        times += [second] if answer != WAITS else []
    assert times == [0, 10, 30, 70]


async def test_others_are_bound_meanwhile_and_it_may_try_another_node() -> None:
    world = World()
    refuse_everything(world, "bad")
    bad, good = [await world.pod(make_pod(name).gpu_memory(CARD)) for name in ("bad", "good")]
    await world.error(bad)
    calls = len(world.api.calls)
    assert await world.error(bad) == WAITS
    assert len(world.api.calls) == calls, "it costs nothing"
    decisions = world.process.decisions
    assert decisions.filter(bad, ["n", "m"]).nodes == ["m"]
    assert decisions.prioritize(bad, ["n", "m"]) == {"n": 0, "m": 10}
    assert sorted(decisions.filter(good, ["n", "m"]).nodes) == ["m", "n"]
    assert decisions.filter(bad, ["n"]).unresolvable == {"n": WAITS}
    assert await world.error(good) == ""


async def test_an_api_server_that_is_busy_has_refused_nothing() -> None:
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.fail("bind_pod", 1, Busy("429"))
    assert await world.error(pod) == "429"
    assert await world.error(pod) == ""


async def test_a_success_ends_it() -> None:
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.fail("bind_pod", 1, Refused("422"))
    assert await world.error(pod) == "422"
    world.process.now = 10.0
    assert await world.error(pod) == ""
    assert not world.process.decisions.refused.waits(pod["metadata"]["uid"])


STEPS = ["get_pod", "create_pod", "list_pods", "create_config_map", "bind_pod"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", STEPS)
@pytest.mark.parametrize("builder", [make_pod("p").gpu_memory(600).num_devices(2), make_pod("p").gpus(2)])
async def test_a_bug_leaves_no_room_assumed(call: str, when: str, builder: PodBuilder) -> None:
    """An exception that nobody has thought of, at any request: the room comes back, or is held by what is bound."""
    world = World()
    pod = await world.pod(builder)
    world.api.fail(call, 1, KeyError("a bug"), when)
    if call in STEPS[1:4] and "nvidia.com/gpu" in str(pod["spec"]):
        await world.bind(pod)
        return
    with pytest.raises(KeyError):
        await world.bind(pod)
    bound = (call, when) == ("bind_pod", "after")
    await world.process.binder.settle()
    assert world.process.binder.oldest_assumed() == 0
    await world.pass_by(90)
    assert bool((await world.stored(pod))["spec"].get("nodeName")) == bound
    free = await world.pod(make_pod("w").gpus(GPUS))
    assert (await world.error(free) == "") == (not bound)
    assert violations(world.cluster, CARD, GPUS) == []


async def test_a_bug_after_the_binding_was_sent_frees_no_room() -> None:
    """It may land at any time until a fence comes through."""
    world = World()
    pod = await world.pod(make_pod("p").gpu_memory(CARD).num_devices(GPUS))
    world.api.faults["bind_pod", 1] = "late"
    fail = world.api._fail

    async def fail_by_a_bug(fault: str, request: Any) -> Any:
        try:
            await fail(fault, request)
        except Unavailable:
            raise KeyError("a bug") from None

    world.api._fail = fail_by_a_bug  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        await world.bind(pod)
    assert world.seen()["totals"]["usedMiB"] == CARD * GPUS
    await world.process.binder.settle()
    assert world.seen()["totals"]["usedMiB"] == 0
    await world.api.land_late_requests()
    assert world.account() == {}
