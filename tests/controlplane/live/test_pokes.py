"""Room becomes free, and kube-scheduler hears nothing of it: the pod that waits is told."""

import time

from tests.builders import make_node, make_pod
from tests.controlplane.client import path_of
from tests.controlplane.records import drop_entry, forge_entry
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served

A100 = 81920
POKE = "gpu-extender.io/poke"


async def filtered(extender: Served) -> float:
    """How often kube-scheduler has asked it where a pod fits."""
    return await extender.metric(r'gpu_extender_verb_results_total\{.*verb="filter".*\}')


async def test_hami_1368_room_that_a_dead_process_held_is_given_out_within_5_seconds(
    scene: Scene, extender: Served
) -> None:
    """HAMi#1368: a GPU was freed, and the pod that waited for it was tried again five minutes later.

    Only the node record changes, which kube-scheduler does not watch. It has tried the pod often, and just now.
    """
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    await scene.submit(make_pod("first").gpu_fraction("0.25"))
    await scene.run("first")
    await scene.submit(make_pod("dead").gpu_fraction("0.75").spec(nodeSelector=BY_THE_TEST))
    dead = await scene.pod("dead")
    await forge_entry(scene.admin, node, dead, A100 * 3 // 4)
    await scene.submit(make_pod("waiting").gpu_fraction("0.5"))
    for turn in range(4):
        # A new try each time: none is old enough yet for the extender to look into it.
        await forge_entry(scene.admin, node, dead, A100 * 3 // 4, f"dead-{turn}")
        before = await filtered(extender)
        turned = {"metadata": {"annotations": {"example.com/turn": str(turn)}}}
        waiting = await scene.admin.patch(path_of(await scene.pod("waiting")), turned)

        async def was_tried(before: float = before) -> bool:
            return await filtered(extender) > before

        await scene.until(was_tried, 60, "kube-scheduler must have tried it again")
        assert not waiting["spec"].get("nodeName")
    assert POKE not in (await scene.pod("waiting"))["metadata"]["annotations"], "nothing was freed yet"

    await drop_entry(scene.admin, node, dead)
    freed = time.monotonic()
    await scene.run("waiting", seconds=5)
    assert time.monotonic() - freed < 5
    assert POKE in (await scene.pod("waiting"))["metadata"]["annotations"]
    assert scene.cards(node) == [[A100 // 4, A100 // 2]]
    assert scene.referee.violations() == []
