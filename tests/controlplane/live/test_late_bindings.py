"""Requests that are late, lost, or sent by a process that stood still: each placed exactly, by a gate before the API.

Here kube-scheduler places reservation pods only; the test itself asks extenders to bind.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from extender.core.record import record_name
from tests.builders import make_node, make_pod
from tests.controlplane.gate import Gate
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.process import PATIENCE, Process
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served, Stage

pytestmark = pytest.mark.usefixtures("any_scheduler")

Json = dict[str, Any]
A100 = 81920
#: Seconds: longer than the extender waits for an answer, and for the fence that follows.
GIVEN_UP: Final = 60


@dataclass(frozen=True, slots=True)
class Late:
    """Two extenders: one behind the gate, and the one that nobody disturbs."""

    scene: Scene
    gate: Gate
    slow: Served
    quick: Served
    node: GpuNode

    async def pod(self, name: str, fraction: str) -> Json:
        """Bound by nobody but the test."""
        await self.scene.submit(make_pod(name).gpu_fraction(fraction).spec(nodeSelector=BY_THE_TEST))
        return await self.scene.pod(name)

    async def is_bound(self, name: str) -> bool:
        return bool((await self.scene.pod(name))["spec"].get("nodeName"))


@pytest.fixture(autouse=True)
def mended(stage: Stage) -> Iterator[None]:
    yield
    for process in stage.plane.processes:
        process.resume()


@pytest.fixture
async def late(stage: Stage, extender: Served, scheduler: Process) -> AsyncIterator[Late]:
    """One node, one card, open already: a share of it runs."""
    async with Scene(stage) as scene, Gate(stage.plane) as gate:
        slow = await gate.start_extender(stage)
        node = await scene.add(make_node("n").gpus(1, mib=A100))
        late = Late(scene, gate, slow, extender, node)
        await scene.until(lambda: knows(slow, node), PATIENCE, "the slow one must know the node")
        assert await extender.bind(await late.pod("first", "0.25"), node.name) == ""
        await scene.run("first")
        yield late
        slow.process.kill()
        assert scene.referee.violations() == []


def record_of(node: GpuNode) -> str:
    """Not the Lease, which its holder writes as well."""
    return f"/configmaps/{record_name(node.name)}"


async def knows(extender: Served, node: GpuNode) -> bool:
    return node.name in {found["name"] for found in (await extender.get("/inspect"))["nodes"]}


async def test_a_binding_that_comes_after_its_sender_gave_up_is_dead(late: Late) -> None:
    """The fence has moved the pod's version: the room was given to another, and the late Binding is refused."""
    pod = await late.pod("pod", "0.75")
    held = late.gate.hold("POST", "/pod/binding")
    told = asyncio.create_task(late.slow.bind(pod, late.node.name))
    await held.arrived(PATIENCE)
    assert "not taken effect" in await asyncio.wait_for(told, GIVEN_UP)
    assert await late.quick.bind(await late.pod("other", "0.75"), late.node.name) == ""
    held.let_go()
    assert await held.answered(PATIENCE) == 409
    assert not await late.is_bound("pod")
    await late.scene.run("first", "other")


