"""The ledger's single steps: what is allowed, what is refused, and that a refusal changes nothing."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from extender.core import names
from extender.core.errors import DoesNotFit, LedgerError
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement, fit
from extender.core.requests import GpuRequest
from extender.core.values import GpuState, PodOnNode, Reservation, ShareOnGpu, ShareState
from tests.builders import PodBuilder, make_node, make_pod

CARD = 1000


class Books:
    """A ledger with one node of two GPUs, and what it told of changes."""

    def __init__(self, gpus: int = 2) -> None:
        self.touched: list[str] = []
        self.ledger = Ledger(self.touched.append)
        [self.node] = read_nodes([make_node("n").gpus(gpus, mib=CARD).build()])
        self.ledger.put_node(self.node)

    def request(self, pod: PodBuilder) -> GpuRequest:
        made = GpuRequest.from_pod(pod.build())
        assert isinstance(made, GpuRequest)
        return made

    def assume(self, uid: str, pod: PodBuilder, **changes: Any) -> PodOnNode:
        request = self.request(pod)
        state = self.ledger.state("n")
        assert state is not None
        placement = changes.pop("placement", None) or fit(state, request)
        assert isinstance(placement, Placement)
        given = {"node": "n", "new_ids": [f"{uid}-{i}" for i in range(placement.new)]} | changes
        return self.ledger.assume(uid=uid, namespace="d", name=uid, request=request, placement=placement, **given)

    def everything(self) -> Any:
        return copy.deepcopy((list(self.ledger.snapshot()), self.ledger.pods("n"), self.ledger.reservations("n")))

    def gpu(self, index: int = 0) -> Any:
        state = self.ledger.state("n")
        assert state is not None
        return state.gpus[index]


@pytest.fixture
def books() -> Any:
    made = Books()
    yield made
    made.ledger.check()


def test_a_share_through_its_states(books: Books) -> None:
    pod = books.assume("p", make_pod().gpu_memory(400))
    assert (pod.state, books.gpu().state, books.gpu().uuid) == (ShareState.ASSUMED, GpuState.ASSUMED, None)
    books.ledger.report("n", "p-0", "GPU-1", 900)
    assert (books.gpu().uuid, books.gpu().memory_mib, books.gpu().state) == ("GPU-1", 900, GpuState.READY)
    held = books.ledger.pod("p")
    assert held is not None
    assert held.shares == (ShareOnGpu("p-0", "GPU-1", 400),)
    books.ledger.record("p")
    books.ledger.confirm("p")
    books.ledger.confirm("p")
    assert books.gpu().shares[0].state is ShareState.CONFIRMED
    books.ledger.release("p")
    books.ledger.release("p")
    assert (books.gpu().used_mib, books.ledger.pod("p")) == (0, None)


def test_to_forget_is_to_give_back(books: Books) -> None:
    before = books.everything()
    books.assume("p", make_pod().gpu_memory(400).num_devices(2))
    books.ledger.forget("p")
    books.ledger.forget("p")
    assert books.everything() == before


def test_a_recorded_share_can_be_forgotten_a_confirmed_one_cannot(books: Books) -> None:
    books.assume("p", make_pod().gpu_memory(400))
    books.ledger.record("p")
    with pytest.raises(LedgerError, match="already being bound to node n"):
        books.ledger.record("p")
    books.ledger.forget("p")
    books.assume("q", make_pod().gpu_memory(400))
    books.ledger.confirm("q")
    with pytest.raises(LedgerError, match="confirmed"):
        books.ledger.forget("q")
    for step in (books.ledger.confirm, books.ledger.record):
        with pytest.raises(LedgerError, match="UID nobody has ended"):
            step("nobody")


def test_a_planned_gpu_that_another_share_uses_stays(books: Books) -> None:
    books.assume("p", make_pod().gpu_memory(400))
    books.assume("q", make_pod().gpu_memory(400))
    books.ledger.forget("p")
    assert [share.uid for share in books.gpu().shares] == ["q"]
    books.ledger.forget("q")
    assert books.ledger.reservations("n") == ()


def test_a_gpu_that_a_reservation_pod_backs_is_not_unplanned(books: Books) -> None:
    pod = books.assume("p", make_pod().gpu_memory(400))
    [planned] = books.ledger.reservations("n")
    books.ledger.put_reservation(replace(planned, uid="uid"))
    books.ledger.forget("p")
    books.ledger.unplan(pod)
    assert [reservation.id for reservation in books.ledger.reservations("n")] == ["p-0"]


def test_a_released_pod_leaves_its_plan_to_its_bind(books: Books) -> None:
    pod = books.assume("p", make_pod().gpu_memory(400))
    books.ledger.release("p")
    assert len(books.ledger.reservations("n")) == 1
    books.ledger.unplan(pod)
    books.ledger.unplan(pod)
    assert books.ledger.reservations("n") == ()


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"node": "nowhere"}, DoesNotFit, "not known"),
        ({"new_ids": []}, LedgerError, "new GPUs need"),
        ({"new_ids": ["x", "x"]}, LedgerError, "new GPUs need"),
        ({"new_ids": ["old-0"]}, LedgerError, "one that exists"),
        ({"placement": Placement(new=3, mib=(1,) * 3)}, DoesNotFit, "no whole GPU is free any more"),
    ],
)
def test_a_refusal_changes_nothing(books: Books, changes: Any, error: type[Exception], sentence: str) -> None:
    books.assume("old", make_pod().gpu_memory(900))
    before = books.everything()
    with pytest.raises(error, match=sentence):
        books.assume("p", make_pod().gpu_memory(400), **changes)
    assert books.everything() == before


def test_what_fitted_before_is_checked_again(books: Books) -> None:
    books.assume("a", make_pod().gpu_memory(100))
    state = books.ledger.state("n")
    assert state is not None
    stale = fit(state, books.request(make_pod().gpu_memory(600)))
    books.assume("b", make_pod().gpu_memory(500))
    with pytest.raises(DoesNotFit, match="no longer has room"):
        books.assume("c", make_pod().gpu_memory(600), placement=stale)
    gpu = books.gpu()
    twice = Placement((gpu, gpu), 0, (10, 10))
    with pytest.raises(LedgerError, match="chosen twice"):
        books.assume("d", make_pod().gpu_memory(10).num_devices(2), placement=twice)
    with pytest.raises(LedgerError, match="already being bound to node n"):
        books.assume("a", make_pod().gpu_memory(1))
    # The placement alone would do, the request does not fit.
    with pytest.raises(DoesNotFit, match="larger than a GPU"):
        books.assume("e", make_pod().gpu_memory(CARD + 1), placement=Placement(new=1, mib=(1,)), new_ids=["e-0"])


def test_a_gpu_is_opened_only_where_its_reservation_pod_has_room(books: Books) -> None:
    """A shared GPU would do; the placement that is asked for opens another."""
    [narrow] = read_nodes([make_node("n").gpus(2, mib=CARD).cpu("60m").build()])
    books.ledger.put_node(narrow)
    books.assume("a", make_pod().gpu_memory(100))
    before = books.everything()
    with pytest.raises(DoesNotFit, match="no room for the reservation pod"):
        books.assume("b", make_pod().gpu_memory(100), placement=Placement(new=1, mib=(100,)))
    assert books.everything() == before
    books.assume("b", make_pod().gpu_memory(100))


def observed(uid: str, node: str = "n", **fields: Any) -> PodOnNode:
    return PodOnNode(uid, "d", uid, node, fields.pop("resources", {}), observed=True, **fields)


def test_evidence_moves_a_pod(books: Books) -> None:
    books.ledger.observe(observed("w", resources={names.GPU_RESOURCE: 1}))
    books.ledger.observe(observed("w", "m", resources={names.GPU_RESOURCE: 1}))
    state = books.ledger.state("n")
    assert state is not None
    assert state.whole_held == 0
    assert books.ledger.pods("n") == ()
    assert len(books.ledger.pods("m")) == 1
    assert books.ledger.state("m") is None, "the API shows no such node"


def test_evidence_replaces_what_was_assumed(books: Books) -> None:
    books.assume("p", make_pod().gpu_memory(400))
    books.ledger.report("n", "p-0", "GPU-1", CARD)
    held = books.ledger.pod("p")
    assert held is not None
    # Our own placement is no news; another size is evidence, and may exceed the card.
    books.ledger.observe(held._replace(state=ShareState.CONFIRMED, observed=True))
    assert books.gpu().shares[0].observed is False
    books.ledger.observe(observed("p", shares=(ShareOnGpu("p-0", "GPU-1", CARD + 1),)))
    assert (books.gpu().used_mib, books.gpu().shares[0].observed) == (CARD + 1, True)


def test_who_changes_is_told_and_nobody_else(books: Books) -> None:
    books.touched.clear()
    books.ledger.put_node(books.node)
    books.ledger.put_reservation(Reservation("r", "n", "uid"))
    books.ledger.put_reservation(Reservation("r", "n", "uid"))
    books.ledger.observe(observed("w"))
    books.ledger.observe(observed("w"))
    books.ledger.drop_reservation("n", "r")
    books.ledger.drop_reservation("n", "r")
    books.ledger.drop_reservation("nowhere", "r")
    books.ledger.release("nobody")
    books.ledger.drop_node("nowhere")
    assert books.touched == ["n"] * 3


def test_pods_outlive_their_node_object(books: Books) -> None:
    books.assume("p", make_pod().gpu_memory(400))
    before = books.everything()
    books.ledger.drop_node("n")
    assert (list(books.ledger.snapshot()), books.ledger.without("n", [])) == ([], None)
    assert books.ledger.pod("p") is not None
    books.ledger.put_node(books.node)
    assert books.everything() == before


def test_a_planned_gpu_keeps_its_size(books: Books) -> None:
    """The node may lose its labels before the reservation pod reports."""
    books.assume("p", make_pod().gpu_memory(400))
    [bare] = read_nodes([make_node("n").build()])
    books.ledger.put_node(bare)
    assert (books.gpu().memory_mib, books.gpu().used_mib) == (CARD, 400)


def test_without_victims(books: Books) -> None:
    books.assume("p", make_pod().gpu_memory(400))
    books.assume("q", make_pod().gpu_memory(900))
    state = books.ledger.without("n", ["q", "nobody"])
    assert state is not None
    assert [gpu.id for gpu in state.gpus] == ["p-0"], "the GPU that this leaves empty is closed"
    assert state.whole_free == 1
    now = books.ledger.state("n")
    assert now is not None
    assert now.whole_free == 0, "only a what-if"


# --- check ------------------------------------------------------------------------------------------------


def test_check_finds_a_pod_filed_in_the_wrong_place() -> None:
    books = Books()
    books.assume("p", make_pod().gpu_memory(400))
    books.ledger._where["ghost"] = "n"
    with pytest.raises(AssertionError, match="ghost is said to be on n"):
        books.ledger.check()
    del books.ledger._where["ghost"]
    books.ledger._where["p"] = "m"
    books.ledger._books["m"] = copy.deepcopy(books.ledger._books["n"])
    with pytest.raises(AssertionError, match=r"p is filed in the wrong place|p is on n and elsewhere"):
        books.ledger.check()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"used_mib": 1}, "used is not the sum"),
        ({"memory_mib": 300}, "400 of 300 MiB given out"),
        ({"shares": ()}, "each share is on exactly one GPU"),
    ],
)
def test_check_finds_a_gpu_that_does_not_add_up(changes: Any, sentence: str) -> None:
    books = Books()
    books.assume("p", make_pod().gpu_memory(400))
    state = books.ledger.state("n")
    assert state is not None
    books.ledger._books["n"].state = state._replace(gpus=(state.gpus[0]._replace(**changes),))
    with pytest.raises(AssertionError, match=sentence):
        books.ledger.check()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"whole_free": -1}, "negative whole GPUs"), ({"closed": None}, "leaves the node open")],
)
def test_check_finds_a_node_that_does_not_add_up(changes: Any, sentence: str) -> None:
    books = Books()
    books.ledger.observe(observed("p", shares=(ShareOnGpu("gone", "GPU-9", 10),)))
    state = books.ledger.state("n")
    assert state is not None
    books.ledger._books["n"].state = state._replace(**changes)
    with pytest.raises(AssertionError, match=sentence):
        books.ledger.check()


def test_after_a_reboot_two_that_name_one_device_are_in_dispute_no_more(books: Books) -> None:
    """The one of the old boot holds nothing any more: which one counts depends on the Node, too."""
    old = Reservation("a", "n", uid="a", device="GPU-1", memory_mib=CARD, boot_id=books.node.boot_id)
    new = replace(old, id="b", uid="b", boot_id="next")
    books.ledger.put_node(replace(books.node, boot_id=None))
    for each in (old, new):
        books.ledger.put_reservation(each)
    assert not any(gpu.usable for gpu in books.ledger.state("n").gpus)  # type: ignore[union-attr]
    books.ledger.put_node(replace(books.node, boot_id="next"))
    assert [(gpu.id, gpu.usable) for gpu in books.ledger.state("n").gpus] == [("b", True)]  # type: ignore[union-attr]
