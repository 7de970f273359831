"""Only what changed is judged again, and the best are found in order."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.scoreboard import UNKNOWN, Ints, Scoreboard, best
from tests.builders import make_node, make_pod

NO_NODE = 9


class Board:
    """A scoreboard whose nodes have a cost each, and a record of what was judged."""

    def __init__(self, **limits: int) -> None:
        self.board = Scoreboard(unknown_code=NO_NODE, **limits)
        self.costs: dict[str, float] = {}
        self.judged: list[str] = []

    def put(self, name: str, cost: float) -> None:
        self.costs[name] = cost
        self.board.touch(name)

    def judge(self, positions: Ints) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        names = self.board.names(positions)
        self.judged = names
        return np.array([self.costs[name] for name in names]), np.zeros(len(names), np.int16)

    def read(self, shape: str = "s", names: str = "abc") -> list[float]:
        positions = self.board.positions([name for name in names if name in self.costs])
        found: list[float] = self.board.verdicts(shape, positions, self.judge).cost[positions].tolist()
        return found


def test_only_changed_nodes_are_judged_again() -> None:
    board = Board()
    for name in "abc":
        board.put(name, 1)
    assert board.read() == [1, 1, 1]
    board.put("b", 5)
    assert board.read() == [1, 5, 1]
    assert board.judged == ["b"]


def test_each_shape_catches_up_on_its_own() -> None:
    board = Board()
    board.put("a", 1)
    board.read("x")
    board.put("b", 2)
    assert board.read("y") == [1, 2]
    assert board.read("x") == [1, 2]
    assert board.judged == ["b"]


def test_only_nodes_that_are_asked_about_are_judged() -> None:
    board = Board()
    for name in "abc":
        board.put(name, 1)
    assert board.read(names="a") == [1]
    assert board.judged == ["a"]
    board.put("b", 2)
    assert board.read(names="ab") == [1, 2]
    assert board.judged == ["b"]


def test_what_was_judged_outlasts_the_arrival_of_nodes() -> None:
    board = Board()
    board.put("a", 1)
    board.read()
    for name in "bcdefgh":
        board.put(name, 2)
    assert board.read(names="abcdefgh") == [1] + [2] * 7
    assert board.judged == list("bcdefgh")


def test_memory_is_bounded() -> None:
    board = Board(shapes=3, lists=3)
    for index in range(100):
        board.put(f"node {index}", index)
        board.read(f"shape {index}")
        board.board.positions([f"node {i}" for i in range(index + 1)])
    assert len(board.board._verdicts) == 3
    assert len(board.board._lists) <= 3


@given(st.lists(st.tuples(st.sampled_from(["touch", "release"]), st.sampled_from("abc")), max_size=20))
def test_a_list_that_is_remembered_is_what_looking_it_up_would_give(history: list[tuple[str, str]]) -> None:
    board = Scoreboard(unknown_code=NO_NODE)
    for verb, name in history:
        (position,) = board.positions([name]).tolist()
        if verb == "touch":
            board.touch(name)
        elif position != UNKNOWN:
            board.release(position)
        for names in (["a", "b"], ["c", "b", "a"]):
            assert board.positions(names).tolist() == [board.positions([name])[0] for name in names]


def test_verdicts_can_be_voided_as_a_whole() -> None:
    board = Board()
    board.put("a", 1)
    board.read()
    board.costs["a"] = 7
    board.board.forget_verdicts()
    assert board.read() == [7]


def test_unknown_names_have_the_last_slot() -> None:
    board = Board()
    board.put("a", 1)
    assert board.board.positions(["a", "x"]).tolist() == [0, UNKNOWN]
    verdicts = board.board.verdicts("s", np.array([0, UNKNOWN]), board.judge)
    assert verdicts.code[UNKNOWN] == NO_NODE
    assert verdicts.cost[UNKNOWN] == np.inf


costs = st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf, np.inf]), min_size=1, max_size=12)


@given(costs, st.data(), st.integers(0, 14))
def test_best_is_a_stable_sort_cut_off(values: list[float], data: st.DataObject, count: int) -> None:
    asked = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20))
    found = best(np.array(values), np.array(asked, np.int64), count).tolist()
    order = sorted((values[i], i) for i in set(asked) if values[i] != np.inf)
    assert found == [i for _, i in order][: count or None]


def test_the_place_of_a_node_that_is_gone_is_taken_by_the_next() -> None:
    decisions = Decisions(Policy(), claim_ttl=1, timer=lambda: 0.0)
    (template,) = read_nodes([make_node("template").gpus(2, mib=1000).build()])
    pod = make_pod().gpu_memory(100).build()
    for index in range(50):
        decisions.ledger.put_node(replace(template, name=f"n{index}"))
        assert decisions.filter(pod, [f"n{index}", f"n{index - 1}"]).nodes == [f"n{index}"]
        decisions.ledger.drop_node(f"n{index}")
        assert decisions.filter(pod, [f"n{index}"]).unresolvable
    assert len(decisions._board) <= 2