async def test_a_binding_that_lands_after_its_sender_gave_up_keeps_its_room(late: Late, stage: Stage) -> None:
    """etcd stands still: the Binding is not answered, the fence is held up, nobody knows. Then the Binding lands."""
    pod, other = await late.pod("pod", "0.75"), await late.pod("other", "0.75")
    held, fence = late.gate.hold("POST", "/pod/binding"), late.gate.hold("PATCH", "/pods/pod")
    told = asyncio.create_task(late.slow.bind(pod, late.node.name))
    await held.arrived(PATIENCE)
    stage.plane.etcd.pause()
    held.let_go()
    assert "nobody knows" in await asyncio.wait_for(told, GIVEN_UP)
    await fence.arrived(PATIENCE)
    with late.gate.no_news():
        stage.plane.etcd.resume()
        await asyncio.to_thread(stage.plane.apiserver.wait_until_ready)
        assert await held.answered(90) == 201
        assert await late.is_bound("pod")
        # The sender has seen nothing of that: it keeps the room for it may have landed.
        assert await late.slow.bind(other, late.node.name) != ""
        assert await late.quick.bind(other, late.node.name) != ""
    assert await late.slow.bind(pod, late.node.name) == ""
    await late.scene.run("first", "pod")
    assert late.scene.cards(late.node) == [[A100 // 4, A100 * 3 // 4]]
    for extender in (late.quick, late.slow):
        await late.scene.until(extender.is_in_step, PATIENCE, "what it has and what there is differ")


async def test_an_extender_that_stood_still_between_put_and_binding_is_too_late(late: Late) -> None:
    """Another one has taken the pod over meanwhile."""
    other = await late.scene.add(make_node("other").gpus(1, mib=A100))
    await late.scene.until(lambda: knows(late.quick, other), PATIENCE, "the quick one must know the node")
    pod = await late.pod("pod", "0.75")
    held = late.gate.hold("PUT", record_of(late.node))
    told = asyncio.create_task(late.slow.bind(pod, late.node.name))
    await held.arrived(PATIENCE)
    late.slow.process.pause()
    held.let_go()
    assert await held.answered(PATIENCE) == 200
    assert await late.quick.bind(pod, other.name) == ""
    await late.scene.run("pod")
    late.slow.process.resume()
    assert await asyncio.wait_for(told, GIVEN_UP) != ""
    assert late.scene.cards(other) == [[A100 * 3 // 4]]
    # What the late one wrote down there holds nothing.
    assert await late.quick.bind(await late.pod("next", "0.75"), late.node.name) == ""
    await late.scene.run("next")


async def test_a_process_killed_with_its_binding_on_the_way(late: Late) -> None:
    """The next one fences before it binds the pod anew: the Binding of the dead one comes too late."""
    pod = await late.pod("pod", "0.75")
    held = late.gate.hold("POST", "/pod/binding")
    told = asyncio.create_task(late.slow.bind(pod, late.node.name))
    await held.arrived(PATIENCE)
    late.slow.process.kill()
    await asyncio.gather(told, return_exceptions=True)
    assert await late.quick.bind(pod, late.node.name) == ""
    held.let_go()
    assert await held.answered(PATIENCE) == 409
    await late.scene.run("first", "pod")
    assert late.scene.cards(late.node) == [[A100 // 4, A100 * 3 // 4]]


async def test_a_put_that_lands_after_its_sender_gave_up_only_holds_room(late: Late) -> None:
    """No Binding was ever sent for it. The pod's next bind takes its place."""
    pod = await late.pod("pod", "0.75")
    held = late.gate.hold("PUT", record_of(late.node))
    told = asyncio.create_task(late.slow.bind(pod, late.node.name))
    await held.arrived(PATIENCE)
    assert await asyncio.wait_for(told, GIVEN_UP) != ""
    held.let_go()
    assert await held.answered(PATIENCE) == 200
    assert await late.quick.bind(await late.pod("other", "0.75"), late.node.name) != "", "the record is full"
    assert await late.slow.bind(pod, late.node.name) == ""
    await late.scene.run("first", "pod")


async def test_two_extenders_that_both_see_the_last_room(late: Late) -> None:
    """Both have chosen it; whoever writes it down first has it."""
    late.slow.process.pause()
    pods = [await late.pod(name, "0.5") for name in ("one", "two")]
    told = asyncio.create_task(late.slow.bind(pods[0], late.node.name))
    held = late.gate.hold("PUT", record_of(late.node))
    late.slow.process.resume()
    await held.arrived(PATIENCE)
    assert await late.quick.bind(pods[1], late.node.name) == ""
    held.let_go()
    assert await held.answered(PATIENCE) == 409
    assert await asyncio.wait_for(told, GIVEN_UP) != ""
    await late.scene.run("first", "two")
    assert late.scene.cards(late.node) == [[A100 // 4, A100 // 2]]
