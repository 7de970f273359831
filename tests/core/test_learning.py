"""What is learned online: counts, ageing, models, hole values; the same for the same history."""

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.holes import GRID, hole_values, waste_of
from extender.core.learned import refresh
from extender.core.models import PRODUCT_LABEL, Products, by_names, by_spec
from extender.core.nodereader import read_nodes
from extender.core.shapes import Shape
from extender.core.strategies import STRATEGIES
from extender.core.values import PodOnNode, Reservation, ShareOnGpu
from extender.core.workload import EVERY, FIRST, Workload
from tests.builders import make_node, make_pod

Terms = list[list[tuple[str, str, list[str] | None]]]


class TestWorkload:
    def test_a_pod_counts_once_however_often_it_is_asked_about(self) -> None:
        workload = Workload()
        for _ in range(3):
            workload.count("u", Shape(1, 1))
        assert workload.arrivals == 1

    def test_refreshes_double_at_first_and_then_come_regularly(self) -> None:
        workload, due = Workload(), []
        for index in range(1200):
            workload.count(str(index), Shape(1, 1))
            if workload.is_due():
                workload.take()
                due.append(index + 1)
        assert due[:5] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST]
        assert due[-1] - due[-2] == EVERY

    def test_what_is_no_longer_asked_for_is_forgotten(self) -> None:
        workload = Workload(half_life=10)
        workload.count("old", Shape(1, 8))
        for index in range(200):
            workload.count(str(index), Shape(1, 1))
        assert list(workload.take()) == [Shape(1, 1)]

    def test_after_a_half_life_a_pod_counts_half(self) -> None:
        workload = Workload(half_life=10)
        workload.count("old", Shape(1, 8))
        for index in range(10):
            workload.count(str(index), Shape(1, 1))
        assert workload.take()[Shape(1, 8)] == pytest.approx(0.5)

    def test_memory_is_bounded(self) -> None:
        workload = Workload(shapes=10, uids=20)
        for index in range(5000):
            workload.count(str(index), Shape(index, 1))
        assert len(workload._weights) <= 20
        assert len(workload._uids) == 20
        assert len(workload.take()) <= 10
        assert sum(workload.products.values()) == pytest.approx(sum(workload.take().values()))

    def test_the_most_frequent_shapes_stay(self) -> None:
        workload = Workload(shapes=5, half_life=1e9)
        for index in range(300):
            workload.count(f"a{index}", Shape(1, 1))
            workload.count(f"b{index}", Shape(100 + index, 1))
        assert next(iter(workload.take())) == Shape(1, 1)

    def test_pods_without_gpus_push_none_out_that_has(self) -> None:
        """Most pods of a cluster want no GPU, and of those there are many kinds."""
        workload = Workload(shapes=5, half_life=10)
        for index in range(3):
            workload.count(f"gpu{index}", Shape(index, 1))
        for index in range(900):
            workload.count(f"cpu{index}", Shape(index % 30))
        kept = workload.take()
        assert [kept[Shape(index, 1)] for index in range(3)] == pytest.approx([1.0, 1.0, 1.0], rel=0.2)
        assert len(kept) == 5


class TestHoleValues:
    def test_nothing_known_prefers_the_fullest_gpu(self) -> None:
        values = hole_values({})
        assert values[GRID] == 1
        assert (np.diff(np.diff(values)) > 0).all(), "convex: filling a small hole costs less"

    def test_halves_only(self) -> None:
        values = hole_values({500: 3.0})
        assert values[499] == 0
        assert values[500] == values[999] == pytest.approx(0.5)

    def test_the_waste_is_what_the_best_packing_leaves(self) -> None:
        assert waste_of({400: 5.0}, hole_values({400: 5.0})) == pytest.approx(0.2)
        assert waste_of({400: 1.0, 600: 1.0}, hole_values({400: 1.0, 600: 1.0})) == pytest.approx(0, abs=1e-6)
        assert waste_of({}, hole_values({})) == 0

    def test_a_rare_filler_is_worth_nothing_where_the_large_ones_leave_enough_room(self) -> None:
        # Every 0.7 leaves 0.3: with few 0.2 about, such a hole is worth nothing.
        values = hole_values({700: 10.0, 200: 1.0})
        assert values[300] == pytest.approx(0, abs=1e-6)
        assert values[700] == pytest.approx(1)

    @settings(max_examples=40, deadline=None)
    @given(st.dictionaries(st.integers(20, GRID), st.floats(0.01, 10), min_size=1, max_size=8))
    def test_prices_are_feasible_and_as_good_as_any(self, demand: dict[int, float]) -> None:
        values = hole_values(demand)
        assert values[GRID] == 1
        assert (np.diff(values) >= 0).all()
        sizes = sorted(demand)
        # Feasible: no pattern that fits a GPU is worth more than the GPU. Pairs suffice to catch errors.
        for first, second in itertools.combinations_with_replacement(sizes, 2):
            if first + second <= GRID:
                assert values[first] + values[second] <= values[first + second] + 1e-9
        # As good as the obvious dual solutions: one GPU each above a half, and each its size.
        worth = sum(weight * values[size] for size, weight in demand.items())
        assert worth >= sum(weight for size, weight in demand.items() if size > GRID / 2) - 1e-4
        assert worth >= sum(weight * size for size, weight in demand.items()) / GRID - 1e-4


