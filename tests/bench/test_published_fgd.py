"""The arithmetic of the paper's simulator, in which rounding counts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.packing.openb import Trace, TraceNode, TracePod
from bench.packing.published_fgd import Foreknown, PublishedFgd, TypicalPods
from bench.packing.replay import Cluster
from extender.core.fleet import Kind
from extender.core.options import Nodes
from extender.core.seen import Seen
from extender.core.strategies.fgd import Fgd

#: As the simulator writes a pod: CPU, milli of each GPU, GPUs, models.
Pod = tuple[int, int, int, str]
#: Model, free CPU, free milli of each GPU.
Node = tuple[str, int, list[int]]

pods = st.one_of(
    st.tuples(st.integers(0, 5), st.just(0), st.just(0), st.just("")),
    st.tuples(st.integers(0, 5), st.integers(1, 999), st.just(1), st.sampled_from(["", "A", "A|B", "A|B|B", "C"])),
    st.tuples(st.integers(0, 5), st.just(1000), st.integers(1, 3), st.sampled_from(["", "B", "B|A"])),
)
a_node = st.tuples(
    st.sampled_from("AB"), st.integers(0, 6), st.lists(st.integers(0, 1000) | st.just(1000), min_size=3, max_size=3)
)


def of_trace(name: str, pod: Pod) -> TracePod:
    cpu, milli, count, models = pod
    return TracePod(name, cpu, 1, count, milli, models)


KINDS = (Kind("A", 1000, True), Kind("B", 1000, True))


def learned(seen: list[Pod]) -> TypicalPods:
    none = np.zeros(0, np.int64)
    nodes = Nodes(none, none, none[None], none, none, none, none)
    named = {f"p{i}": of_trace(f"p{i}", pod) for i, pod in enumerate(seen)}
    return PublishedFgd().learn(Seen.of(Foreknown(named).take(), KINDS, nodes))


def typical(seen: list[Pod]) -> list[tuple[Pod, float]]:
    """The simulator's list: counted, sorted, cut and normalised, step by step."""
    counts: dict[Pod, float] = {}
    for pod in seen:
        counts[pod] = counts.get(pod, 0.0) + 1
    total = sum(counts.values())
    chosen: list[tuple[Pod, float]] = []
    covered = 0.0
    for count, pod in sorted(((count, pod) for pod, count in counts.items()), reverse=True):
        if covered < 95 * total / 100:
            covered += count
            chosen.append((pod, count / total))
    return [(pod, part / (covered / total)) for pod, part in chosen]


def useless(node: Node, pods: list[tuple[Pod, float]]) -> float:
    """F, with a sum for each reason."""
    model, free_cpu, gpus = node
    reasons = dict.fromkeys(("both", "gpu", "cpu", "cpu pod", "cpu pod lacks", "model"), 0.0)
    for (cpu, milli, count, models), part in pods:
        has_cpu = free_cpu >= cpu
        if milli == 0:
            reasons["cpu pod" if has_cpu else "cpu pod lacks"] += part * float(sum(gpus))
        elif models and model not in models.split("|"):
            reasons["model"] += part * float(sum(gpus))
        elif sum(gpu >= milli for gpu in gpus) < count:
            reasons["gpu" if has_cpu else "both"] += part * float(sum(gpus))
        elif not has_cpu:
            reasons["cpu"] += part * float(sum(gpus))
        else:
            reasons["gpu"] += part * float(sum(gpu for gpu in gpus if gpu < milli))
    found = 0.0
    for amount in reasons.values():
        found += amount
    return found


@given(st.lists(pods, min_size=1, max_size=12), st.lists(a_node, min_size=1, max_size=4))
def test_f_is_the_simulators_to_the_last_bit(seen: list[Pod], nodes: list[Node]) -> None:
    kinds = np.array(["AB".index(model) for model, _, _ in nodes])
    cpu = np.array([1000 * free for _, free, _ in nodes])
    whole = np.array([sum(gpu == 1000 for gpu in gpus) for _, _, gpus in nodes])
    free = np.array([[gpu % 1000 for gpu in gpus] for _, _, gpus in nodes]).T
    expected = [useless(node, typical(seen)) for node in nodes]
    assert learned(seen).useless(kinds, cpu, whole, free).tolist() == expected


def test_it_is_the_products_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    product: list[Any] = []
    looked_at = 0

    def learn(_self: PublishedFgd, seen: Any) -> TypicalPods:
        product.append(Fgd().learn(seen))
        return TypicalPods.of(seen)

    def change(self: PublishedFgd, options: Any, typical: TypicalPods) -> Any:
        nonlocal looked_at
        looked_at += len(options.node)
        found = original(self, options, typical)
        assert found == pytest.approx(product[-1].change(options, options.taken()), abs=1e-9)
        return found

    original = PublishedFgd.change
    monkeypatch.setattr(PublishedFgd, "learn", learn)
    monkeypatch.setattr(PublishedFgd, "change", change)
    seen = [(1, 0, 0, ""), (1, 300, 1, ""), (2, 450, 1, "A"), (1, 1000, 1, ""), (2, 1000, 2, "B"), (1, 700, 1, "A|B")]
    named = {f"p{i}": of_trace(f"p{i}", pod) for i, pod in enumerate(seen)}
    nodes = tuple(TraceNode(f"n{i}", 9, 99, 3, model) for i, model in enumerate("AABBAB"))
    cluster = Cluster(Trace(nodes, named, ()), "fgd")
    placed = [cluster.place(f"u{i}", of_trace("x", pod)) for i, pod in enumerate(seen * 4)]
    assert None in placed
    assert looked_at > 50


def test_a_model_that_is_named_twice_makes_another_shape() -> None:
    named = {text: of_trace(text, (1, 300, 1, text)) for text in ("A|B", "A|B|B", "A|B ")}
    pods = {**named, "again": dataclasses.replace(named["A|B"], name="again")}
    assert sorted(Foreknown(pods).take().values()) == [1, 1, 2]


def test_all_shapes_count_however_many_there_are() -> None:
    named = {f"p{cpu}": of_trace(f"p{cpu}", (cpu, 300, 1, "")) for cpu in range(600)}
    assert len(Foreknown(named).take()) == 600
