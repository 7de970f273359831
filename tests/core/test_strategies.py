"""Each strategy's formula, on cases small enough to work out by hand."""

from typing import Any

import pytest

from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.requests import GpuRequest
from extender.core.strategies.adaptive import SCARCE_MODEL
from tests.builders import NodeBuilder, make_node, make_pod


def cluster(strategy: str, *nodes: NodeBuilder) -> Decisions:
    decisions = Decisions(Policy(shortlist=0, strategy=strategy), claim_ttl=1, timer=lambda: 0.0)
    for node in read_nodes([node.build() for node in nodes]):
        decisions.ledger.put_node(node)
    return decisions


def hold(decisions: Decisions, node: str, pod: Any, gpu: str = "") -> None:
    """Bind the pod there; ``gpu`` names the GPU that is opened for it."""
    request = request_of(pod)
    uid = f"held-{node}-{len(decisions.ledger.pods(node))}"
    placement = decisions.choose(node, request)
    if gpu:
        assert request.share is not None
        placement = Placement((), 1, (request.share.mib_of(1000),))
    assert isinstance(placement, Placement)
    decisions.ledger.assume(
        uid=uid, namespace="d", name=uid, node=node, request=request, placement=placement,
        new_ids=[gpu or f"{uid}-{i}" for i in range(placement.new)],
    )  # fmt: skip
    decisions.ledger.confirm(uid)


def request_of(pod: Any) -> GpuRequest:
    request = GpuRequest.from_pod(pod.build())
    assert isinstance(request, GpuRequest)
    return request


def order(decisions: Decisions, pod: Any) -> list[str]:
    return decisions.filter(pod.uid("asked").build(), [state.name for state in decisions.ledger.snapshot()]).nodes


def chosen(decisions: Decisions, node: str, pod: Any) -> list[str]:
    placement = decisions.choose(node, request_of(pod))
    assert isinstance(placement, Placement)
    return [gpu.id for gpu in placement.on] + ["new"] * placement.new


def gpus(name: str, count: int = 4, **more: Any) -> NodeBuilder:
    return make_node(name).gpus(count, mib=1000, **more)


class TestBinpack:
    def test_fills_a_shared_gpu_before_opening_one_and_the_tightest_first(self) -> None:
        decisions = cluster(names.BINPACK, gpus("a"), gpus("b"), gpus("c"))
        hold(decisions, "b", make_pod().gpu_memory(300))
        hold(decisions, "c", make_pod().gpu_memory(600))
        assert order(decisions, make_pod().gpu_memory(200)) == ["c", "b", "a"]

    def test_inside_a_node_the_tightest_gpu(self) -> None:
        decisions = cluster(names.BINPACK, gpus("a"))
        hold(decisions, "a", make_pod().gpu_memory(300), "roomy")
        hold(decisions, "a", make_pod().gpu_memory(500), "tight")
        assert chosen(decisions, "a", make_pod().gpu_memory(100)) == ["tight"]
        assert chosen(decisions, "a", make_pod().gpu_memory(100).num_devices(2)) == ["tight", "roomy"]

    def test_whole_gpus_come_from_the_node_with_the_fewest(self) -> None:
        decisions = cluster(names.BINPACK, gpus("a"), gpus("b", 2))
        assert order(decisions, make_pod().gpus(1)) == ["b", "a"]


class TestSpread:
    def test_the_least_used_node_and_its_emptiest_gpu(self) -> None:
        decisions = cluster(names.SPREAD, gpus("a"), gpus("b"))
        hold(decisions, "a", make_pod().gpu_memory(300), "roomy")
        hold(decisions, "a", make_pod().gpu_memory(500), "tight")
        assert order(decisions, make_pod().gpu_memory(100)) == ["b", "a"]
        assert chosen(decisions, "a", make_pod().gpu_memory(100)) == ["roomy"]

    def test_opens_no_gpu_where_a_shared_one_has_room(self) -> None:
        decisions = cluster(names.SPREAD, gpus("a"))
        hold(decisions, "a", make_pod().gpu_memory(900))
        assert "new" not in chosen(decisions, "a", make_pod().gpu_memory(100))


class TestFgd:
    def test_the_score_is_the_published_one(self) -> None:
        decisions = cluster(names.FGD, gpus("a", 1))
        for index in range(8):
            decisions.saw(make_pod().uid(f"s{index}").gpu_memory(600).build())
        decisions.catch_up()
        state = decisions.ledger.state("a")
        assert state is not None
        _, terms = decisions.place(state, request_of(make_pod().gpu_memory(600)))
        # Empty: all of it is usable, F = 0. After: 0.4 of a GPU that no 600 fits. int(100 · sigmoid(-0.4)) = 40.
        assert sum(term.cost for term in terms.values()) == -40

    def test_takes_the_place_where_nothing_is_broken(self) -> None:
        decisions = cluster(names.FGD, gpus("a"), gpus("b"))
        hold(decisions, "b", make_pod().gpu_memory(400))
        for index in range(8):
            decisions.saw(make_pod().uid(f"s{index}").gpu_memory(600).build())
        assert order(decisions, make_pod().gpu_memory(600)) == ["b", "a"]


