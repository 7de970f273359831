"""Fragmentation by tables is fragmentation by its definition."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.core.decisions import Decisions, Policy
from extender.core.fleet import CPU, Fleet, Kind
from extender.core.fragmentation import fragmentation_of, free_gpus, usable_by_shape
from extender.core.nodereader import read_nodes
from extender.core.options import Nodes, Order, Room, options
from extender.core.placement import Shortfall, fit
from extender.core.requests import GpuRequest, Share
from extender.core.shapes import Shape, Shapes
from extender.core.values import PodOnNode, Reservation, ShareOnGpu
from tests.builders import PodBuilder, make_node, make_pod

KINDS = (Kind("A", 1000, True), Kind("B", 500, True), Kind("A", 1000, False))

shares = st.one_of(
    st.builds(lambda mib: Share(memory_mib=mib), st.integers(1, 1100)),
    st.builds(lambda part: Share(Fraction(part, 10)), st.integers(1, 9)),
)
products = st.sampled_from([None, frozenset({"A"}), frozenset({"B"}), frozenset({"C"})])
shapes = st.one_of(
    st.builds(lambda cpu, share, p: Shape(cpu, 1, share, p), st.integers(0, 5), shares, products),
    st.builds(Shape, st.integers(0, 5), st.integers(2, 3), shares, products),
    st.builds(lambda cpu, d, p: Shape(cpu, d, None, p), st.integers(0, 5), st.integers(1, 4), products),
    st.integers(0, 5).map(Shape),
)
one_node = st.tuples(
    st.integers(-1, 6), st.integers(0, 3), st.lists(st.integers(0, 499), min_size=3, max_size=3), st.integers(0, 2)
)


def as_nodes(nodes: list[tuple[int, int, list[int], int]]) -> Nodes:
    cpu, whole, free, kind = zip(*nodes, strict=True)
    cards = [KINDS[k].card for k in kind]
    by_gpu = list(zip(*free, strict=True))
    return Nodes(*(np.array(values, np.int64) for values in (cpu, whole, by_gpu, cards, kind, [6] * len(nodes), cpu)))


def by_definition(shape: Shape, node: tuple[int, int, list[int], int]) -> float:
    """f_k(n) in GPUs, word for word."""
    cpu, whole, shared, index = node
    kind = KINDS[index]
    free = [*shared, *[kind.card] * whole]
    mib = shape.mib_on(kind)
    # What asks for several whole GPUs can only use those that nobody shares.
    candidates = [kind.card] * whole if shape.share is None and shape.devices > 1 else free
    runs = mib is not None and cpu >= shape.cpu and sum(hole >= mib for hole in candidates) >= shape.devices
    if not runs or mib is None:
        return sum(free) / kind.card
    return (sum(free) - sum(hole for hole in candidates if hole >= mib)) / kind.card


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(shapes, st.floats(0.1, 5), max_size=8), st.lists(one_node, min_size=1, max_size=5)
)  # fmt: skip
def test_it_is_the_weighted_sum_over_shapes(
    weights: dict[Shape, float], nodes: list[tuple[int, int, list[int], int]]
) -> None:
    table = Shapes.of(tuple(weights), KINDS)
    found = fragmentation_of(table, np.array(list(weights.values()), float)).of(as_nodes(nodes))
    expected = [sum(w * by_definition(shape, node) for shape, w in weights.items()) for node in nodes]
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=8, unique=True), st.lists(one_node, min_size=1, max_size=5))
def test_usable_by_shape_adds_up_what_is_not_fragmented(
    asked: list[Shape], nodes: list[tuple[int, int, list[int], int]]
) -> None:
    arrays = as_nodes(nodes)
    found = usable_by_shape(Shapes.of(asked, KINDS), arrays)
    free = float(free_gpus(arrays).sum())
    for shape, usable in zip(asked, found.tolist(), strict=True):
        useless = sum(by_definition(shape, node) for node in nodes) if shape.devices else free
        assert usable == pytest.approx(free - useless, abs=1e-9)


requests = st.one_of(
    st.builds(lambda mib, d: make_pod().gpu_memory(mib).num_devices(d), st.integers(1, 499), st.integers(1, 3)),
    st.builds(lambda count: make_pod().gpus(count), st.integers(1, 3)),
    st.just(make_pod().container("main", requests={"cpu": "100m"})),
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(shapes, st.floats(0.1, 5), max_size=8), st.lists(st.integers(1, 700), max_size=3), requests,
    st.integers(2, 7),
)  # fmt: skip
def test_the_change_is_what_the_definition_says_of_the_node_after(
    weights: dict[Shape, float], held: list[int], pod: PodBuilder, cpu: int
) -> None:
    """On a node of four GPUs of which some are shared: every choice against the node as it would stand."""
    weights = {shape._replace(cpu=50 * shape.cpu): weight for shape, weight in weights.items()}
    fleet = Fleet()
    decisions = Decisions(Policy(), claim_ttl=1, timer=lambda: 0.0)
    (node,) = read_nodes([make_node("n").gpus(4, mib=1000, product="A").cpu(f"{50 * cpu}m").build()])
    decisions.ledger.put_node(node)
    for index, mib in enumerate(held):
        decisions.ledger.put_reservation(Reservation(f"g{index}", "n", device=f"d{index}", memory_mib=1000))
        shares = (ShareOnGpu(f"g{index}", f"d{index}", mib),)
        decisions.ledger.observe(PodOnNode(f"h{index}", "d", f"h{index}", "n", {}, shares))
    state = decisions.ledger.state("n")
    request = GpuRequest.from_pod(pod.build())
    assert state is not None
    assert isinstance(request, GpuRequest)
    if isinstance(fit(state, request), Shortfall):
        return
    row = fleet.row(state)
    room = Room.of(row, request, tuple(fleet.sizes))
    choices = options(row, request, room, fills_first=False, order=Order.TIGHTEST)
    found = fragmentation_of(Shapes.of(tuple(weights), KINDS), np.array(list(weights.values()), float)).change(
        choices, choices.taken()
    )
    free = [gpu.free_mib for gpu in state.gpus]
    before = (int(row.facts[CPU, 0]), state.whole_free, free, 0)
    for index, gpus in enumerate(choices.on.T.tolist()):
        rests = (choices.holes - choices.mib)[:, index].tolist()
        shared = [*free, *(rest for gpu, rest in zip(gpus, rests, strict=True) if gpu < 0)]
        for gpu, rest in zip(gpus, rests, strict=True):
            if gpu >= 0:
                shared[gpu] = rest
        opened = gpus.count(-1)
        left = int(row.facts[CPU, 0]) - request.cpu_milli - 50 * opened
        after = (left, state.whole_free - opened - request.whole_gpus, shared, 0)
        expected = sum(w * (by_definition(s, after) - by_definition(s, before)) for s, w in weights.items())
        assert found[index] == pytest.approx(expected, abs=1e-9)


def test_a_node_of_a_kind_that_came_later_is_useless_for_all() -> None:
    table = Shapes.of([Shape(0, 1)], KINDS[:1])
    nodes = as_nodes([(4, 2, [0, 0, 0], 1)])
    assert fragmentation_of(table, np.array([1.0])).of(nodes).tolist() == [2.0]


def test_nothing_seen_means_no_fragmentation() -> None:
    table = Shapes.of([], KINDS)
    nodes = as_nodes([(4, 2, [100, 0, 0], 0)])
    assert fragmentation_of(table, np.array([])).of(nodes).tolist() == [0.0]
