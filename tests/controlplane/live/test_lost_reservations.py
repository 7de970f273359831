"""A reservation pod ends while shares run on its card: nobody else gets the card, and it is held again in the end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Final

import pytest

from extender.core import notices
from tests.builders import make_node, make_pod
from tests.controlplane.client import path_of
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.judge import Kind
from tests.controlplane.kubelets import Started, report
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, Stage, has_lost_a_card

A100 = 81920
#: As a node's drain: it asks nobody's leave but the disruption budgets'.
EVICTION: Final = {"apiVersion": "policy/v1", "kind": "Eviction"}
#: A card without its reservation is what these tests bring about; nothing else may follow from it.
BROUGHT_ABOUT: Final = [Kind.UNHELD]


@pytest.fixture
async def node(scene: Scene) -> AsyncIterator[GpuNode]:
    """Two cards; two shares run on one of them."""
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    await scene.submit(make_pod("a").gpu_fraction("0.3"), make_pod("b").gpu_fraction("0.3"))
    await scene.run("a", "b")
    assert len(scene.cards(node)) == 1
    yield node
    assert await scene.lost() == [], "running user pods are never deleted"
    assert scene.referee.violations(BROUGHT_ABOUT) == []


async def the_reservation(scene: Scene) -> dict[str, Any]:
    [found] = await scene.reservations()
    return found


async def has_failed(scene: Scene) -> bool:
    """A reservation pod has ended as Failed."""
    return any(pod["status"]["phase"] == "Failed" for pod in scene.opened.values())


async def two_want_a_card_each(scene: Scene) -> None:
    """There is one free card."""
    await scene.submit(make_pod("w1").gpus(1), make_pod("w2").gpus(1))


async def is_ending(scene: Scene) -> bool:
    return any(pod["metadata"].get("deletionTimestamp") for pod in await scene.reservations())


async def holds_until_it_is_empty(scene: Scene, node: GpuNode) -> None:
    """It was asked to end: it holds its card as long as shares run on it, takes no new one, and goes then."""
    await scene.until(lambda: is_ending(scene), PATIENCE, "its end was asked for")
    await two_want_a_card_each(scene)
    await scene.submit(make_pod("new").gpu_fraction("0.3"))
    await scene.until(lambda: scene.has_pending(2), PATIENCE, "one whole pod, or the share, finds the other card")
    await scene.stay_pending()
    assert scene.referee.violations() == [], "the agent ignores SIGTERM"
    assert [len(sizes) for sizes in scene.cards(node)].count(2) == 1, "what is going takes no new share"


async def test_deleted(scene: Scene, node: GpuNode) -> None:
    await scene.admin.delete(path_of(await the_reservation(scene)))
    await holds_until_it_is_empty(scene, node)
    await scene.delete("a", "b")
    await scene.all_that_fits_runs()


async def test_evicted(scene: Scene, node: GpuNode) -> None:
    reservation = await the_reservation(scene)
    name = {key: reservation["metadata"][key] for key in ("name", "namespace")}
    await scene.admin.post(f"{path_of(reservation)}/eviction", {**EVICTION, "metadata": name})
    await holds_until_it_is_empty(scene, node)


async def test_preempted(scene: Scene, node: GpuNode, stage: Stage) -> None:
    """A scheduler that does not know of us evicts it for a pod of the highest priority that users can have."""
    profile = {"profiles": [{"schedulerName": "other"}]}
    other = await asyncio.to_thread(stage.plane.start_scheduler, profile, "other-scheduler")
    try:
        await scene.submit(make_pod("vip").gpus(2).spec(schedulerName="other", priorityClassName="gpu-extender"))
        await scene.until(lambda: is_ending(scene), PATIENCE, "its end was asked for")
        await scene.stay_pending("vip")
        assert scene.referee.violations() == [], "the agent ignores SIGTERM"
        await scene.delete("a", "b")
        await scene.run("vip")
    finally:
        other.stop()


async def test_force_deleted(scene: Scene, node: GpuNode, extender: Served) -> None:
    """The object is gone at once, the agent ignores SIGTERM: kube-scheduler thinks that the card is free."""
    reservation = await the_reservation(scene)
    await scene.admin.delete(path_of(reservation), {"gracePeriodSeconds": 0})
    await scene.until(lambda: has_lost_a_card(extender, node.name), PATIENCE, "the node gives out nothing")
    await two_want_a_card_each(scene)
    await scene.stay_pending("w1", "w2")
    assert await scene.failed() == []
    assert scene.referee.violations() == []


async def test_deleted_now_the_card_is_given_to_nobody_and_held_again(
    scene: Scene, node: GpuNode, extender: Served
) -> None:
    """``kubectl delete --now``: its process is killed after a second, and the device plugin has the card back."""
    await scene.admin.delete(path_of(await the_reservation(scene)), {"gracePeriodSeconds": 1})
    await scene.until(lambda: has_lost_a_card(extender, node.name), PATIENCE, "the node gives out nothing")
    await two_want_a_card_each(scene)
    await are_told(scene, {"a": notices.LOST, "b": notices.LOST, node.name: notices.CLOSED})
    await scene.until(scene.is_well, 60, "the card is held by nobody")
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "one of two has the other card")
    await are_told(scene, {"a": notices.REPAIRED, "b": notices.REPAIRED, node.name: notices.REOPENED})
    await scene.submit(make_pod("c").gpu_fraction("0.3"))
    await scene.run("c")
    assert [len(sizes) for sizes in scene.cards(node)] == [3]


async def are_told(scene: Scene, reasons: Mapping[str, str]) -> None:
    """``kubectl describe`` shows it to whoever looks at these pods and nodes."""
    for name, reason in reasons.items():
        await scene.until(partial(scene.was_told, name, reason), 10, f"{name} shows no {reason}")


async def test_one_that_never_reports_is_given_up(scene: Scene, node: GpuNode) -> None:
    """The GPU behind it is broken, or its image is missing: the next one may do better."""
    silent = asyncio.Event()

    async def never_reports(_: Started) -> None:
        silent.set()

    scene.referee.agent = never_reports
    await scene.submit(make_pod("new").gpu_fraction("0.9"))
    await asyncio.wait_for(silent.wait(), PATIENCE)
    scene.referee.agent = report
    await scene.run("new", seconds=60)
    assert len(scene.opened) == 3, "the one of the shares, the silent one, and the next"
    assert scene.referee.violations() == []


async def test_an_idle_one_gives_its_card_back(scene: Scene, node: GpuNode) -> None:
    """Nobody waits for the card."""
    await scene.delete("a", "b")
    await scene.until(lambda: scene.has_reservations(0), 60, "it is closed when it was idle for a while")
    await scene.submit(make_pod("whole").gpus(2))
    await scene.run("whole")


async def test_one_that_the_kubelet_refuses_is_given_up(scene: Scene) -> None:
    """The device has failed and the Node does not say so yet."""
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    [device] = node.devices
    node.unhealthy.add(device)
    await scene.submit(make_pod("new").gpu_fraction("0.5"))
    await scene.until(lambda: has_failed(scene), PATIENCE, "the kubelet refuses it")
    node.unhealthy.clear()
    await scene.run("new", seconds=60)
    assert scene.referee.violations() == []
