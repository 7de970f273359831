"""simulate says what the service does: the same cycle in this process and over HTTP."""

import asyncio
import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from extender.cli.simulate import run
from extender.config import Settings
from extender.core import names
from extender.service import embedded_service
from extender.simulator import Account, Cycle, Outcome, pending, queue_order
from extender.snapshot import Snapshot, load_snapshot
from tests.builders import make_node, make_pod
from tests.client import Extender, serve

EXAMPLE = Path(__file__).parent.parent / "examples" / "cluster.yaml"
CARD = 81920


class OverHttp:
    """The simulator's extender, reached as kube-scheduler reaches it."""

    def __init__(self, extender: Extender) -> None:
        self._extender = extender

    async def call(self, verb: str, body: dict[str, Any]) -> Any:
        return await self._extender.post(f"/scheduler/{verb}", body)

    async def pod(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._extender.get(f"/embedded/pods/{namespace}/{name}")
        return found


async def over_http(snapshot: Snapshot, **settings: Any) -> tuple[list[Outcome], Any]:
    async with serve(*snapshot.nodes, pods=snapshot.pods, **settings) as extender:
        cycle = Cycle(OverHttp(extender), snapshot.nodes, snapshot.pods)
        outcomes = [outcome async for outcome in cycle.place_all(pending(snapshot.pods))]
        return outcomes, await extender.get("/inspect")


def mixed() -> Snapshot:
    """Many pods of every kind on a few nodes, some of them wanted by rules of kube-scheduler."""
    nodes = [make_node(f"n{i}").gpus(4, mib=CARD).build() for i in range(3)]
    nodes += [make_node("tainted").gpus(4, mib=CARD).taint("nvidia.com/gpu", "present").build()]
    nodes += [
        make_node("l4").gpus(2, mib=23034, product="NVIDIA-L4").label("zone", "b").build(),
        make_node("c").build(),
    ]
    pods = []
    for i in range(12):
        pods.append(make_pod(f"half-{i}").gpu_fraction("0.5").build())
        pods.append(
            make_pod(f"small-{i}").gpu_memory(3000).spec(nodeSelector={"zone": "b"} if i % 3 == 0 else {}).build()
        )
        pods.append(make_pod(f"whole-{i}").gpus(1 + i % 2).build())
        pods.append(make_pod(f"two-{i}").gpu_memory(9000).num_devices(2).spec(priority=i).build())
        pods.append(make_pod(f"web-{i}").container("main", requests={"cpu": "500m"}).build())
    return Snapshot(nodes=tuple(nodes), pods=tuple(pods))


def same(outcome: Outcome) -> Outcome:
    """Nothing in it is random but the UID of a reservation, which names nothing here."""
    return dataclasses.replace(outcome, uid="")


@pytest.mark.parametrize("strategy", ["binpack", "spread", "fgd"])
@pytest.mark.parametrize("snapshot", [mixed(), load_snapshot(EXAMPLE)], ids=["mixed", "example"])
async def test_simulate_equals_the_service(snapshot: Snapshot, strategy: str) -> None:
    service = embedded_service(Settings(strategy=strategy), copy.deepcopy(snapshot))
    simulated = await run(service)
    served, inspect = await over_http(snapshot, strategy=strategy)
    assert list(map(same, simulated)) == list(map(same, served))
    assert any(outcome.node for outcome in simulated)
    assert any(outcome.node is None for outcome in simulated)
    async with Extender(service, []) as extender:
        assert await extender.get("/inspect") == inspect


async def place(nodes: list[Any], *pods: Any, bound: tuple[Any, ...] = ()) -> list[Outcome]:
    snapshot = Snapshot(nodes=tuple(nodes), pods=(*bound, *pods))
    service = embedded_service(Settings(), snapshot)
    outcomes = await run(service)
    service.decisions.ledger.check()
    return outcomes


async def test_an_outcome_says_what_the_pod_was_given() -> None:
    [outcome] = await place(
        [make_node("n").gpus(2, mib=CARD).build()], make_pod("p").gpu_memory(9).num_devices(2).build()
    )
    assert (outcome.node, outcome.memory_mib, outcome.reasons) == ("n", "9", {})
    assert len(set(outcome.devices)) == len(set(outcome.shared_gpus)) == 2


async def test_kube_scheduler_counts_what_it_places() -> None:
    """Cores and slots, those of reservation pods too; the extender alone would say yes."""
    node = make_node("n").gpus(4, mib=CARD).cpu(2).build()
    pods = [make_pod(f"p{i}").container("main", requests={"cpu": "900m"}).gpu_fraction("0.5").build() for i in range(3)]
    outcomes = await place([node], *pods)
    assert [outcome.node for outcome in outcomes] == ["n", "n", None]
    assert outcomes[2].reasons == {"insufficient cpu": 1}
    slots = make_node("n").gpus(4, mib=CARD).pod_slots(3).build()
    outcomes = await place([slots], *(make_pod(f"p{i}").gpu_fraction("0.5").build() for i in range(3)))
    assert [outcome.node for outcome in outcomes] == ["n", "n", None]


async def test_why_a_pod_waits() -> None:
    nodes = [
        make_node("n").gpus(1, mib=CARD).build(),
        make_node("c").build(),
        make_node("t").gpus(1).taint("x").build(),
    ]
    big, gated, wrong = await place(
        nodes,
        make_pod("big").gpu_memory(CARD + 1).build(),
        make_pod("gated").spec(schedulingGates=[{"name": "wait"}]).build(),
        make_pod("wrong").gpu_fraction("2").build(),
    )
    assert sum(big.reasons.values()) == 3, "each node has one reason"
    assert {"the share is larger than a GPU of this node", "node has no GPU"} < set(big.reasons)
    assert gated.reasons == {"the pod has scheduling gates": 1}
    [sentence] = [reason for reason in wrong.reasons if "gpu-fraction" in reason]
    assert wrong.reasons == {sentence: 3}, "what else a node lacks would hide the cause"
    [nowhere] = await place([], make_pod("p").build())
    assert (nowhere.node, nowhere.reasons) == (None, {})


async def test_rules_that_are_not_applied_are_named() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    [outcome] = await place(
        [make_node("n").build()], make_pod("p").spec(topologySpreadConstraints=[constraint]).build()
    )
    assert outcome.node == "n"
    assert len(outcome.not_applied) == 1


@pytest.mark.parametrize(
    "key", ["gpu-fracton", "gpu_fraction", "gpu-fractions", "nvidia.com/gpu-fraction", "gpuFraction"]
)
async def test_an_annotation_that_looks_like_ours_is_named(key: str) -> None:
    """Nobody reads it: the pod runs, without a GPU."""
    [outcome] = await place([make_node("n").build()], make_pod("p").annotation(key, "0.5").build())
    assert outcome.not_applied == (f"annotation {key} (did you mean gpu-fraction?)",)


async def test_another_scheduler_is_named() -> None:
    """Admission refuses a share pod that names it, and without admission nobody asks the extender."""
    nodes = [make_node("n").gpus(2, mib=CARD).build()]
    pods = [
        make_pod(f"p{name}").gpu_fraction("0.1").spec(schedulerName=name).build()
        for name in ("volcano", "gpu-scheduler", "default-scheduler")
    ]
    assert [outcome.not_applied for outcome in await place(nodes, *pods)] == [("scheduler volcano",), (), ()]


async def test_ours_and_others_are_not_named() -> None:
    pod = make_pod("p").gpu_fraction("0.5").num_devices(2).annotation("gpu-fraction-container-name", "main")
    for other in ("gpu-extender.io/try", "nvidia.com/use-gputype", "example.com/memory", "description"):
        pod.annotation(other, "x")
    [outcome] = await place([make_node("n").gpus(2, mib=CARD).build()], pod.container("main").build())
    assert outcome.not_applied == ()


async def test_the_pods_annotation_overrides_the_strategy() -> None:
    nodes = [make_node(name).gpus(1, mib=CARD).build() for name in ("a", "b")]
    pods = [make_pod(f"p{i}").gpu_fraction("0.25").strategy(names.SPREAD).build() for i in range(2)]
    assert {outcome.node for outcome in await place(nodes, *pods)} == {"a", "b"}


def test_the_queue_goes_by_priority_then_age() -> None:
    old = make_pod("old").build()
    young = make_pod("young").metadata(creationTimestamp="2026-09-15T00:00:00Z").build()
    ageless = make_pod("ageless").metadata(creationTimestamp=None).build()
    first = make_pod("first").metadata(creationTimestamp="2026-09-16T00:00:00Z").spec(priority=10).build()
    last = make_pod("last").spec(priority=-1).build()
    order = queue_order([last, ageless, young, old, first])
    assert [pod["metadata"]["name"] for pod in order] == ["first", "old", "young", "ageless", "last"]


def test_what_waits() -> None:
    pods = [make_pod("a").build(), make_pod("b").on_node("n").build(), make_pod("c").phase("Failed").build()]
    assert [pod["metadata"]["name"] for pod in pending(pods)] == ["a"]


def test_the_account_counts_each_pod_once() -> None:
    pod = make_pod("p").container("main", requests={"cpu": "2"}).on_node("n").build()
    ended = make_pod("e").container("main", requests={"cpu": "2"}).on_node("n", "Succeeded").build()
    account = Account(
        [make_node("n").cpu(8).pod_slots(10).build()], [pod, ended, make_pod("x").on_node("gone").build()]
    )
    account.take(pod)
    assert (account.free["n"][names.CPU], account.free["n"][names.PODS]) == (6000, 9)


def test_an_example_that_shows_something() -> None:
    """`make run` plays it: GPUs end up shared, and somebody waits for a reason."""
    snapshot = load_snapshot(EXAMPLE)
    outcomes = asyncio.run(run(embedded_service(Settings(), snapshot)))
    assert sum(bool(outcome.shared_gpus) for outcome in outcomes) >= 5
    assert all(outcome.reasons for outcome in outcomes if outcome.node is None)
