"""What the ledger makes of a node record beside what the watch shows of pods."""

from collections.abc import Iterator

import pytest

from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement, fit
from extender.core.requests import GpuRequest
from extender.core.values import GpuState, PodOnNode, Reservation, ShareOnGpu, ShareState
from tests.builders import make_node, make_pod

CARD = 1000
SEEN = Reservation("share-a", "n", "uid-a", "GPU-a", CARD)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    for read in read_nodes([make_node(name).gpus(2, mib=CARD).build() for name in "nm"]):
        made.put_node(read)
    yield made
    made.check()


def entry(uid: str = "p", node: str = "n", mib: int = 400) -> PodOnNode:
    """As a record's reader gives it."""
    share = ShareOnGpu("share-a", "GPU-a", mib)
    return PodOnNode(uid, "d", uid, node, {}, (share,), state=ShareState.RECORDED, observed=True, attempt="x-1")


def opened(node: str = "n", *, closing: bool = False, lost: bool = False) -> Reservation:
    return Reservation("share-a", node, "uid-a", "GPU-a", CARD, closing=closing, lost=lost)


def used(ledger: Ledger, node: str = "n") -> int:
    state = ledger.state(node)
    assert state is not None
    return sum(gpu.used_mib for gpu in state.gpus)


def state_of(ledger: Ledger) -> tuple[GpuState, str | None]:
    state = ledger.state("n")
    assert state is not None
    [gpu] = state.gpus
    return gpu.state, state.closed


def test_an_entry_holds_room_until_its_pod_is_shown(ledger: Ledger) -> None:
    ledger.put_record("n", [entry()], [opened()])
    assert used(ledger) == 400
    ledger.release("p")
    assert used(ledger) == 0
    ledger.alive("p")
    assert used(ledger) == 400


def test_an_entry_that_a_try_disregards_counts_again_when_the_try_ends(ledger: Ledger) -> None:
    """A bind that comes to nothing leaves the record as it is: the room is not free."""
    ledger.put_record("n", [entry()], [opened()])
    ledger.disregard_record("p")
    assert used(ledger) == 0
    ledger.regard_record("p")
    assert used(ledger) == 400
    ledger.disregard_record("p")
    request = GpuRequest.from_pod(make_pod().gpu_memory(CARD).build())
    assert isinstance(request, GpuRequest)
    state = ledger.state("m")
    assert state is not None
    placement = fit(state, request)
    assert isinstance(placement, Placement)
    ledger.assume(uid="p", namespace="d", name="p", node="m", request=request, placement=placement, new_ids=["g"])
    assert (used(ledger), used(ledger, "m")) == (0, CARD)
    ledger.forget("p")
    assert (used(ledger), used(ledger, "m")) == (400, 0)


def test_a_pod_in_two_records_counts_in_both(ledger: Ledger) -> None:
    for node in "nm":
        ledger.put_record(node, [entry(node=node)], [opened(node)])
    assert (used(ledger), used(ledger, "m")) == (400, 400)
    ledger.release("p")
    assert (used(ledger), used(ledger, "m")) == (0, 0)


def test_an_entry_that_has_left_the_record_is_forgotten(ledger: Ledger) -> None:
    ledger.put_record("n", [entry()], [opened()])
    ledger.put_record("n", [], [opened()])
    assert used(ledger) == 0
    assert ledger.recorded("n") == ()


def test_a_gpu_that_the_record_closes_is_closing(ledger: Ledger) -> None:
    """Else a bind would choose it again and again, and the record refuse it each time."""
    ledger.put_reservation(SEEN)
    ledger.put_record("n", [], [opened(closing=True)])
    assert state_of(ledger) == (GpuState.CLOSING, None)
    ledger.put_record("n", [], [])
    assert state_of(ledger) == (GpuState.READY, None)


def test_a_node_whose_record_says_lost_is_closed_whatever_the_watch_shows(ledger: Ledger) -> None:
    ledger.put_reservation(SEEN)
    ledger.put_record("n", [entry()], [opened(lost=True)])
    assert state_of(ledger) == (GpuState.READY, "ReservationLost")
    ledger.put_record("n", [entry()], [opened()])
    assert state_of(ledger) == (GpuState.READY, None)


def test_a_lost_gpu_is_held_by_nothing(ledger: Ledger) -> None:
    ledger.put_record("n", [entry()], [opened(lost=True)])
    assert state_of(ledger) == (GpuState.LOST, "ReservationLost")


def test_which_nodes_share(ledger: Ledger) -> None:
    assert ledger.shared_nodes() == []
    ledger.put_record("m", [], [opened("m")])
    ledger.put_reservation(SEEN)
    assert sorted(ledger.shared_nodes()) == ["m", "n"]
    assert [ledger.has_record(node) for node in "nm"] == [False, True]


def test_a_barred_node_opens_no_gpu(ledger: Ledger) -> None:
    request = GpuRequest.from_pod(make_pod().gpu_memory(100).build())
    assert isinstance(request, GpuRequest)
    ledger.bar("n", barred=True)
    state = ledger.state("n")
    assert state is not None
    assert getattr(fit(state, request), "reason", None) == "ReservationFailed"
    ledger.put_reservation(SEEN)
    state = ledger.state("n")
    assert state is not None
    assert isinstance(fit(state, request), Placement), "but its open GPUs take shares"
    ledger.bar("n", barred=False)
    assert not getattr(ledger.state("n"), "barred", True)
