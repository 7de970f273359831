"""Whether a request fits a node, which devices it gets, and why not."""

from typing import Any

import pytest

from extender.core import names
from extender.core.accounting import derive
from extender.core.nodereader import read_nodes
from extender.core.placement import REASON_TEXT, Placement, Shortfall, Verdict, fit, with_placement
from extender.core.requests import GpuRequest
from extender.core.values import NodeState, PodOnNode, Reservation, ShareOnGpu
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod

CARD = 1000
SLICE = "nvidia.com/mig-1g.10gb"


def state(*used: int, gpus: int = 4, whole: int = 0, node: NodeBuilder | None = None) -> NodeState:
    """A node with shared GPUs ``g0``, ``g1``, … of which so many MiB are used, and whole GPUs held."""
    [made] = read_nodes([(node or make_node("n").gpus(gpus, mib=CARD)).build()])
    pods = [PodOnNode("w", "d", "w", "n", {names.GPU_RESOURCE: whole})] if whole else []
    pods += [
        PodOnNode(f"p{i}", "d", f"p{i}", "n", {}, (ShareOnGpu(f"g{i}", f"G{i}", mib),))
        for i, mib in enumerate(used)
        if mib
    ]
    held = [Reservation(f"g{i}", "n", f"u{i}", f"G{i}", CARD) for i in range(len(used))]
    return derive(made, pods, held)


def request(pod: PodBuilder) -> GpuRequest:
    made = GpuRequest.from_pod(pod.build())
    assert isinstance(made, GpuRequest)
    return made


def fits(state: NodeState, pod: PodBuilder) -> Verdict:
    return fit(state, request(pod))


def placed(verdict: Verdict) -> tuple[list[str], int, tuple[int, ...], int]:
    assert isinstance(verdict, Placement)
    return [gpu.id for gpu in verdict.on], verdict.new, verdict.mib, verdict.whole


def test_the_tightest_gpu_that_has_room() -> None:
    assert placed(fits(state(100, 700, 400), make_pod().gpu_memory(300))) == (["g1"], 0, (300,), 0)
    assert placed(fits(state(100, 701, 400), make_pod().gpu_memory(300))) == (["g2"], 0, (300,), 0)


def test_a_new_gpu_only_where_no_shared_one_fits() -> None:
    assert placed(fits(state(800), make_pod().gpu_memory(200))) == (["g0"], 0, (200,), 0)
    assert placed(fits(state(800), make_pod().gpu_memory(201))) == ([], 1, (201,), 0)


def test_several_devices_are_different_gpus() -> None:
    pod = make_pod().gpu_memory(300).num_devices(3)
    assert placed(fits(state(500, 900), pod)) == (["g0"], 2, (300, 300, 300), 0)
    assert placed(fits(state(0, 100, 200), pod)) == (["g2", "g1", "g0"], 0, (300, 300, 300), 0)
    full = fits(state(500, 900, gpus=3), pod)
    assert isinstance(full, Shortfall)
    assert (full.reason, full.asked, full.largest, full.resolvable) == ("GpuMemory", 900, CARD, True)


def test_the_whole_card_is_a_share_too() -> None:
    assert placed(fits(state(), make_pod().gpu_memory(CARD))) == ([], 1, (CARD,), 0)


def test_whole_gpus() -> None:
    assert placed(fits(state(100, whole=1), make_pod().gpus(2))) == ([], 0, (), 2)
    short = fits(state(100, whole=1), make_pod().gpus(3))
    assert isinstance(short, Shortfall)
    assert (short.reason, short.asked, short.free, short.resolvable) == ("WholeGpus", 3, 2, True)


def test_no_gpu_asked_for() -> None:
    assert fits(state(), make_pod()) == Placement()
    assert fits(state(node=make_node("n")), make_pod()) == Placement()


CASES = [
    (make_node("n"), make_pod().gpu_memory(1), "NoGpu"),
    (make_node("n"), make_pod().gpus(1), "GpuCount"),
    (make_node("n").gpus(2, mib=CARD), make_pod().gpu_memory(CARD + 1), "GpuTooSmall"),
    (make_node("n").gpus(2, mib=CARD), make_pod().gpu_memory(1).num_devices(3), "GpuCount"),
    (make_node("n").gpus(2, mib=CARD), make_pod().gpus(3), "GpuCount"),
    (make_node("n").gpus(2, mib=None), make_pod().gpu_fraction("0.5"), "MemoryUnknown"),
    (make_node("n").gpus(2, mib=CARD).not_ready(), make_pod().gpus(1), "NotReady"),
    (make_node("n").gpus(2, mib=CARD).cordoned(), make_pod().gpu_memory(1), "Cordoned"),
    (make_node("n").gpus(2, mib=CARD), make_pod().gpus(1, "nvidia.com/mig-1g.10gb"), "UnitCount"),
]


