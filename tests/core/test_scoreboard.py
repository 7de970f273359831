"""Only what changed is judged again, and the best are found in order."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.requests import GpuRequest
from extender.core.scoreboard import UNKNOWN, Ints, Scoreboard, best
from extender.core.values import ShareState
from tests.builders import PodBuilder, make_node, make_pod

NO_NODE = 9


class Board:
    """A scoreboard whose nodes have a cost each, and a record of what was judged."""

    def __init__(self, **limits: int) -> None:
        self.board = Scoreboard(unknown_code=NO_NODE, **limits)
        self.costs: dict[str, float] = {}
        self.judged: list[str] = []

    def put(self, name: str, cost: float) -> None:
        self.costs[name] = cost
        self.board.touch(self.board.place(name))

    def judge(self, positions: Ints) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        names = self.board.names(positions)
        self.judged = names
        return np.array([self.costs[name] for name in names]), np.zeros(len(names), np.int16)

    def read(self, shape: str = "s", names: str = "abc") -> list[float]:
        asked = self.board.asked([name for name in names if name in self.costs])
        found: list[float] = self.board.verdicts(shape, asked, self.judge).cost[asked.positions].tolist()
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
        board.board.asked([f"node {i}" for i in range(index + 1)])
    assert len(board.board._verdicts) == 3
    assert len(board.board._lists) <= 3


@given(st.lists(st.tuples(st.sampled_from(["touch", "release"]), st.sampled_from("abc")), max_size=20))
def test_a_list_that_is_remembered_is_what_looking_it_up_would_give(history: list[tuple[str, str]]) -> None:
    board = Scoreboard(unknown_code=NO_NODE)
    for verb, name in history:
        position = board.position(name)
        if verb == "touch":
            board.touch(board.place(name))
        elif position != UNKNOWN:
            board.release(position)
        for names in (["a", "b"], ["c", "b", "a"]):
            asked = board.asked(names)
            assert asked.positions.tolist() == [board.position(name) for name in names]
            assert set(asked.flags.nonzero()[0]) == {position % len(asked.flags) for position in asked.positions}


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
    asked = board.board.asked(["a", "x"])
    assert asked.positions.tolist() == [0, UNKNOWN]
    verdicts = board.board.verdicts("s", asked, board.judge)
    assert verdicts.code[UNKNOWN] == NO_NODE
    assert verdicts.cost[UNKNOWN] == np.inf


costs = st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf, np.inf]), min_size=1, max_size=12)


@given(costs, st.data(), st.integers(0, 14))
def test_best_is_a_stable_sort_cut_off(values: list[float], data: st.DataObject, count: int) -> None:
    asked = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    found = best(np.array(values), np.array(asked), count).tolist()
    order = sorted((value, i) for i, value in enumerate(values) if asked[i] and value != np.inf)
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


NODES = [f"n{index}" for index in range(3)]
ASKED = [
    make_pod().gpu_memory(300),
    make_pod().gpu_fraction("0.7").num_devices(2),
    make_pod().gpus(1),
    make_pod().gpus(3, "nvidia.com/mig-1g.10gb"),
    make_pod().container("main", requests={"cpu": "2"}),
]
steps = st.one_of(
    st.tuples(st.just("place"), st.integers(0, len(ASKED) - 1)),
    st.tuples(st.sampled_from(["record", "confirm", "end claim", "release"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["bar", "2 slices", "3 slices", "3 cpu", "drop"]), st.integers(0, len(NODES) - 1)),
)


class Walk:
    """One cluster, and what happens to it."""

    def __init__(self) -> None:
        self.decisions = Decisions(Policy(shortlist=1), claim_ttl=1, timer=lambda: 0.0)
        self.placed: list[str] = []
        for name in NODES:
            self.node(name)

    def node(self, name: str, *, cpu: int = 4, slices: int = 0) -> None:
        built = make_node(name).cpu(cpu).gpus(3, mib=1000)
        if slices:
            built.allocatable("nvidia.com/mig-1g.10gb", slices)
        (read,) = read_nodes([built.build()])
        self.decisions.ledger.put_node(read)

    def step(self, verb: str, which: int) -> None:
        ledger = self.decisions.ledger
        if verb == "place":
            self.place(ASKED[which])
        elif verb == "bar":
            state = ledger.state(NODES[which])
            ledger.bar(NODES[which], barred=state is None or not state.barred)
        elif verb == "drop":
            ledger.drop_node(NODES[which])
        elif verb[0].isdigit():
            number, _, what = verb.partition(" ")
            self.node(NODES[which], **{what: int(number)})
        elif which < len(self.placed):
            uid = self.placed[which]
            held = ledger.pod(uid)
            if verb == "end claim":
                self.decisions.claims.end(uid)
            elif verb == "release":
                ledger.release(uid)
            elif verb == "confirm" and held is not None:
                ledger.confirm(uid)
            elif held is not None and held.state is ShareState.ASSUMED:
                ledger.record(uid)

    def place(self, pod: PodBuilder) -> None:
        uid = f"u{len(self.placed)}"
        found = self.decisions.filter(pod.uid(uid).build(), NODES).nodes
        request = GpuRequest.from_pod(pod.build())
        assert isinstance(request, GpuRequest)
        placement = self.decisions.choose(found[0], request) if found else None
        if isinstance(placement, Placement):
            new_ids = [f"{uid}-{index}" for index in range(placement.new)]
            self.decisions.ledger.assume(
                uid=uid, namespace="d", name=uid, node=found[0], request=request, placement=placement, new_ids=new_ids
            )
            self.placed.append(uid)

    def verdicts(self) -> list[tuple[list[float], list[int]]]:
        """Of every request on every node."""
        asked = self.decisions._board.asked(NODES)
        found = []
        for pod in ASKED:
            request = GpuRequest.from_pod(pod.build())
            assert isinstance(request, GpuRequest)
            judged = self.decisions._judged(request, "", asked)
            found.append((judged.cost.take(asked.positions).tolist(), judged.code.take(asked.positions).tolist()))
        return found


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, max_size=15))
def test_what_is_kept_is_what_judging_anew_would_give(history: list[tuple[str, int]]) -> None:
    walk = Walk()
    walk.verdicts()
    for step in history:
        walk.step(*step)
        kept = walk.verdicts()
        walk.decisions._board.forget_verdicts()
        assert kept == walk.verdicts(), step


def test_a_node_on_which_a_bind_goes_on_as_expected_is_not_judged_again() -> None:
    """What filter expected of the pod was counted with its claim; assumed, recorded and bound it holds the same."""
    walk = Walk()
    walk.place(ASKED[0])
    judged: list[int] = []
    walk.decisions._judge = lambda *given: judged.append(len(given[0])) or Decisions._judge(walk.decisions, *given)  # type: ignore[method-assign, func-returns-value]
    walk.verdicts()
    judged.clear()
    for verb in ("record", "confirm", "end claim"):
        walk.step(verb, 0)
        walk.verdicts()
    assert judged == []
    walk.step("release", 0)
    walk.verdicts()
    assert judged == [1] * len(ASKED)
