"""Nodes reboot, go, come back, and come back as others; pods are deleted by force. Nobody's memory is given away."""

import asyncio

import pytest

from extender.core.names import BOOT_ID
from tests.builders import make_node, make_pod
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.judge import Kind
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, inspected

A100 = 81920
#: For a moment no reservation pod holds the card of a share: after a reboot, and while a machine goes down.
BROUGHT_ABOUT = [Kind.UNHELD]


async def a_node_with_three_cards(scene: Scene) -> GpuNode:
    """Two shares on one card, one share on another, a third card free."""
    node = await scene.add(make_node("n").gpus(3, mib=A100))
    await scene.submit(*(make_pod(name).gpu_fraction("0.4") for name in ("a", "b")), make_pod("c").gpu_fraction("0.7"))
    await scene.run("a", "b", "c")
    return node


def devices_of(scene: Scene, *names: str) -> list[list[str]]:
    """UUIDs that each of these pods runs on."""
    running = scene.referee.running()
    return [[uuid for uuid, _ in running[f"default/{name}"].shares] for name in names]


async def is_closed(extender: Served, node: GpuNode) -> bool:
    return (await inspected(extender, node.name))["unusable"] is not None


async def test_gpushare_device_plugin_35_a_node_that_reboots(scene: Scene, extender: Served) -> None:
    """gpushare-device-plugin#35: after a reboot 18 of 11 GiB were allocated.

    The reservations are Failed then, the device plugin may give every card to anybody, and the shares run on their old
    ones: until each is held again nothing else gets a card of that node.
    """
    node = await a_node_with_three_cards(scene)
    boot, cards, devices = node.boot_id, scene.cards(node), devices_of(scene, "a", "b", "c")
    await scene.referee.reboot(node.name)
    await scene.until(lambda: is_closed(extender, node), PATIENCE, "the node gives out nothing")
    await scene.submit(*(make_pod(f"w{i}").gpus(1) for i in range(3)), make_pod("s").gpu_fraction("0.2"))
    await scene.run("a", "b", "c")
    assert devices_of(scene, "a", "b", "c") == devices
    assert [scene.referee.running()[f"default/{name}"].restarts for name in ("a", "b", "c")] == [1, 1, 1]
    await scene.until(scene.is_well, 60, "the cards are held by nobody")
    await scene.run("s")
    await scene.all_that_fits_runs()
    assert devices_of(scene, "a", "b", "c") == devices
    assert sum(map(sum, scene.cards(node))) == sum(map(sum, cards)) + A100 * 2 // 10
    boots = {pod["metadata"]["annotations"][BOOT_ID] for pod in await scene.reservations()}
    assert boots == {node.boot_id} != {boot}
    assert scene.referee.violations(BROUGHT_ABOUT) == []
    assert await scene.lost() == []


async def test_a_node_that_reboots_gives_nothing_away_meanwhile(scene: Scene, extender: Served) -> None:
    """Before anything is repaired."""
    node = await a_node_with_three_cards(scene)
    await scene.referee.reboot(node.name)
    await scene.until(lambda: is_closed(extender, node), PATIENCE, "the node gives out nothing")
    await scene.submit(*(make_pod(f"w{i}").gpus(2) for i in range(2)))
    await scene.stay_pending("w0", "w1")
    await scene.run("a", "b", "c")
    assert scene.referee.violations(BROUGHT_ABOUT) == []
    assert await scene.lost() == []


