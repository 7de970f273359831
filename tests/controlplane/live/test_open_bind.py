"""Somebody who may bind pods binds a share pod past the extender, with the policies in force: it ends without a device.

A policy sees the Binding and not the pod, so it lets a Binding without annotations pass. What the container sees then
was decided at the pod's creation.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from extender.core import names, notices
from tests.builders import make_node, make_pod
from tests.controlplane.client import Client
from tests.controlplane.in_force import wait_until_in_force
from tests.controlplane.judge import Kind
from tests.controlplane.policies import grant_everything_on_pods, refused
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served, Stage, inspected
from tests.controlplane.users import TENANT

BYPASSED: Final = r'gpu_extender_ledger_differences_total\{kind="bypassed"\}'


@pytest.fixture(scope="module")
def rights(stage: Stage) -> Iterator[None]:
    wait_until_in_force(stage.plane)
    grant_everything_on_pods(stage.plane, TENANT)
    yield
    stage.plane.kubectl("delete", "clusterrole", "everything-on-pods")


@pytest.fixture
async def binder(stage: Stage, rights: None) -> AsyncIterator[Client]:
    """Not one of ours, and no administrator."""
    async with Client(stage.plane, TENANT) as client:
        yield client


async def test_hami_3030_an_open_bind_ends_without_a_device_and_is_told(
    scene: Scene, extender: Served, binder: Client
) -> None:
    """The same without policies is in test_without_policies.py; there the pod has no such variable at all."""
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    await scene.submit(make_pod("honest").gpu_memory(6000))
    await scene.run("honest")
    before = await extender.metric(BYPASSED)
    await scene.submit(make_pod("past").gpu_memory(1000).spec(nodeSelector=BY_THE_TEST))
    pod = await scene.pod("past")
    with_a_place = {names.VISIBLE_DEVICES: next(iter(node.devices))}
    assert await refused(binder.bind(pod, node.name, with_a_place)) == (
        f"annotation {names.VISIBLE_DEVICES} is written by the GPU extender only"
    )
    await binder.bind(pod, node.name)
    await scene.run("past")
    assert scene.referee.running()["default/past"].environments["main"] == {"NVIDIA_VISIBLE_DEVICES": ""}
    await scene.until(lambda: scene.was_told("past", notices.BYPASSED), PATIENCE, "its user is not told")
    assert await extender.metric(BYPASSED) == before + 1
    assert "bypassed" in {found["kind"] for found in (await extender.get("/check"))["differences"]}
    [gpu] = (await inspected(extender, node.name))["sharedGpus"]
    assert [share["pod"] for share in gpu["shares"]] == ["honest"], "no share is counted for it"
    assert scene.cards(node) == [[6000]]
    assert {found.kind for found in scene.referee.violations()} == {Kind.UNPLACED}, "that is the open bind"
