"""Nodes as three watches show them are the nodes that a snapshot of the same objects has."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.values import Node
from extender.live.listwatch import Sink
from extender.live.nodes import Nodes
from extender.reflector import Reflector
from tests.builders import make_node
from tests.core.node_cases import claim, device, resource_slice
from tests.live.scripted import event

Json = dict[str, Any]


class World:
    """Three watches over one ledger."""

    def __init__(self) -> None:
        self.decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
        self.repaired: list[str] = []
        self.watched = Nodes(Reflector(self.decisions), self.repaired.append)
        #: What the API has, by kind and name.
        self.api: dict[str, dict[str, Json]] = {"nodes": {}, "slices": {}, "claims": {}}
        self._version = 0

    def sink(self, kind: str) -> Sink:
        found: Sink = getattr(self.watched, kind)
        return found

    async def listed(self, kind: str) -> None:
        await self.sink(kind).replace([self.sink(kind).slim(found) for found in self.api[kind].values()])

    def put(self, kind: str, found: Json) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        name = found["metadata"]["name"]
        known = name in self.api[kind]
        self.api[kind][name] = found
        self.sink(kind).change(event("MODIFIED" if known else "ADDED", found))

    def delete(self, kind: str, name: str) -> None:
        self.sink(kind).change(event("DELETED", self.api[kind].pop(name)))

    def ledger(self) -> dict[str, Node]:
        return {state.name: state.node for state in self.decisions.ledger.snapshot()}

    def snapshot(self) -> dict[str, Node]:
        """What loading everything at once gives."""
        nodes, slices, claims = (tuple(self.api[kind].values()) for kind in ("nodes", "slices", "claims"))
        return {node.name: node for node in read_nodes(nodes, slices, claims)}


@pytest.fixture
def world() -> World:
    return World()


def gpu_node(name: str, gpus: int = 2) -> Json:
    return make_node(name).gpus(gpus, mib=1000).build()


def dra_slice(node: str, name: str = "s", gpus: int = 2, **more: Any) -> Json:
    devices = [device(f"gpu-{number}", uuid=f"GPU-{node}-{number}") for number in range(gpus)]
    return resource_slice(*devices, node=node, name=f"{name}-{node}", **more)


def held(name: str, *devices: tuple[str, str], pod: str = "u") -> Json:
    found = claim(*devices)
    found["metadata"] = {"name": name, "namespace": "team"}
    found["status"]["reservedFor"] = [{"resource": "pods", "name": "p", "uid": pod}]
    return found


async def test_lists_in_any_order_give_what_a_snapshot_gives() -> None:
    orders = [("nodes", "slices", "claims"), ("claims", "slices", "nodes"), ("slices", "nodes", "claims")]
    for order in orders:
        world = World()
        world.api["nodes"] = {name: gpu_node(name) for name in ("a", "b")} | {"d": make_node("d").build()}
        slices = [dra_slice("d"), dra_slice("only-dra"), dra_slice("b", driver="fpga.example.com")]
        world.api["slices"] = {found["metadata"]["name"]: found for found in slices}
        world.api["claims"] = {"c": held("c", ("d", "gpu-0")), "e": held("e", ("only-dra", "gpu-1"), ("d", "gpu-1"))}
        for kind in order:
            await world.listed(kind)
        assert world.ledger() == world.snapshot()
        assert {name: node.claimed_gpus for name, node in world.ledger().items()} == {
            "a": 0,
            "b": 0,
            "d": 2,
            "only-dra": 1,
        }


@pytest.mark.parametrize("seed", range(20))
async def test_any_course_of_events_and_lists_gives_what_a_snapshot_gives(seed: int) -> None:
    random, world = Random(seed), World()
    for kind in world.api:
        await world.listed(kind)
    names = ["a", "b", "c"]

    def some_slice(node: str) -> Json:
        driver = random.choice(["gpu.nvidia.com", "gpu.nvidia.com", "fpga.example.com"])
        generation, of = random.randint(1, 2), random.choice([1, 1, 2])
        # A slice's driver and node never change.
        name = f"{driver}-{random.randint(1, 2)}"
        return dra_slice(node, name, random.randint(0, 3), generation=generation, of=of, driver=driver)

    def some_claim(name: str) -> Json:
        devices = [(random.choice(names), f"gpu-{random.randint(0, 3)}") for _ in range(random.randint(0, 3))]
        return held(name, *devices, pod=random.choice("uvw"))

    make: dict[str, Callable[[str], Json]] = {
        "nodes": lambda name: gpu_node(name, random.randint(0, 4)),
        "slices": some_slice,
        "claims": some_claim,
    }
    for _ in range(120):
        kind = random.choice(list(world.api))
        known = list(world.api[kind])
        what = random.random()
        if what < 0.3 and known:
            world.delete(kind, random.choice(known))
        elif what < 0.4:
            for name in random.sample(known, len(known) // 2):
                del world.api[kind][name]  # While nobody was watching.
            await world.listed(kind)
        else:
            world.put(kind, make[kind](random.choice(names)))
        assert world.ledger() == world.snapshot()


async def test_a_list_makes_good_and_counts_what_was_missed(world: World) -> None:
    world.api["nodes"] = {name: gpu_node(name) for name in ("same", "changed", "gone")}
    await world.listed("nodes")
    assert world.repaired == []
    del world.api["nodes"]["gone"]
    changed = gpu_node("changed", 4)
    changed["metadata"]["resourceVersion"] = "2"
    world.api["nodes"] |= {"changed": changed, "missed": gpu_node("missed")}
    await world.listed("nodes")
    assert sorted(world.repaired) == ["changed", "gone", "missed"]
    assert world.ledger() == world.snapshot()
    assert set(world.watched.objects) == {"same", "changed", "missed"}


async def test_a_heartbeat_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of a node is judged anew for every shape of request, and may wake pods."""
    world.put("nodes", gpu_node("n"))
    world.ledger()
    touched: list[str] = []
    monkeypatch.setattr(world.decisions.ledger, "_touched", touched.append)
    beat = gpu_node("n")
    for condition in beat["status"]["conditions"]:
        condition["lastHeartbeatTime"] = "2026-09-14T08:35:00Z"
    world.put("nodes", beat)
    assert touched == []
    assert world.watched.objects["n"] == beat
    world.put("nodes", gpu_node("n", 3))
    assert touched == ["n"]


