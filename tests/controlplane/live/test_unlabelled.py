"""Nodes whose labels do not tell the memory of their GPUs, or tell it of one model only: they become usable by
themselves, and each card is used with the size that it has."""

from extender.core import names
from tests.builders import make_node, make_pod
from tests.controlplane.gpu_node import Device, GpuNode
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, inspected

SMALL, LARGE = 40_960, 81_920


async def tells(scene: Scene, node: str, told: str) -> bool:
    annotations = (await scene.admin.get(f"/api/v1/nodes/{node}"))["metadata"].get("annotations", {})
    return bool(annotations.get(names.REPORTED_MEMORY) == told)


async def counts_as(extender: Served, node: GpuNode, mib: int) -> bool:
    return bool((await inspected(extender, node.name))["memoryMiB"] == mib)


async def test_a_node_without_memory_labels_becomes_usable_by_itself(scene: Scene, extender: Served) -> None:
    devices = [Device("GPU-unlabelled-0", LARGE), Device("GPU-unlabelled-1", LARGE)]
    node = await scene.add(make_node("n").gpus(2, mib=None), devices)
    assert (await inspected(extender, node.name))["memoryMiB"] is None
    await scene.submit(*(make_pod(f"half-{number}").gpu_fraction("0.5") for number in range(5)))
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "four halves are two GPUs")
    await scene.all_that_fits_runs()
    assert scene.cards(node) == [[LARGE // 2] * 2] * 2
    await scene.until(lambda: counts_as(extender, node, LARGE), PATIENCE, "it does not count by what it has told")
    assert len(scene.opened) == 2, "the GPU that was asked is shared"
    assert scene.referee.violations() == []


async def test_the_cards_of_a_mixed_node_are_used_with_their_own_sizes(scene: Scene, extender: Served) -> None:
    """GPU feature discovery describes one of the two models. Halves of both cards, then what is left in MiB."""
    devices = [Device("GPU-mixed-small", SMALL), Device("GPU-mixed-large", LARGE)]
    node = await scene.add(make_node("n").gpus(1, mib=LARGE).resource(names.GPU_RESOURCE, 2), devices)
    await scene.submit(*(make_pod(f"half-{number}").gpu_fraction("0.5") for number in range(3)))
    await scene.run("half-0", "half-1", "half-2")
    await scene.submit(make_pod("rest").gpu_memory(SMALL // 2), make_pod("more").gpu_memory(SMALL // 2))
    await scene.all_that_fits_runs()
    halves = [pod for pod in node.admitted.values() if "half" in pod.name]
    assert all(2 * mib == node.devices[uuid].mib for pod in halves for uuid, mib in pod.shares)
    assert sorted(sum(sizes) for sizes in scene.cards(node)) == [SMALL, LARGE], "both are full"
    told = f"{node.boot_id}: GPU-mixed-large={LARGE} GPU-mixed-small={SMALL}"
    await scene.until(lambda: tells(scene, node.name, told), PATIENCE, "it is kept on the Node")
    await scene.until(lambda: counts_as(extender, node, SMALL), PATIENCE, "the smaller one counts")
    assert scene.referee.violations() == []


async def test_other_cards_after_a_reboot_are_learned_anew(scene: Scene, extender: Served) -> None:
    node = await scene.add(make_node("n").gpus(1, mib=None), [Device("GPU-before", LARGE)])
    await scene.submit(make_pod("before").gpu_fraction("0.5"))
    await scene.run("before")
    await scene.delete("before")
    await scene.until(lambda: scene.has_reservations(0), PATIENCE, "the idle GPU is closed")
    node.devices = {"GPU-after": Device("GPU-after", SMALL)}
    await scene.referee.reboot(node.name)
    await scene.submit(make_pod("after").gpu_fraction("0.5"))
    await scene.run("after")
    assert scene.cards(node) == [[SMALL // 2]]
    assert scene.referee.violations() == []