class TestAdaptive:
    def test_terms_add_up_to_the_cost_and_have_names(self) -> None:
        decisions = cluster(names.ADAPTIVE, gpus("a"))
        state = decisions.ledger.state("a")
        assert state is not None
        _, terms = decisions.place(state, request_of(make_pod().gpu_memory(600)))
        always = {"fragmentation", "GPUs without CPU", "free GPUs of its node"}
        assert set(terms) == always | {"value of its hole", "opening GPUs"}

    def test_before_anything_is_learned_it_fills_the_fullest_gpu(self) -> None:
        decisions = cluster(names.ADAPTIVE, gpus("a"), gpus("b"), gpus("c"))
        hold(decisions, "b", make_pod().gpu_memory(300))
        hold(decisions, "c", make_pod().gpu_memory(600))
        assert order(decisions, make_pod().gpu_memory(200)) == ["c", "b", "a"]

    def test_keeps_a_hole_for_what_fits_it_exactly(self) -> None:
        # 700 and 300 are asked for: the 200 leaves the hole of 300 alone and takes the one that is useless anyway.
        decisions = cluster(names.ADAPTIVE, gpus("a"), gpus("b"))
        hold(decisions, "a", make_pod().gpu_memory(700))
        hold(decisions, "b", make_pod().gpu_memory(750))
        for index in range(40):
            decisions.saw(make_pod().uid(f"s{index}").gpu_memory(300 if index % 2 else 700).build())
        assert order(decisions, make_pod().gpu_memory(200))[0] == "b"

    def test_opens_no_gpu_of_a_node_that_has_a_shared_one_with_room(self) -> None:
        """However well its hole would serve others: opening takes seconds, and an untouched GPU serves everybody."""
        decisions = cluster(names.ADAPTIVE, gpus("a"))
        hold(decisions, "a", make_pod().gpu_memory(300), "roomy")
        for index in range(40):
            decisions.saw(make_pod().uid(f"s{index}").gpu_memory(500).build())
        decisions.catch_up()
        assert chosen(decisions, "a", make_pod().gpu_memory(300)) == ["roomy"]

    def test_keeps_the_model_that_others_name(self) -> None:
        decisions = cluster(names.ADAPTIVE, gpus("a", product="A"), gpus("b", product="B"))
        named = make_pod().gpus(1).spec(nodeSelector={"nvidia.com/gpu.product": "A"})
        for index in range(16):
            decisions.saw(named.uid(f"n{index}").build())
            decisions.saw(make_pod().uid(f"s{index}").gpus(1).build())
        assert order(decisions, make_pod().gpus(1)) == ["b", "a"]

    def test_pods_without_gpus_have_no_say_in_which_gpu_is_taken(self) -> None:
        """Where cards differ they had: to them a small card was worth as much as a large one."""

        def cost(others: int, node: str) -> Any:
            small, large = gpus("small", product="A"), make_node("large").gpus(4, mib=5000, product="B")
            decisions = cluster(names.ADAPTIVE, small, large)
            for index in range(16):
                decisions.saw(make_pod().uid(f"s{index}").gpu_memory(500).build())
                decisions.saw(make_pod().uid(f"w{index}").gpus(2).build())
            for index in range(others):
                decisions.saw(make_pod().uid(f"o{index}").container("m", requests={"cpu": "4"}).build())
            decisions.relearn()
            state = decisions.ledger.state(node)
            assert state is not None
            _, terms = decisions.place(state, request_of(make_pod().gpu_memory(500)))
            return {name: term.amount for name, term in terms.items()}

        for node in ("small", "large"):
            assert cost(900, node) == pytest.approx(cost(0, node))

    @pytest.mark.parametrize("mib", [250, 300, 400, 500])
    def test_one_kind_of_pod_opens_a_gpu_only_where_none_has_room(self, mib: int) -> None:
        """Two 400 leave 200 that nobody can use: that is no reason to open a GPU for each."""
        decisions = cluster(names.ADAPTIVE, *(gpus(f"n{i}") for i in range(4)))
        pod = make_pod().gpu_memory(mib)
        for index in range(30):
            (best, *_) = order(decisions, pod.uid(f"u{index}"))
            hold(decisions, best, pod)
            decisions.claims.end(f"u{index}")
            decisions.saw(pod.uid(f"seen{index}").build())
        opened = sum(len(state.gpus) for state in decisions.ledger.snapshot())
        assert opened == -(-30 // (1000 // mib))

    @pytest.mark.parametrize("asked", [make_pod().gpus(1), make_pod().gpu_memory(500), make_pod()])
    @pytest.mark.parametrize("seen", [0, 5, 12])
    def test_breaks_into_no_empty_node_while_a_fuller_one_is_as_good(self, asked: Any, seen: int) -> None:
        """Few pods or one kind of them teach nothing about large ones, but an 8-GPU pod may be the next."""
        decisions = cluster(names.ADAPTIVE, gpus("a", 8), gpus("b", 8))
        hold(decisions, "b", make_pod().gpus(4))
        for index in range(seen):
            decisions.saw(make_pod().uid(f"one{index}").gpus(1).build())
        decisions.catch_up()
        scores = decisions.prioritize(asked.uid("asked").build(), ["a", "b"])
        assert scores["b"] > scores["a"]

    def test_a_model_in_overload_drives_nobody_onto_the_nodes_that_large_pods_need(self) -> None:
        """However much is asked of a model: a GPU of it that is taken costs one GPU."""
        decisions = cluster(names.ADAPTIVE, gpus("a", 2, product="A"), gpus("b", 8, product="B"))
        bound = make_pod().gpus(1).spec(nodeSelector={"nvidia.com/gpu.product": "A"})
        hold(decisions, "a", make_pod().gpus(1))
        for index in range(40):
            decisions.saw(bound.uid(f"a{index}").build())
        decisions.catch_up()
        state = decisions.ledger.state("a")
        assert state is not None
        _, terms = decisions.place(state, request_of(make_pod().gpus(1)))
        assert terms["scarcity of the GPU model"] == pytest.approx((1.0, SCARCE_MODEL))

    @pytest.mark.parametrize(("empty", "best"), [(1, "full"), (20, "empty")])
    def test_breaks_into_no_node_that_pods_of_many_gpus_need_once_these_are_few(self, empty: int, best: str) -> None:
        """Others have little CPU left, and a pod there makes their other GPUs useless: that is the smaller loss."""
        nodes = [gpus(f"empty{i}", 8).cpu(128) for i in range(empty)] + [gpus(f"full{i}", 8).cpu(15) for i in range(9)]
        decisions = cluster(names.ADAPTIVE, *nodes)
        for index in range(9):
            hold(decisions, f"full{index}", make_pod().gpus(4))
        one = make_pod().container("m", requests={"cpu": "10"}, limits={"nvidia.com/gpu": "1"})
        for index in range(39):
            decisions.saw(one.uid(f"one{index}").build())
        decisions.saw(make_pod().uid("eight").gpus(8).build())
        decisions.relearn()
        assert order(decisions, one)[0].startswith(best)

    def test_leaves_gpus_where_cpu_can_feed_them(self) -> None:
        decisions = cluster(names.ADAPTIVE, gpus("a").cpu(8), gpus("b").cpu(64), gpus("c").cpu(64))
        for _ in range(4):
            hold(decisions, "c", make_pod().container("m", requests={"cpu": "2"}, limits={"nvidia.com/gpu": "1"}))
        decisions.relearn()
        asked = make_pod().container("m", requests={"cpu": "8"}, limits={"nvidia.com/gpu": "1"})
        assert order(decisions, asked)[0] == "b"

    @pytest.mark.parametrize(("node", "best"), [("without", "a"), ("sliced", "a"), ("with", "b")])
    def test_pods_without_gpus_need_cpu_only_where_gpus_are_given_out(self, node: str, best: str) -> None:
        """On "a" 5 CPU would be left for each GPU: enough, unless the nodes with GPUs serve others as well."""
        nodes = [gpus("a").cpu(32), gpus("b").cpu(64), gpus("with").cpu(64), make_node("without").cpu(64)]
        slices = {"replicas": "4", "sharing-strategy": "time-slicing", "product": "H100-SHARED"}
        sliced = gpus("sliced", 16).cpu(64)
        for key, value in slices.items():
            sliced.label(f"nvidia.com/gpu.{key}", value)
        nodes.append(sliced)
        decisions = cluster(names.ADAPTIVE, *nodes)
        hold(decisions, "with", make_pod().container("m", requests={"cpu": "16"}, limits={"nvidia.com/gpu": "4"}))
        hold(decisions, node, make_pod().container("m", requests={"cpu": "30"}))
        decisions.relearn()
        asked = make_pod().container("m", requests={"cpu": "16"}, limits={"nvidia.com/gpu": "1"})
        assert next(name for name in order(decisions, asked) if name in ("a", "b")) == best


@pytest.mark.parametrize("strategy", names.STRATEGIES)
def test_nodes_that_are_equal_go_by_the_order_of_the_ledger(strategy: str) -> None:
    decisions = cluster(strategy, *(gpus(f"n{i}") for i in range(5)))
    assert order(decisions, make_pod().gpu_memory(500)) == [f"n{i}" for i in range(5)]


@pytest.mark.parametrize("strategy", names.STRATEGIES)
def test_a_pod_without_gpus_goes_where_there_are_none(strategy: str) -> None:
    decisions = cluster(strategy, gpus("a"), make_node("b"), make_node("c"))
    scores = decisions.prioritize(make_pod().container("m", requests={"cpu": "1"}).build(), ["a", "b", "c"])
    assert scores == {"a": 9, "b": 10, "c": 10}


def test_a_pod_may_wish_another_strategy() -> None:
    decisions = cluster(names.BINPACK, gpus("a"), gpus("b"))
    hold(decisions, "b", make_pod().gpu_memory(300))
    assert order(decisions, make_pod().gpu_memory(200).strategy("spread")) == ["a", "b"]
    assert order(decisions, make_pod().gpu_memory(200)) == ["b", "a"]
