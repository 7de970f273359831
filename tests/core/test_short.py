"""Which idle GPUs are closed for a pod that waits for whole ones."""

import pytest

from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.requests import GpuRequest
from extender.core.short import nodes_to_empty
from extender.core.values import Reservation
from tests.builders import make_node, make_pod

CARD = 1000


def whole(count: int) -> GpuRequest:
    request = GpuRequest.from_pod(make_pod().gpus(count).build())
    assert isinstance(request, GpuRequest)
    return request


@pytest.fixture
def ledger() -> Ledger:
    """``one`` has one idle GPU of two, ``two`` has two."""
    made = Ledger()
    for read in read_nodes([make_node(name).gpus(2, mib=CARD).build() for name in ("two", "one")]):
        made.put_node(read)
    for node, index in (("one", 0), ("two", 0), ("two", 1)):
        made.put_reservation(Reservation(f"{node}-{index}", node, f"uid-{node}-{index}", f"GPU-{node}-{index}", CARD))
    return made


IDLE = {"one": ["uid-one-0"], "two": ["uid-two-0", "uid-two-1"]}


def test_the_node_that_gives_up_fewest(ledger: Ledger) -> None:
    assert set(nodes_to_empty(ledger, IDLE, [whole(2)])) == {"one"}


def test_one_node_for_each_pod(ledger: Ledger) -> None:
    assert set(nodes_to_empty(ledger, IDLE, [whole(2), whole(2), whole(2)])) == {"one", "two"}


def test_none_where_it_would_not_help(ledger: Ledger) -> None:
    share = GpuRequest.from_pod(make_pod().gpu_memory(CARD).build())
    assert isinstance(share, GpuRequest)
    assert nodes_to_empty(ledger, IDLE, [whole(3), share]) == {}
    assert nodes_to_empty(ledger, {"one": IDLE["one"]}, [whole(1)]) == {}, "it fits there already"
    assert nodes_to_empty(ledger, {"gone": ["uid"]}, [whole(1)]) == {}