class TestModels:
    ALL = ("A", "B", "C")

    def test_no_word_of_the_product_says_nothing(self) -> None:
        assert by_spec(make_pod().spec(nodeSelector={"zone": "x"}).build(), self.ALL) is None

    def test_a_node_selector(self) -> None:
        pod = make_pod().spec(nodeSelector={PRODUCT_LABEL: "B"}).build()
        assert by_spec(pod, self.ALL) == frozenset("B")

    @pytest.mark.parametrize(
        ("operator", "values", "expected"),
        [("In", ["A", "B"], "AB"), ("NotIn", ["A"], "BC"), ("DoesNotExist", None, "")],
    )
    def test_a_required_affinity(self, operator: str, values: list[str] | None, expected: str) -> None:
        assert by_spec(affine([[(PRODUCT_LABEL, operator, values)]]), self.ALL) == frozenset(expected)

    def test_terms_are_alternatives_and_what_they_say_of_other_labels_is_left_open(self) -> None:
        terms: Terms = [[(PRODUCT_LABEL, "In", ["A"]), ("zone", "In", ["x"])], [(PRODUCT_LABEL, "In", ["C"])]]
        assert by_spec(affine(terms), self.ALL) == frozenset("AC")

    def test_all_that_have_room_are_named(self) -> None:
        assert by_names({"A": 3, "B": 2}, {"A": 3, "B": 2}, {}) is None

    def test_one_model_with_room_is_not_named(self) -> None:
        assert by_names({"A": 3, "B": 2}, {"A": 3}, {}) == frozenset("A")

    def test_a_sample_of_the_cluster_is_no_evidence(self) -> None:
        assert by_names({"A": 100, "B": 2}, {"A": 50}, {}) is None

    def test_a_model_without_room_is_taken_as_usual(self) -> None:
        usual: dict[Products, float] = {None: 5.0, frozenset({"A", "C"}): 1.0, frozenset({"A"}): 3.0}
        assert by_names({"A": 3, "B": 2, "C": 0}, {"A": 3}, usual) == frozenset("A")
        assert by_names({"A": 3, "B": 0, "C": 0}, {"A": 3}, usual) is None


