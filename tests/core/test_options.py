"""The arrays agree with ``fit``: same verdict, and the placements of every strategy are possible."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.core import names
from extender.core.codes import CODE, FITS
from extender.core.decisions import Decisions, Policy
from extender.core.fleet import Fleet
from extender.core.inventory import reported_memory
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.options import Options, Order, Room, codes, is_plain, options
from extender.core.placement import Placement, Shortfall, fit, has_choice
from extender.core.requests import LIMITS, GpuRequest
from extender.core.strategies import STRATEGIES
from extender.core.values import NodeState, PodOnNode, Reservation, ShareOnGpu
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.core.node_cases import device, resource_slice


def prepared(pod: PodBuilder, *backends: str) -> PodBuilder:
    """As the admission policy makes it for these backends."""
    for backend in backends:
        variable, key = LIMITS[backend]
        pod.env("main", **{variable: f"{key}.0"})
    return pod


LARGE = "GPU-b"
pods = st.one_of(
    st.builds(
        lambda mib, devices: make_pod().gpu_memory(mib).num_devices(devices), st.integers(1, 1200), st.integers(1, 4)
    ),
    st.builds(lambda part, devices: make_pod().gpu_fraction(f"0.{part}").num_devices(devices),
              st.integers(1, 9), st.integers(1, 3)),
    st.builds(lambda count: make_pod().gpus(count), st.integers(1, 5)),
    st.builds(
        lambda mib, backends: prepared(make_pod().gpu_memory(mib).container("main"), *backends),
        st.integers(1, 1200), st.sets(st.sampled_from(sorted(LIMITS))),
    ),
    st.just(make_pod().container("main", requests={"cpu": "2"})),
    st.just(make_pod().spec(priorityClassName="system-node-critical")),
    st.just(make_pod().gpus(1, "nvidia.com/mig-1g.10gb")),
)  # fmt: skip


def node(kind: str, index: int) -> NodeBuilder:
    built = make_node(f"n{index}").cpu(3)
    match kind:
        case "none" | "dra":
            return built
        case "unknown memory":
            return built.gpus(4, mib=None)
        case "small":
            return built.gpus(2, mib=500)
        case "mixed":
            # One that is open is larger than what a new one counts for.
            unlabelled = built.gpus(4, mib=None)
            boot = unlabelled.build()["status"]["nodeInfo"]["bootID"]
            return unlabelled.annotation(names.REPORTED_MEMORY, reported_memory(boot, {"GPU-a": 400, LARGE: 1100}))
        case "tight":
            return built.gpus(4, mib=1000).cpu("60m").pod_slots(4)
        case "time-sliced":
            built.gpus(1, mib=1000, product="X-SHARED").resource(names.GPU_RESOURCE, 4)
            return built.label("nvidia.com/gpu.sharing-strategy", "time-slicing").label("nvidia.com/gpu.replicas", "4")
        case "cordoned":
            return built.gpus(4, mib=1000).cordoned()
        case "off":
            return built.gpus(4, mib=1000).label(names.SHARING_LABEL, "disabled")
        case names.HAMI_CORE | names.MPS | names.NRI | "unheard-of":
            return built.gpus(4, mib=1000).label(names.ENFORCEMENT_LABEL, kind)
    return built.gpus(4, mib=1000)


_LABELLED = (names.HAMI_CORE, names.MPS, names.NRI, "unheard-of")
_OTHER_WAYS = ("time-sliced", "dra")
_WHOLE = ("plain", "none", "unknown memory", "small", "mixed", "tight", "cordoned", "off", "barred")
kinds = st.lists(
    st.sampled_from([*_WHOLE, *_OTHER_WAYS, *_LABELLED]),
    min_size=1,
    max_size=4,
)


def parsed(pod: Any) -> GpuRequest:
    request = GpuRequest.from_pod(pod)
    assert isinstance(request, GpuRequest)
    return request


def filled(cluster: list[str], arrivals: list[Any], strategy: str) -> Decisions:
    """Each pod is placed by filter and choose, as in a replay; the ledger refuses what is not possible."""
    decisions = Decisions(Policy(shortlist=1, strategy=strategy), claim_ttl=1, timer=lambda: 0.0)
    slices = [resource_slice(device("gpu-0", uuid="GPU-0", pci="0000:00:00.0"), node=f"n{index}", name=f"n{index}")
              for index, kind in enumerate(cluster) if kind == "dra"]  # fmt: skip
    for read in read_nodes([node(kind, index).build() for index, kind in enumerate(cluster)], slices):
        decisions.ledger.put_node(read)
        if cluster[int(read.name[1:])] == "mixed":
            decisions.ledger.put_reservation(
                Reservation(f"{read.name}-large", read.name, uid="r", device=LARGE, memory_mib=1100)
            )
    late = len(arrivals) // 2  # A node is barred with GPUs already open on it.
    for index, builder in enumerate(arrivals):
        if index == late:
            bar(decisions, cluster)
        pod = builder.uid(f"u{index}").build()
        request = parsed(pod)
        found = decisions.filter(pod, [f"n{i}" for i in range(len(cluster))]).nodes
        if not found:
            continue
        placement = decisions.choose(found[0], request)
        assert isinstance(placement, Placement), "what filter passes, choose places"
        new_ids = [f"g{index}-{i}" for i in range(placement.new)]
        decisions.ledger.assume(
            uid=f"u{index}", namespace="d", name=f"p{index}", node=found[0], request=request, placement=placement,
            new_ids=new_ids,
        )  # fmt: skip
        decisions.ledger.confirm(f"u{index}")
        decisions.claims.end(f"u{index}")
    bar(decisions, cluster)
    decisions.ledger.check()
    return decisions


def close(decisions: Decisions, closed: list[str]) -> None:
    """A share on a device that nobody holds, or a pod that cannot be read."""
    for index, how in enumerate(closed):
        if how:
            shares = (ShareOnGpu("x", "GPU-x", 1),) if how == "lost" else ()
            undecodable = "why" if how == "unreadable" else None
            pod = PodOnNode(f"c{index}", "d", f"c{index}", f"n{index}", {}, shares, undecodable=undecodable)
            decisions.ledger.observe(pod)


def bar(decisions: Decisions, cluster: list[str]) -> None:
    for index, kind in enumerate(cluster):
        decisions.ledger.bar(f"n{index}", barred=kind == "barred")


@settings(max_examples=60, deadline=None)
@given(
    kinds,
    st.lists(pods, max_size=12),
    st.lists(st.sampled_from(["", "lost", "unreadable"]), max_size=4),
    st.sampled_from(names.STRATEGIES),
    pods,
)
def test_codes_say_what_fit_says(
    cluster: list[str], arrivals: list[Any], closed: list[str], strategy: str, asked: Any
) -> None:
    decisions = filled(cluster, arrivals, strategy)
    close(decisions, closed)
    request = parsed(asked.build())
    fleet = Fleet()
    states: list[NodeState] = list(decisions.ledger.snapshot())
    for position, state in enumerate(states):
        fleet.put(position, state)
    if not is_plain(request):
        return
    rows = fleet.at(np.arange(len(states)))
    found = codes(rows, request, Room.of(rows, request, tuple(fleet.sizes))).tolist()
    for state, code in zip(states, found, strict=True):
        verdict = fit(state, request)
        expected = CODE[verdict.reason, verdict.resolvable] if isinstance(verdict, Shortfall) else FITS
        assert code == expected, (state.name, verdict)


def options_of(state: NodeState, request: GpuRequest, *, fills_first: bool, order: Order) -> Options:
    fleet = Fleet()
    row = fleet.row(state)
    return options(row, request, Room.of(row, request, tuple(fleet.sizes)), fills_first=fills_first, order=order)


@settings(max_examples=60, deadline=None)
@given(st.lists(pods, max_size=12), pods, st.booleans(), st.sampled_from(Order))
def test_every_node_that_fits_has_a_possible_choice(
    arrivals: list[Any], asked: Any, fills_first: bool, order: Order
) -> None:
    decisions = filled(["plain", "mixed", "tight", "barred"], arrivals, names.BINPACK)
    request = parsed(asked.build())
    if not is_plain(request):
        return
    for state in decisions.ledger.snapshot():
        verdict = fit(state, request)
        if isinstance(verdict, Shortfall):
            continue
        choices = options_of(state, request, fills_first=fills_first, order=order)
        assert len(choices.node) >= 1
        assert (choices.holes >= choices.mib).all()
        assert (choices.after(choices.whole) >= 0).all()
        for chosen in choices.on.T.tolist():
            assert len({c for c in chosen if c >= 0}) == len([c for c in chosen if c >= 0]), "a GPU is chosen twice"
        if fills_first:
            assert set(choices.opened.tolist()) == {verdict.new}, "opened although a shared GPU has room"
        if order is Order.TIGHTEST and fills_first and request.share is not None and request.share.devices > 1:
            first = [state.gpus[c].free_mib for c in choices.on[:, 0].tolist() if c >= 0]
            assert first == [gpu.free_mib for gpu in verdict.on]


@settings(max_examples=60, deadline=None)
@given(st.lists(pods, max_size=12), pods, st.sampled_from(names.STRATEGIES))
def test_where_there_is_no_choice_the_only_one_is_what_fit_says(arrivals: list[Any], asked: Any, strategy: str) -> None:
    decisions = filled(["plain", "mixed", "tight", "barred"], arrivals, strategy)
    request = parsed(asked.build())
    for state in decisions.ledger.snapshot():
        verdict = fit(state, request)
        if isinstance(verdict, Placement) and request.share is not None and not has_choice(state, request.share):
            assert len(options_of(state, request, fills_first=False, order=Order.BY_ID).node) == 1
            assert decisions.place(state, request)[0] == verdict


def test_taking_what_a_choice_says_gives_the_state_it_says() -> None:
    decisions = filled(["plain"], [make_pod("a").gpu_memory(300), make_pod("b").gpus(1)], names.BINPACK)
    state = next(decisions.ledger.snapshot())
    request = parsed(make_pod().gpu_memory(200).container("main", requests={"cpu": "1"}).build())
    choices = options_of(state, request, fills_first=False, order=Order.TIGHTEST)
    assert choices.on.tolist() == [[-1, 0]]
    assert choices.holes.tolist() == [[1000, 700]]
    assert choices.after(choices.whole).tolist() == [1, 2]
    before = choices.nodes.cpu[0]
    assert (before - choices.after(choices.cpu)).tolist() == [1050, 1000]
    assert choices.taken().tolist() == [0.2, 0.2]


def test_the_tightest_of_gpus_of_different_sizes_is_where_least_is_left() -> None:
    """0.7 leaves 79 of the 849 MiB that are free on the large GPU, and 80 of the 360 on the small one."""
    decisions = filled(["mixed"], [], names.BINPACK)
    decisions.ledger.put_reservation(Reservation("n0-small", "n0", uid="s", device="GPU-a", memory_mib=400))
    shares = (ShareOnGpu("n0-large", LARGE, 251), ShareOnGpu("n0-small", "GPU-a", 40))
    decisions.ledger.observe(PodOnNode("held", "d", "held", "n0", {}, shares))
    (state,) = decisions.ledger.snapshot()
    request = parsed(make_pod().gpu_fraction("0.7").num_devices(2).build())
    choices = options_of(state, request, fills_first=True, order=Order.TIGHTEST)
    assert choices.left.tolist() == [[79], [80]]
    verdict = fit(state, request)
    assert isinstance(verdict, Placement)
    assert [gpu.id for gpu in verdict.on] == ["n0-large", "n0-small"]


@pytest.mark.parametrize(("devices", "barred"), [(1, True), (2, True), (1, False)])
def test_no_choice_opens_a_gpu_on_a_barred_node(devices: int, barred: bool) -> None:
    arrivals = [make_pod("a").gpu_memory(300).num_devices(2)]
    decisions = filled(["plain"], arrivals, names.BINPACK)
    decisions.ledger.bar("n0", barred=barred)
    fleet = Fleet()
    request = parsed(make_pod().gpu_memory(200).num_devices(devices).build())
    rows = fleet.row(next(decisions.ledger.snapshot()))
    room = Room.of(rows, request, tuple(fleet.sizes))
    choices = options(rows, request, room, fills_first=False, order=Order.TIGHTEST)
    assert (choices.opened.sum() == 0) == barred


@settings(max_examples=40, deadline=None)
@given(kinds, st.lists(pods, max_size=12), st.sampled_from(names.STRATEGIES), pods)
def test_a_node_that_is_judged_with_those_like_it_has_the_verdict_of_its_own(
    cluster: list[str], arrivals: list[Any], strategy: str, asked: Any
) -> None:
    decisions = filled(cluster * 4, arrivals, strategy)
    request = parsed(asked.build())
    everywhere = np.arange(len(cluster * 4))
    fleet = decisions._fleet
    decisions._judged(request, "", decisions._board.at(everywhere))
    alone = decisions._judge(fleet.at(everywhere), request, everywhere)
    with mock.patch("extender.core.decisions.MANY", 1):
        together = decisions._judge_all(request, everywhere)
    assert [values.tolist() for values in together] == [values.tolist() for values in alone]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["gone", "a", "b", "c"])), max_size=30))
def test_nodes_that_stand_for_all_are_as_many_as_differ(changes: list[tuple[int, str]]) -> None:
    """Nodes come, change and go, many of them alike."""
    cpus = {"a": 1, "b": 2, "c": 3}
    fleet, now = Fleet(), dict.fromkeys(range(6), "gone")
    for position, kind in [*now.items(), *changes]:
        now[position] = kind
        ledger = Ledger()
        for read in read_nodes([make_node("n").cpu(cpus.get(kind, 1)).gpus(2, mib=1000).build()]):
            ledger.put_node(read)
        fleet.put(position, None if kind == "gone" else ledger.state("n"))
        assert fleet._number.max() < len(now), "numbers are used again"
    chosen, like = fleet.distinct(np.arange(len(now)))
    kinds = [now[place] for place in chosen.tolist()]
    assert sorted(kinds) == sorted(set(now.values()))
    assert [kinds[which] for which in like.tolist()] == list(now.values())


@pytest.mark.parametrize("strategy", names.STRATEGIES)
def test_rows_written_one_by_one_are_the_rows_of_a_fresh_fleet(strategy: str) -> None:
    arrivals = [make_pod().gpu_memory(300) for _ in range(9)] + [make_pod().gpus(1) for _ in range(3)]
    decisions = filled(["plain", "small", "plain"], arrivals, strategy)
    decisions.filter(make_pod().uid("last").build(), ["n0"])
    fleet = Fleet()
    for position, state in enumerate(decisions.ledger.snapshot()):
        fleet.put(position, state)
    kept = decisions._fleet.at(np.arange(3))
    fresh = fleet.at(np.arange(3))
    gpus = min(len(kept.free), len(fresh.free))
    assert np.array_equal(kept.facts, fresh.facts)
    assert np.array_equal(kept.free[:gpus], fresh.free[:gpus])


def test_every_strategy_has_its_name() -> None:
    assert tuple(STRATEGIES) == names.STRATEGIES