@pytest.mark.parametrize(("node", "pod", "reason"), CASES)
def test_what_no_end_of_other_pods_would_help(node: NodeBuilder, pod: PodBuilder, reason: str) -> None:
    verdict = fits(state(node=node), pod)
    assert isinstance(verdict, Shortfall)
    assert (verdict.reason, verdict.resolvable) == (reason, False)
    assert verdict.text == REASON_TEXT[reason]


@pytest.mark.parametrize("text", REASON_TEXT.values())
def test_texts_are_constants(text: str) -> None:
    assert not any(character.isdigit() or character in "{}%" for character in text)


def test_a_closed_node_gives_out_no_device() -> None:
    [made] = read_nodes([make_node("n").gpus(4, mib=CARD).build()])
    lost = derive(made, [PodOnNode("p", "d", "p", "n", {}, (ShareOnGpu("x", "G9", 10),))], [])
    for pod in (make_pod().gpu_memory(1), make_pod().gpus(1)):
        verdict = fits(lost, pod)
        assert isinstance(verdict, Shortfall)
        assert (verdict.reason, verdict.resolvable) == ("ReservationLost", False)
    kept_out = fits(lost, make_pod())
    assert isinstance(kept_out, Shortfall), "its room may be what the repair needs"
    assert (kept_out.reason, kept_out.unit, kept_out.asked, kept_out.resolvable) == ("ReservationLost", "pod", 1, False)


@pytest.mark.parametrize(
    ("asks", "lost", "unreadable"),
    [
        (make_pod(), False, True),
        (make_pod().spec(priorityClassName="high"), False, True),
        (make_pod().spec(priorityClassName="system-node-critical"), True, True),
        (make_pod().spec(priorityClassName="system-cluster-critical"), True, True),
        (make_pod().gpus(1, SLICE), False, False),
        (make_pod().gpus(1, SLICE).spec(priorityClassName="system-node-critical"), False, False),
    ],
)
def test_what_a_closed_node_takes(asks: PodBuilder, lost: bool, unreadable: bool) -> None:
    """No device of any kind; where one is lost nothing but what the node needs to run."""
    [node] = read_nodes([make_node("n").gpus(4, mib=CARD).resource(SLICE, 2).build()])
    holder = PodOnNode("p", "d", "p", "n", {}, (ShareOnGpu("x", "G9", 10),))
    for pod, taken in ((holder, lost), (PodOnNode("p", "d", "p", "n", {}, undecodable="why"), unreadable)):
        assert isinstance(fits(derive(node, [pod], []), asks), Placement) == taken
    assert isinstance(fits(derive(node, [], []), asks), Placement), "open, it takes them all"


@pytest.mark.parametrize(
    ("node", "requests", "resource"),
    [
        (make_node("n").gpus(2, mib=CARD).pod_slots(1), {}, "pods"),
        (make_node("n").gpus(2, mib=CARD).cpu("1"), {"cpu": "951m"}, "cpu"),
        (make_node("n").gpus(2, mib=CARD).memory("1Gi"), {"memory": "961Mi"}, "memory"),
    ],
)
def test_a_new_gpu_needs_room_for_its_reservation(node: NodeBuilder, requests: Any, resource: str) -> None:
    pod = make_pod().container("main", requests=requests).gpu_memory(1)
    verdict = fits(state(node=node), pod)
    assert isinstance(verdict, Shortfall)
    assert (verdict.reason, verdict.unit, verdict.resolvable) == ("ReservationRoom", resource, True)
    assert isinstance(fits(state(0, node=node), pod), Placement) == (resource != ""), "an open GPU needs none"


def test_it_fits_to_the_last_milli() -> None:
    node = make_node("n").gpus(2, mib=CARD).cpu("1").pod_slots(2)
    pod = make_pod().container("main", requests={"cpu": "950m"}).gpu_memory(1)
    assert isinstance(fits(state(node=node), pod), Placement)


@pytest.mark.parametrize(
    "pod", [make_pod().gpu_memory(300), make_pod().gpu_memory(300).num_devices(3), make_pod().gpus(2)]
)
def test_a_what_if_is_what_the_books_would_say(pod: PodBuilder) -> None:
    before = state(500, 900, gpus=6)
    verdict = fits(before, pod)
    assert isinstance(verdict, Placement)
    after = with_placement(before, request(pod), verdict, "new")
    assert after.whole_free == before.whole_free - verdict.new - verdict.whole
    assert after.whole_held == before.whole_held + verdict.whole
    assert sum(gpu.used_mib for gpu in after.gpus) == sum(gpu.used_mib for gpu in before.gpus) + sum(verdict.mib)
    assert after.free[names.PODS] == before.free[names.PODS] - 1 - verdict.new
    assert after.free[names.CPU] == before.free[names.CPU] - 50 * verdict.new