def affine(terms: Terms) -> dict[str, Any]:
    selector = [
        {"matchExpressions": [{"key": key, "operator": op, "values": values} for key, op, values in term]}
        for term in terms
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": selector}}
    return make_pod().spec(affinity={"nodeAffinity": required}).build()


class TestDecisionsLearn:
    def cluster(self, strategy: str = names.ADAPTIVE) -> Decisions:
        decisions = Decisions(Policy(shortlist=1, strategy=strategy), claim_ttl=1, timer=lambda: 0.0)
        nodes = [make_node(f"n{i}").gpus(4, mib=1000, product="A" if i % 2 else "B").build() for i in range(6)]
        for node in read_nodes(nodes):
            decisions.ledger.put_node(node)
        return decisions

    def run(self, decisions: Decisions, count: int) -> list[list[str]]:
        found = []
        for index in range(count):
            pod = make_pod().uid(f"u{index}")
            pod = pod.gpu_memory(300 + 100 * (index % 3)) if index % 4 else pod.gpus(2)
            found.append(decisions.filter(pod.build(), [f"n{i}" for i in range(6)]).nodes)
        return found

    def test_the_same_history_gives_the_same_decisions(self) -> None:
        assert self.run(self.cluster(), 60) == self.run(self.cluster(), 60)

    def test_a_pod_that_is_asked_about_again_is_no_news(self) -> None:
        decisions = self.cluster()
        self.run(decisions, 5)
        self.run(decisions, 5)
        assert decisions.workload.arrivals == 5

    def test_a_restart_learns_from_the_pods_in_the_cluster(self) -> None:
        decisions = self.cluster()
        for index in range(40):
            decisions.saw(make_pod().uid(f"u{index}").gpus(4).build())
        assert decisions.workload.arrivals == 40
        nodes = decisions.fragmentation()
        assert nodes == dict.fromkeys(nodes, 0.0)

    def test_what_is_learned_of_a_model_is_the_model_that_the_pod_names(self) -> None:
        decisions = self.cluster()
        decisions.filter(make_pod().uid("a").gpus(1).build(), ["n1", "n3", "n5"])
        decisions.filter(make_pod().uid("b").gpus(1).spec(nodeSelector={PRODUCT_LABEL: "B"}).build(), ["n0"])
        decisions.filter(make_pod().uid("c").gpus(1).build(), [f"n{i}" for i in range(6)])
        assert set(decisions.workload.products) == {frozenset({"A"}), frozenset({"B"}), None}

    def test_a_model_that_comes_in_the_place_of_a_node_that_went_is_known(self) -> None:
        decisions = self.cluster()
        decisions.saw(make_pod().uid("a").gpus(1).build())
        decisions.ledger.drop_node("n5")
        decisions.filter(make_pod().uid("b").gpus(1).build(), ["n0"])
        (node,) = read_nodes([make_node("new").gpus(2, mib=1000, product="C").build()])
        decisions.ledger.put_node(node)
        decisions.saw(make_pod().uid("c").gpus(1).spec(nodeSelector={PRODUCT_LABEL: "C"}).build())
        assert frozenset({"C"}) in decisions.workload.products

    @pytest.mark.parametrize("strategy", names.STRATEGIES)
    def test_one_kind_of_pod_fills_gpu_after_gpu(self, strategy: str) -> None:
        decisions = self.cluster(strategy)
        pod = make_pod().gpu_memory(250)
        for index in range(40):
            assert decisions.filter(pod.uid(f"u{index}").build(), [f"n{i}" for i in range(6)]).nodes

    def test_learning_can_happen_in_another_process(self) -> None:
        decisions = self.cluster()
        self.run(decisions, 40)
        seen = decisions._seen()
        here = refresh(seen, STRATEGIES.values()).by_strategy[names.ADAPTIVE]
        sent = pickle.loads(pickle.dumps(seen))
        there = pickle.loads(pickle.dumps(refresh(sent, STRATEGIES.values()))).by_strategy[names.ADAPTIVE]
        assert np.array_equal(here.holes, there.holes)
        assert np.array_equal(here.fragmentation.single, there.fragmentation.single)
        assert here.cpu_per_gpu == there.cpu_per_gpu

    def test_a_slow_refresh_is_swapped_in_later_and_nobody_waits(self) -> None:
        waiting: list[Any] = []
        decisions = Decisions(
            Policy(strategy=names.ADAPTIVE), claim_ttl=1, timer=lambda: 0.0, refresher=lambda *job: waiting.append(job)
        )
        for node in read_nodes([make_node("n0").gpus(4, mib=1000).build()]):
            decisions.ledger.put_node(node)
        for index in range(20):
            decisions.filter(make_pod().uid(f"u{index}").gpu_memory(300).build(), ["n0"])
            decisions.claims.end(f"u{index}")
        assert len(waiting) == 2, "after 8 and 16 pods"
        seen, strategies, adopt = waiting[0]
        adopt(refresh(seen, strategies))
        assert decisions.filter(make_pod().uid("last").gpu_memory(300).build(), ["n0"]).nodes == ["n0"]

    def test_fragmentation_is_what_the_requests_seen_cannot_use(self) -> None:
        decisions = self.cluster(names.BINPACK)
        for index in range(8):
            decisions.saw(make_pod().uid(f"u{index}").gpu_memory(400).build())
        assert decisions.fragmentation() == dict.fromkeys((f"n{i}" for i in range(6)), 0.0)
        # Two fit on a GPU; the 200 MiB that are left are useless.
        decisions.ledger.put_reservation(Reservation("g", "n0"))
        for index in range(2):
            shares = (ShareOnGpu("g", None, 400),)
            decisions.ledger.observe(PodOnNode(f"h{index}", "d", f"h{index}", "n0", {}, shares))
        found = decisions.fragmentation()
        assert found["n0"] == pytest.approx(200)
        assert found["n1"] == 0
