"""Nodes whose labels do not tell the memory of their GPUs: they are asked, and their GPUs are used as they are."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from extender.binding.reports import FIRST
from extender.core import names
from extender.core.device_report import Problem, health
from extender.core.errors import Refused
from tests.binding.stage import GpuCluster, World
from tests.binding.world import FAULTS, Process
from tests.builders import make_pod

SMALL, LARGE = "GPU-n-0", "GPU-n-1"
SIZES = {SMALL: 400, LARGE: 1000}


@pytest.fixture
def world() -> Iterator[World]:
    made = unlabelled()
    yield made
    made.ledger.check()
    used, sizes = made.account(), made.cluster.sizes
    assert {device: mib for device, mib in used.items() if mib > sizes[device]} == {}


def unlabelled(*nodes: str) -> World:
    """One node with a small and a large GPU, or several with GPUs of the same sizes."""
    cluster = GpuCluster(2, *(nodes or ("n",)), mib=None)
    cluster.sizes = {
        device: size
        for node in nodes or ("n",)
        for device, size in zip(cluster.devices(node), SIZES.values(), strict=True)
    }
    return World(cluster)


async def wait_for_share(world: World, **annotations: Any) -> Any:
    """A pod that kube-scheduler could not place."""
    pod = await world.pod(make_pod("waits").gpu_fraction("0.5"))
    world.process.waiting.append(pod)
    return pod


async def ask(world: World, first: str = SMALL) -> None:
    """The node has told of this device; nobody waits any more."""
    world.cluster.order["n"] = [first]
    pod = await wait_for_share(world)
    await world.pass_by(5)
    await world.delete(pod)
    world.process.waiting.clear()


def written(world: World, node: str = "n") -> str:
    return str(world.cluster.nodes[node]["metadata"]["annotations"].get(names.REPORTED_MEMORY, ""))


def told(world: World, node: str = "n") -> str:
    return written(world, node).partition(": ")[2]


# --- asking -------------------------------------------------------------------------------------------------


async def test_a_node_becomes_usable_once_a_share_waits(world: World) -> None:
    await world.pass_by(30)
    assert world.api.calls == [], "nobody wants a share"
    pod = await wait_for_share(world)
    assert "memory is unknown" in await world.error(pod)
    await world.pass_by(5)
    assert await world.error(pod) == ""
    assert world.account() == {SMALL: 200}
    assert len(world.reservation_pods()) == 1, "the GPU that was asked is the one that is shared"
    assert told(world) == f"{SMALL}=400"
    assert world.kinds() == ["MemoryReported"]


async def test_what_is_known_is_not_written_again(world: World) -> None:
    await ask(world)
    calls = len(world.api.calls)
    await world.pass_by(20)
    assert world.api.calls[calls:] == []


async def test_a_pod_that_waits_for_whole_gpus_comes_first(world: World) -> None:
    await wait_for_share(world)
    world.process.waiting.append(await world.pod(make_pod("whole").gpus(2)))
    await world.pass_by(20)
    assert world.reservation_pods() == []


async def test_only_some_nodes_are_asked_at_once() -> None:
    world = unlabelled(*"abcdefg")
    world.cluster.fate = "silent"
    await wait_for_share(world)
    await world.pass_by(30)
    assert len(world.reservation_pods()) == 4
    world.cluster.fate = "report"
    for pod in world.reservations():
        device = world.cluster.held[pod["metadata"]["name"]]
        node = world.cluster.nodes[pod["spec"]["nodeName"]]
        await world.cluster.annotate(
            pod,
            {names.DEVICE: device, names.DEVICE_MEMORY_MIB: "400", names.BOOT_ID: node["status"]["nodeInfo"]["bootID"]},
        )
    await world.pass_by(10)
    assert len(world.reservation_pods()) == 7


async def test_a_node_that_refuses_keeps_no_other_from_being_asked() -> None:
    world = unlabelled("a", "b")
    world.api.fail("create_pod", 1, Refused("quota"))
    await wait_for_share(world)
    await world.pass_by(10)
    assert [told(world, node) for node in "ab"] == ["", "GPU-b-0=400"]
    assert world.api.calls.count("create_pod") == 2


async def test_it_can_be_turned_off(world: World) -> None:
    world.process.reconciler._reports._at_once = 0
    await wait_for_share(world)
    await world.pass_by(20)
    assert world.reservation_pods() == []


async def test_a_gpu_that_reports_nothing_is_left_alone_for_long(world: World) -> None:
    world.cluster.fate = "silent"
    await wait_for_share(world)
    await world.pass_by(130)
    assert world.reservation_pods() == []
    opened = world.api.calls.count("create_pod")
    await world.pass_by(FIRST - 150)
    assert world.api.calls.count("create_pod") == opened
    world.cluster.fate = "report"
    await asyncio.sleep(30)  # The node opens GPUs again.
    await world.pass_by(40)
    assert told(world) == f"{SMALL}=400"


async def test_a_device_that_has_no_memory_to_tell_is_asked_once_in_a_boot(world: World) -> None:
    world.cluster.fate = "silent"
    await wait_for_share(world)
    await world.pass_by(0)
    [pod] = world.reservations()
    await world.cluster.annotate(pod, {names.DEVICE_HEALTH: health(Problem.MEMORY_UNKNOWN, "as on GB10")})
    await world.pass_by(5)
    assert names.REPORTED_MEMORY in world.cluster.nodes["n"]["metadata"]["annotations"]
    assert world.reservation_pods() == [], "it is for whole-GPU pods again"
    opened = world.api.calls.count("create_pod")
    await world.pass_by(2 * FIRST, step=20)
    assert world.api.calls.count("create_pod") == opened
    world.cluster.fate = "report"
    world.cluster.reboot("n", "another boot")
    await asyncio.sleep(30)
    await world.pass_by(5)
    assert told(world) == f"{SMALL}=400"


async def test_after_a_reboot_it_is_learned_anew(world: World) -> None:
    await ask(world)
    await world.pass_by(70)
    assert world.reservation_pods() == []
    world.cluster.reboot("n", "another boot")
    world.cluster.sizes[SMALL] = 300
    pod = await world.pod(make_pod("p").gpu_fraction("0.5"))
    assert "memory is unknown" in await world.error(pod)
    world.process.waiting.append(pod)
    await world.pass_by(5)
    assert await world.error(pod) == ""
    assert world.account() == {SMALL: 150}


async def test_what_survives_a_reboot_tells_once_it_has_started_again(world: World) -> None:
    await ask(world)
    await world.bind(await world.pod(make_pod("p").gpu_memory(100)))
    [pod] = world.reservations()
    world.cluster.reboot("n", "boot-2")
    await world.pass_by(5)
    assert not written(world).startswith("boot-2"), "its report is of another boot"
    changed = {names.BOOT_ID: "boot-2", names.DEVICE_HEALTH: health(Problem.MEMORY_CHANGED, "reported 400, has 300")}
    await world.cluster.annotate(pod, dict(changed))
    await world.pass_by(5)
    assert not written(world).startswith("boot-2"), "it is no longer true"
    await world.cluster.annotate(pod, {names.DEVICE_HEALTH: None})
    await world.pass_by(5)
    assert written(world) == f"boot-2: {SMALL}=400"


# --- GPUs that differ ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [SMALL, LARGE])
async def test_each_gpu_is_used_with_its_own_size(world: World, first: str) -> None:
    await ask(world, first)
    for number in range(4):
        pod = await world.pod(make_pod(f"half-{number}").gpu_fraction("0.5"))
        assert await world.error(pod) == ""
        await world.pass_by(0)
    assert world.account() == SIZES
    assert told(world) == f"{SMALL}=400 {LARGE}=1000"
    assert "no shared GPU has room" in await world.error(await world.pod(make_pod("more").gpu_fraction("0.1")))


async def test_a_gpu_that_is_smaller_than_expected_takes_no_more_than_it_has(world: World) -> None:
    """The large one was asked, so a new one counts like it; two pods wait for one that turns out to be small."""
    await ask(world, LARGE)
    await world.bind(await world.pod(make_pod("first").gpu_memory(1000)))
    world.cluster.fate = "silent"
    pods = [await world.pod(make_pod(name).gpu_memory(300)) for name in "ab"]
    assert all("not reported" in answer for answer in [await world.error(pod) for pod in pods])
    [pod] = [pod for pod in world.reservations() if names.DEVICE not in pod["metadata"]["annotations"]]
    boot = world.cluster.nodes["n"]["status"]["nodeInfo"]["bootID"]
    report = {names.DEVICE: SMALL, names.DEVICE_MEMORY_MIB: "400", names.BOOT_ID: boot}
    binds = [asyncio.ensure_future(world.error(each)) for each in pods]
    await asyncio.sleep(1)
    await world.cluster.annotate(pod, dict(report))
    answers = await asyncio.gather(*binds)
    assert sorted(bool(answer) for answer in answers) == [False, True]
    assert world.account() == {LARGE: 1000, SMALL: 300}


async def test_a_large_share_finds_the_large_gpu_once_it_is_open(world: World) -> None:
    await ask(world, LARGE)
    await world.bind(await world.pod(make_pod("a").gpu_memory(100)))
    other = await world.pod(make_pod("b").gpu_memory(950))
    answer = await world.error(other)
    assert answer, "the GPU that was opened for it is the small one"
    await world.pass_by(0)
    assert told(world) == f"{SMALL}=400 {LARGE}=1000"
    assert await world.error(await world.pod(make_pod("c").gpu_memory(900))) == ""
    assert world.account() == {LARGE: 1000}


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["create_pod", "patch_node"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_step_that_fails_is_done_again(world: World, call: str, fault: str) -> None:
    world.api.faults[call, 1] = fault
    await wait_for_share(world)
    if not (await world.process.reconcile() and await world.process.reconcile()):
        world.restart()
        world.process.waiting.extend(pod for pod in world.cluster.pods() if pod["metadata"]["name"] == "waits")
    await world.pass_by(5)
    await world.api.land_late_requests()
    await world.pass_by(FIRST + 30, step=10)
    assert told(world).startswith(f"{SMALL}=400")
    pod = await world.pod(make_pod("p").gpu_fraction("0.5"))
    assert await world.error(pod) == ""


async def test_a_node_that_may_not_be_written_is_told_once(world: World) -> None:
    for number in (1, 2, 3):
        world.api.fail("patch_node", number, Refused("403: nodes is forbidden"))
    await wait_for_share(world)
    await world.pass_by(5, step=1)
    assert world.api.calls.count("patch_node") > 3
    assert world.kinds().count("MemoryNotKept") == 1
    assert world.kinds()[-1] == "MemoryReported", "it is tried again all the same"


async def test_two_that_ask_at_once_agree(world: World) -> None:
    pod = await wait_for_share(world)
    other = Process(world.cluster)
    other.waiting.append(pod)

    async def other_asks() -> None:
        assert await other.reconcile()

    world.api.script["create_pod", 1, "before"] = other_asks
    await world.pass_by(5)
    await other.reconcile()
    assert set(told(world).split()) == {f"{SMALL}=400", f"{LARGE}=1000"}
    assert await world.error(pod) == ""


async def test_a_node_that_was_made_anew_is_not_told_of_the_former_one(world: World) -> None:
    """The patch names the Node's UID."""

    async def made_anew() -> None:
        world.cluster.nodes["n"]["metadata"]["uid"] = "another"

    world.api.script["patch_node", 1, "before"] = made_anew
    await wait_for_share(world)
    await world.pass_by(5)
    assert told(world) == ""