async def test_a_node_that_is_deleted_and_comes_back(scene: Scene) -> None:
    """Its UID is another, what runs there runs on."""
    node = await a_node_with_three_cards(scene)
    before = scene.cards(node)
    await scene.referee.recreate_node(node.name)
    await scene.run("a", "b", "c")
    assert scene.cards(node) == before
    await scene.submit(make_pod("whole").gpus(1), make_pod("d").gpu_fraction("0.3"), make_pod("none").gpus(1))
    await scene.run("d")
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "one card was free")
    assert scene.cards(node) == sorted([*before[:1], sorted([*before[1], A100 * 3 // 10])])
    assert scene.referee.violations() == []
    assert await scene.lost() == []


async def test_a_node_that_comes_back_with_other_cards(scene: Scene, extender: Served) -> None:
    """Re-imaged, or its cards exchanged: the old shares cannot start, and nothing is placed on what is gone."""
    node = await a_node_with_three_cards(scene)
    await scene.referee.reimage(node.name)
    await scene.until(lambda: is_closed(extender, node), PATIENCE, "the node gives out nothing")
    await scene.submit(make_pod("new").gpu_fraction("0.3"))
    await scene.stay_pending("new")
    assert scene.referee.violations() == []
    assert await scene.lost() == [], "their user decides"


async def test_a_node_with_other_cards_is_as_new_once_the_old_pods_are_gone(scene: Scene, extender: Served) -> None:
    node = await a_node_with_three_cards(scene)
    await scene.referee.reimage(node.name)
    await scene.until(lambda: is_closed(extender, node), PATIENCE, "the node gives out nothing")
    await scene.delete("a", "b", "c")
    await scene.submit(*(make_pod(f"new-{i}").gpu_fraction("0.6") for i in range(2)), make_pod("whole").gpus(1))
    await scene.run("new-0", "new-1", "whole", seconds=90)
    assert scene.referee.violations() == []


async def test_a_node_that_is_gone_for_good_takes_nothing_with_it(scene: Scene) -> None:
    node = await a_node_with_three_cards(scene)
    await scene.referee.remove_node(node.name)
    other = await scene.add(make_node("m").gpus(1, mib=A100))
    await scene.submit(make_pod("d").gpu_fraction("0.5"))
    await scene.run("d")
    assert len(scene.cards(other)) == 1
    assert await scene.lost() == []
    await scene.delete_by_force("a", "b", "c")
    assert scene.referee.violations(BROUGHT_ABOUT) == []


async def test_a_user_pod_deleted_by_force_runs_on_for_its_grace_period(scene: Scene) -> None:
    """The object is gone, its processes are not: the room is theirs until they must have ended."""
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    scene.referee.lingering = 4
    await scene.submit(make_pod("old").gpu_fraction("0.7").spec(terminationGracePeriodSeconds=4))
    await scene.run("old")
    await scene.submit(make_pod("new").gpu_fraction("0.7").spec(terminationGracePeriodSeconds=0))
    await scene.stay_pending("new", seconds=1)
    await scene.delete_by_force("old")
    await asyncio.sleep(1)
    assert "default/old" in scene.referee.running()
    await scene.run("new")
    assert scene.cards(node) == [[A100 * 7 // 10]]
    assert scene.referee.violations() == []


@pytest.mark.timeout(300)
async def test_user_pods_deleted_by_force_while_the_extender_is_killed(scene: Scene, extender: Served) -> None:
    """One a moment before, one while it is dead: whoever starts then has seen neither go, and both still run."""
    grace = 70  # A dead leader's Lease and 20 s more are over long before.
    nodes = [await scene.add(make_node(name).gpus(1, mib=A100)) for name in ("n", "m")]
    scene.referee.lingering = grace
    for name in ("before", "meanwhile"):
        await scene.submit(make_pod(name).gpu_fraction("0.7").spec(terminationGracePeriodSeconds=grace))
    await scene.run("before", "meanwhile")
    await scene.delete_by_force("before")
    await asyncio.sleep(1)
    extender.process.kill()
    await scene.delete_by_force("meanwhile")
    extender.process.start()
    await asyncio.to_thread(extender.process.wait_until_ready)
    following = [make_pod(name).gpu_fraction("0.7").spec(terminationGracePeriodSeconds=0) for name in ("one", "two")]
    await scene.submit(*following)
    await scene.stay_pending("one", "two")
    await scene.run("one", "two", seconds=180)
    assert [scene.cards(node) for node in nodes] == [[[A100 * 7 // 10]]] * 2
    assert scene.referee.violations() == []


async def test_a_user_pod_asked_to_end_keeps_its_room_until_it_has(scene: Scene) -> None:
    await scene.add(make_node("n").gpus(1, mib=A100))
    scene.referee.lingering = 3
    await scene.submit(make_pod("old").gpu_fraction("0.7"))
    await scene.run("old")
    await scene.submit(make_pod("new").gpu_fraction("0.7"))
    await scene.stay_pending("new", seconds=1)
    await scene.delete("old")
    await scene.run("new")
    assert scene.referee.violations() == []


async def test_a_user_pod_that_has_ended_frees_its_share(scene: Scene) -> None:
    """Its object stays, for its user to read."""
    await scene.add(make_node("n").gpus(1, mib=A100))
    await scene.submit(make_pod("old").gpu_fraction("0.7"))
    await scene.run("old")
    await scene.referee.complete("default/old")
    await scene.submit(make_pod("new").gpu_fraction("0.7"))
    await scene.run("new")
    assert scene.referee.violations() == []
