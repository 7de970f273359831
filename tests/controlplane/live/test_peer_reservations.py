"""What users of other GPU-sharing schedulers suffered, end to end: reservations, refused binds, who waits for whom."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.builders import make_node, make_pod
from tests.controlplane.kubelets import Started, report
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, inspected

A100 = 81920
#: Seconds for which pods that are refused for good are watched.
WATCHED: Final = 25


async def test_kai_1673_one_reservation_per_card_however_many_come_at_once(scene: Scene) -> None:
    """KAI#1673: a cached read and a direct create made duplicate reservation pods for one GPU."""
    for name in ("a", "b"):
        await scene.add(make_node(name).gpus(1, mib=A100))
    names = [f"p{i}" for i in range(24)]
    await scene.submit(*(make_pod(name).gpu_memory(A100 // 12) for name in names))
    await scene.run(*names)
    assert len(scene.opened) == 2
    assert scene.referee.violations() == []


async def test_kai_847_a_refused_bind_leaves_no_reservation(scene: Scene, extender: Served) -> None:
    """KAI#847: a bind that failed left reservations behind, and their cards with them."""
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    async with scene.refusing_bindings_of("refused"):
        await scene.submit(make_pod("refused").gpu_fraction("0.5").num_devices(2))
        await scene.until(lambda: scene.has_closed(2), PATIENCE, "what was opened for nothing is closed")
        await scene.delete("refused")
    await scene.until(lambda: scene.has_reservations(0), 90, "both cards must be given back")

    async def has_none_open() -> bool:
        return bool((await inspected(extender, node.name))["sharedGpus"] == [])

    await scene.until(has_none_open, PATIENCE, "to the extender they are still open")
    await scene.submit(make_pod("whole").gpus(2))
    await scene.run("whole")
    assert scene.referee.violations() == []


async def test_kai_2075_pods_that_are_refused_for_good_starve_nobody(scene: Scene, audit: Path) -> None:
    """KAI#2075: a bind that a webhook rejected won every cycle; the others never got a turn.

    There is room for all of them all the time: only the extender's wait keeps a refused pod from being tried again.
    """
    await scene.add(make_node("n").gpus(2, mib=A100))
    refused, since = [f"refused-{i}" for i in range(3)], length(audit)
    async with scene.refusing_bindings_of("refused"):
        await scene.submit(*(make_pod(name).gpu_fraction("0.25") for name in refused))
        await scene.until(lambda: were_tried(audit, since, refused), 60, "each must have been tried")
        began = time.monotonic()
        for turn in range(5):  # The cluster changes, so that kube-scheduler tries everybody again.
            await scene.submit(make_pod(f"p{turn}").gpu_fraction("0.2"))
            await scene.run(f"p{turn}", seconds=60)
            await asyncio.sleep(max(0.0, began + WATCHED / 5 * (turn + 1) - time.monotonic()))
        tries = bindings(audit, since)
        seconds = time.monotonic() - began
    # After 0, 10, 30, 70 s; and one more, for the first ones were tried before the last one.
    most = 2 + int(math.log2(max(seconds, 10) / 10 + 1))
    assert all(tries[name] <= most for name in refused), f"{tries} in {seconds:.0f} s"
    assert scene.referee.violations() == []


async def were_tried(audit: Path, since: int, pods: Sequence[str]) -> bool:
    """Whether a Binding was sent for each of them."""
    return bindings(audit, since).keys() >= set(pods)


def length(audit: Path) -> int:
    """Bytes of the log."""
    return audit.stat().st_size


def bindings(audit: Path, since: int) -> Counter[str]:
    """How many Bindings the extender has sent for each pod, by its name, from that length of the log on."""
    lines = audit.read_bytes()[since:].decode().splitlines()
    return Counter(json.loads(line)["objectRef"]["name"] for line in lines if '"subresource":"binding"' in line)


async def test_kai_848_no_reservation_on_a_full_node(scene: Scene, extender: Served) -> None:
    """KAI#848: the binder made reservation pods on a full node for hours."""
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    await scene.submit(make_pod("whole").gpus(2))
    await scene.run("whole")
    await scene.submit(make_pod("p").gpu_fraction("0.5"))
    await scene.stay_pending("p", seconds=1)
    for _ in range(5):
        assert await extender.bind(await scene.pod("p"), node.name) == "no shared GPU has room and none is free"
    assert scene.opened == {}


async def test_kai_611_one_stuck_reservation_blocks_nobody_else(scene: Scene) -> None:
    """KAI#611: one stuck pod blocked every fractional bind of the cluster."""
    stuck = await scene.add(make_node("stuck").gpus(1, mib=A100))
    good = await scene.add(make_node("good").gpus(1, mib=A100))

    async def silent_on_stuck(started: Started) -> None:
        if started.node != stuck.name:
            await report(started)

    scene.referee.agent = silent_on_stuck
    await scene.submit(make_pod("waits").gpu_fraction("0.5").spec(nodeSelector=hostname(stuck.name)))
    await scene.until(lambda: scene.has_opened(1), PATIENCE, "its reservation must have been asked for")
    pods = [make_pod(f"p{i}").gpu_fraction("0.25").spec(nodeSelector=hostname(good.name)) for i in range(4)]
    began = time.monotonic()
    await scene.submit(*pods)
    await scene.run("p0", "p1", "p2", "p3", seconds=7)
    assert time.monotonic() - began < 7, "not even for a bind-timeout"
    assert scene.referee.violations() == []


async def test_k8s_96579_a_bind_that_succeeded_may_be_repeated(scene: Scene, extender: Served) -> None:
    """k8s#96579: a bind succeeded, its answer was lost, and kube-scheduler bound again and again."""
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    other = await scene.add(make_node("m").gpus(1, mib=A100))
    await scene.submit(make_pod("p").gpu_fraction("0.5").spec(nodeSelector=hostname(node.name)))
    await scene.run("p")
    pod = await scene.pod("p")
    assert await extender.bind(pod, node.name) == ""
    assert "already bound" in await extender.bind(pod, other.name)
    assert (scene.cards(node), scene.cards(other)) == ([[A100 // 2]], [])
    assert len(scene.opened) == 1


async def test_hami_2923_a_deleted_pod_holds_nothing(scene: Scene) -> None:
    """HAMi#2923: a pod that was deleted still held all eight GPUs in memory."""
    node = await scene.add(make_node("n").gpus(8, mib=A100))
    for turn in range(3):
        name = f"train-{turn}"
        await scene.submit(make_pod(name).gpu_fraction("0.9").num_devices(8))
        await scene.run(name)
        assert len(scene.cards(node)) == 8
        await scene.delete(name)
    assert scene.referee.violations() == []


async def test_hami_1368_a_freed_share_is_given_out_within_5_seconds(scene: Scene) -> None:
    """HAMi#1368: a GPU was freed, and the pod that waited for it was tried again five minutes later."""
    await scene.add(make_node("n").gpus(1, mib=A100))
    await scene.submit(make_pod("old").gpu_fraction("0.9"))
    await scene.run("old")
    for turn in range(3):
        waiting = f"waiting-{turn}"
        await scene.submit(make_pod(waiting).gpu_fraction("0.9"))
        await scene.stay_pending(waiting, seconds=1)
        await scene.delete("old" if turn == 0 else f"waiting-{turn - 1}")
        await scene.run(waiting, seconds=5)
    assert scene.referee.violations() == []


def hostname(node: str) -> dict[str, Any]:
    """A nodeSelector for that node."""
    return {"kubernetes.io/hostname": node}
