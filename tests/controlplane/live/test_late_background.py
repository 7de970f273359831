"""The background work is cut short: the sender of a request gives up or is killed, and the request lands late.

Meanwhile somebody else acts. In tests/binding every request is tried in every way; here the dangerous ones, for real.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import pytest

from extender.core.accounting import RESERVATION_LOST
from extender.core.placement import REASON_TEXT
from extender.core.record import record_name
from tests.builders import make_node, make_pod
from tests.controlplane.client import path_of
from tests.controlplane.gate import Held
from tests.controlplane.gpu_node import RESERVATIONS, GpuNode
from tests.controlplane.judge import Kind
from tests.controlplane.live.pair import Pair, paired
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Stage, has_lost_a_card

pytestmark = pytest.mark.timeout(300)

A100 = 81920
#: Seconds.
IDLE: Final = 4
#: Longer than the extender waits for the answer to a request.
GIVEN_UP: Final = 7
KILLED, SILENT = "killed", "no answer"
#: For a moment no reservation pod holds the card of a share: the test has taken it away.
BROUGHT_ABOUT = [Kind.UNHELD]


@pytest.fixture
async def pair(stage: Stage) -> AsyncIterator[Pair]:
    async with paired(stage, IDLE) as pair:
        yield pair


async def cut_short(pair: Pair, held: Held, how: str) -> None:
    """The request is on its way, and nobody waits for its answer any more."""
    await held.arrived(PATIENCE)
    if how == KILLED:
        pair.leader.process.kill()
    else:
        await asyncio.sleep(GIVEN_UP)


def record_of(node: GpuNode) -> str:
    return f"/configmaps/{record_name(node.name)}"


@pytest.mark.parametrize("how", [KILLED, SILENT])
@pytest.mark.parametrize("step", ["the word on the pod", "closing in the record", "the deletion"])
async def test_a_close_of_an_idle_gpu(pair: Pair, step: str, how: str) -> None:
    """Whichever request of it comes late: a share that came meanwhile keeps its card, and the card is used again."""
    scene, gate = pair.scene, pair.gate
    node = await scene.add(make_node("n").gpus(1, mib=A100))
    await scene.submit(make_pod("first").gpu_fraction("0.5"))
    await scene.run("first")
    [reservation] = await scene.reservations()
    held = {
        "the word on the pod": gate.hold("PATCH", path_of(reservation)),
        "closing in the record": gate.hold("PUT", record_of(node)),
        "the deletion": gate.hold("DELETE", path_of(reservation)),
    }
    late = held.pop(step)
    for each in held.values():
        each.let_go()
    await scene.delete("first")
    await cut_short(pair, late, how)
    await scene.submit(make_pod("next").gpu_fraction("0.6"))
    await asyncio.sleep(1)  # It is bound now where the card takes it still.
    late.let_go()
    assert await late.answered(PATIENCE)
    await scene.run("next")
    await scene.submit(make_pod("beside").gpu_fraction("0.4"))
    await scene.run("beside")
    assert scene.cards(node) == [[A100 * 4 // 10, A100 * 6 // 10]]
    await is_in_order(scene, 1)


@pytest.mark.parametrize("how", [KILLED, SILENT])
@pytest.mark.parametrize("step", ["lost in the record", "the search", "found in the record"])
async def test_a_repair(pair: Pair, step: str, how: str) -> None:
    """Whichever request of it comes late: the card is given to nobody, and held again in the end, once."""
    scene, gate = pair.scene, pair.gate
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    await scene.submit(make_pod("share").gpu_fraction("0.5"))
    await scene.run("share")
    [reservation] = await scene.reservations()
    lost = gate.hold("PUT", record_of(node))
    search = gate.hold("POST", f"/namespaces/{RESERVATIONS}/pods")
    await scene.admin.delete(path_of(reservation), {"gracePeriodSeconds": 1})
    late = lost
    if step != "lost in the record":
        await lost.arrived(PATIENCE)
        lost.let_go()
        late = search
    if step == "found in the record":
        late = gate.hold("PUT", record_of(node))
        search.let_go()
    await cut_short(pair, late, how)
    search.let_go()
    await scene.submit(*(make_pod(f"whole-{i}").gpus(1) for i in range(2)))
    await asyncio.sleep(1)
    late.let_go()
    assert await late.answered(PATIENCE)
    await scene.until(scene.is_well, 120, "the card is held by nobody")
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "one of two has the other card")
    assert scene.cards(node) == [[A100 // 2]]
    await is_in_order(scene, 1)


async def test_a_repair_has_the_room_that_it_needs(pair: Pair) -> None:
    """Its reservation pod is still to come, and pods without GPUs would take its slot: they wait for the repair."""
    scene, gate = pair.scene, pair.gate
    node = await scene.add(make_node("n").gpus(1, mib=A100).pod_slots(3))
    await scene.submit(make_pod("share").gpu_fraction("0.5"))
    await scene.run("share")
    [reservation] = await scene.reservations()
    search = gate.hold("POST", f"/namespaces/{RESERVATIONS}/pods")
    await scene.admin.delete(path_of(reservation), {"gracePeriodSeconds": 1})
    await search.arrived(PATIENCE)
    await scene.until(
        lambda: has_lost_a_card(pair.other, node.name), PATIENCE, "whom kube-scheduler asks must know it, too"
    )
    await scene.submit(make_pod("one"), make_pod("two"))
    for name in ("one", "two"):
        told = partial(scene.is_told, name, REASON_TEXT[RESERVATION_LOST])
        await scene.until(told, PATIENCE, f"{name} is not told why it waits")
    search.let_go()
    await scene.until(scene.is_well, PATIENCE, "the card is held by nobody")
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "there is one slot more")
    await scene.delete("share")
    await scene.run("one", "two")
    await is_in_order(scene, 0)


async def is_in_order(scene: Scene, reservations: int) -> None:
    """Nobody's pod is gone, nothing was given out twice, and no reservation pod is left over."""
    await scene.until(lambda: scene.has_reservations(reservations), 90, "reservation pods are left over")
    assert scene.referee.violations(BROUGHT_ABOUT) == []
    assert await scene.lost() == []