async def test_a_claim_is_told_to_the_nodes_of_its_devices_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each claim told to each node, thousands of both took minutes."""
    for name in "abc":
        world.put("slices", dra_slice(name))
    read: list[str] = []
    nodes = Reflector.nodes

    def noted(self: Reflector, found: Any) -> None:
        found = list(found)
        read.extend(node.name for node in found)
        nodes(self, found)

    monkeypatch.setattr(Reflector, "nodes", noted)
    world.put("claims", held("x", ("a", "gpu-0")))
    world.put("claims", held("x", ("b", "gpu-0")))  # a is free again
    world.delete("claims", "x")
    assert sorted(read) == ["a", "a", "b", "b"]
    assert world.ledger() == world.snapshot()


async def test_a_deleted_node_is_gone_though_another_drivers_slice_stays(world: World) -> None:
    world.put("nodes", gpu_node("n"))
    world.put("slices", dra_slice("n", driver="fpga.example.com"))
    world.delete("nodes", "n")
    assert world.ledger() == {}
    assert world.watched.objects == {}


async def test_a_node_is_kept_without_its_images(world: World) -> None:
    node = gpu_node("n")
    node["status"]["images"] = [{"names": ["registry.example.com/large"], "sizeBytes": 1}]
    node["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    world.put("nodes", node)
    by_event = world.watched.objects["n"]
    await world.listed("nodes")
    for kept in (by_event, world.watched.objects["n"]):
        assert "images" not in kept["status"]
        assert "managedFields" not in kept["metadata"]
    assert "images" in node["status"]
