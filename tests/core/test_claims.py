"""Claims: short-lived, one per pod, and whoever depends on them is told."""

import itertools

import pytest

from extender.core.claims import Claim, Claims
from extender.core.requests import GpuRequest
from tests.builders import make_pod

REQUEST = GpuRequest.from_pod(make_pod().gpu_memory(1).build())
assert isinstance(REQUEST, GpuRequest)


class Clocked:
    """Claims with a clock that a test moves."""

    def __init__(self, most: int = 100) -> None:
        self.now = 0.0
        self.touched: list[str] = []
        self.claims = Claims(5.0, lambda: self.now, self.touched.append, most=most)

    def add(self, uid: str, node: str) -> None:
        assert isinstance(REQUEST, GpuRequest)
        self.claims.add(Claim(uid, node, REQUEST))

    def on(self, node: str) -> list[str]:
        return [claim.uid for claim in self.claims.on(node)]


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


def test_a_pod_has_one_claim(clocked: Clocked) -> None:
    clocked.add("p", "a")
    clocked.add("q", "a")
    clocked.add("p", "b")
    assert (clocked.on("a"), clocked.on("b"), len(clocked.claims)) == (["q"], ["p"], 2)
    assert clocked.touched == ["a", "a", "a", "b"]
    claim = clocked.claims.of("p")
    assert claim is not None
    assert claim.node == "b"


def test_it_ends_with_its_pod(clocked: Clocked) -> None:
    clocked.add("p", "a")
    clocked.claims.end("p")
    clocked.claims.end("p")
    assert (clocked.on("a"), clocked.claims.of("p")) == ([], None)
    assert clocked.touched == ["a", "a"]


def test_it_ends_with_its_time(clocked: Clocked) -> None:
    clocked.add("p", "a")
    clocked.now = 3.0
    clocked.add("q", "a")
    clocked.now = 4.9
    assert clocked.claims.expire() == []
    clocked.now = 5.1
    assert [claim.uid for claim in clocked.claims.expire()] == ["p"]
    assert clocked.on("a") == ["q"]
    assert clocked.touched == ["a", "a", "a"], "the node has room again: whoever judged it must judge anew"


def test_to_claim_again_starts_the_time_again(clocked: Clocked) -> None:
    clocked.add("p", "a")
    clocked.now = 4.0
    clocked.add("p", "a")
    clocked.now = 8.0
    assert clocked.claims.expire() == []


def test_there_is_a_limit() -> None:
    clocked = Clocked(most=2)
    for index in range(4):
        clocked.add(f"p{index}", "a")
    assert len(clocked.claims) == 2
    assert clocked.on("a") == ["p2", "p3"]


@pytest.mark.parametrize("before", range(1, 19))
def test_one_that_ends_while_another_is_made_leaves_nothing(before: int) -> None:
    """The clock goes on within a call: what ends between two looks at it must not count on its node for ever."""
    seconds = itertools.count()
    claims = Claims(20.0, lambda: next(seconds), lambda _node: None)
    assert isinstance(REQUEST, GpuRequest)
    claims.add(Claim("p", "a", REQUEST))
    for _ in range(before):
        next(seconds)
    claims.add(Claim("q", "a", REQUEST))
    while next(seconds) < 20:
        pass
    claims.expire()
    assert [claim.uid for claim in claims.on("a")] == ["q"]
