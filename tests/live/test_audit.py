"""Differences while the service runs: told once, and only what stays."""

from typing import Any

import pytest

from extender.binding.records import config_map_of
from extender.core import names, notices
from extender.core.consistency import Difference, differences
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.notices import Notice
from extender.core.podreader import namespaced_name
from extender.core.record import Entry, NodeRecord, Opened
from extender.core.values import PodOnNode, ShareOnGpu
from extender.live.audit import Audit
from extender.live.told import Told
from extender.metrics import Metrics
from extender.reflector import Reflector
from tests.builders import PodBuilder, make_node, make_pod, stable_uid

CARD = 1000


def reservation(gpu_id: str = "share-1", mib: int = CARD) -> PodBuilder:
    pod = make_pod(gpu_id, names.RESERVATION_NAMESPACE).gpus(1).on_node("n").annotation(names.DEVICE, "GPU-1")
    return pod.annotation(names.DEVICE_MEMORY_MIB, str(mib))


def bound(name: str = "p", mib: int = 400) -> PodBuilder:
    pod = make_pod(name).gpu_memory(400).on_node("n").annotation(names.TRY, "x-1")
    pod.annotation(names.SHARED_GPUS, "share-1").annotation(names.VISIBLE_DEVICES, "GPU-1")
    return pod.annotation(names.MEMORY_MIB, str(mib))


def bypassing(name: str = "past") -> PodBuilder:
    return make_pod(name).gpu_memory(400).on_node("n")


class World:
    """A node, a GPU that is shared, and who is told."""

    def __init__(self) -> None:
        decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
        self.ledger = decisions.ledger
        self.reflector = Reflector(decisions)
        self.reflector.nodes(read_nodes([make_node("n").gpus(2, mib=CARD).build()]))
        self.pods: dict[tuple[str, str], Any] = {}
        self.differences: list[Difference] = []
        self.doubts: list[PodOnNode] = []
        self.audit = Audit(self.ledger, lambda *name: self.pods.get(name), self)
        self.see(reservation())

    def difference(self, found: Difference) -> None:
        self.differences.append(found)

    def doubt(self, pod: PodOnNode) -> None:
        self.doubts.append(pod)

    def see(self, *pods: PodBuilder) -> None:
        for pod in pods:
            built = pod.build()
            self.pods[namespaced_name(built)] = built
            self.reflector.pod(built)

    def record(self, **mib: int) -> None:
        opened = Opened("share-1", stable_uid("pod", names.RESERVATION_NAMESPACE, "share-1"), "GPU-1", CARD)
        record = NodeRecord.empty()
        for name, size in mib.items():
            entry = Entry("share-1", stable_uid("pod", "default", name), f"default/{name}", size, "x-1")
            changed = record.with_entries([entry], {"share-1": opened}, {})
            assert isinstance(changed, NodeRecord)
            record = changed
        self.reflector.config_map(config_map_of("n", record))

    async def look(self, times: int = 2) -> list[str]:
        """Kinds that were told meanwhile."""
        self.differences.clear()
        for _ in range(times):
            await self.audit.once()
        return sorted(difference.kind for difference in self.differences)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_pod_that_was_bound_past_us_is_told_once(world: World) -> None:
    world.see(bypassing())
    assert await world.look(4) == ["bypassed"]
    assert [pod.name for pod in world.doubts][:1] == ["past"]
    world.reflector.pod_gone(bypassing().build())
    world.doubts.clear()
    assert await world.look() == []
    assert world.doubts == []
    world.see(bypassing().uid("another"))
    assert await world.look() == ["bypassed"]


async def test_what_was_told_at_the_start_is_told_again_of_another_pod_of_that_name(world: World) -> None:
    """As a StatefulSet makes them."""
    world.see(bypassing())
    world.audit.begin(differences(world.ledger, tuple(world.pods.values())))
    assert [difference.kind for difference in world.differences] == ["bypassed"]
    assert await world.look(3) == []
    world.reflector.pod_gone(world.pods.pop(("default", "past")))
    assert await world.look(3) == []
    world.see(bypassing().uid("another"))
    assert await world.look(3) == ["bypassed"]


async def test_what_one_look_has_shown_may_be_over_in_the_next(world: World) -> None:
    """A pod is shown before its entry in the record, or the other way round."""
    world.record(p=400)
    world.see(bound("p"), bound("q"))
    assert await world.look(1) == []
    world.record(p=400, q=400)
    assert await world.look(3) == []
    assert world.doubts == []


async def test_a_share_that_is_shrunk_and_put_right_and_shrunk(world: World) -> None:
    world.see(bound())
    world.see(bound(mib=1))
    assert await world.look(3) == ["different", "size"]
    assert world.doubts[0].changed
    world.see(bound())
    assert await world.look() == []
    world.see(bound(mib=1))
    assert await world.look() == ["different", "size"]


async def test_records_and_reservation_pods_are_looked_at(world: World) -> None:
    world.record(p=400)
    world.see(bound())
    assert await world.look() == []
    world.record(p=1)
    assert await world.look() == ["record"]
    world.see(reservation(mib=2000))
    assert await world.look() == ["unreadable", "unusable"]
    world.see(reservation("share-9"))
    assert "device-twice" in await world.look()


async def test_what_the_start_has_told_is_not_told_again(world: World) -> None:
    world.see(bypassing())
    world.audit.begin(differences(world.ledger, list(world.pods.values())))
    assert [found.kind for found in world.differences] == ["bypassed"]
    assert await world.look(3) == []
    assert [pod.name for pod in world.doubts][:1] == ["past"], "its user has not heard of it"


async def test_where_all_is_well_nobody_is_looked_at(world: World) -> None:
    world.record(p=400)
    world.see(bound(), make_pod("plain").on_node("n"), make_pod("whole").gpus(1).on_node("n"))
    world.see(
        make_pod("waits").gpu_memory(400), make_pod("named").annotation("nvidia.com/container.x", "y").on_node("n")
    )
    assert world.ledger.doubted() == []
    assert world.ledger.doubted_nodes() == []


# --- what users and Prometheus get ----------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.tell = self.notices.append


def test_users_hear_what_concerns_them() -> None:
    heard: Any = Heard()
    waiting: Any = None
    metrics = Metrics()
    world = World()
    world.record(b=400)
    told = Told(waiting, heard, world.ledger, metrics)
    told.doubt(PodOnNode("u", "team", "a", "n", {}, unserved=True))
    told.doubt(PodOnNode("u", "team", "b", "n", {}, (ShareOnGpu("share-1", "GPU-1", 1),), changed=True))
    recorded = stable_uid("pod", "default", "b")
    told.doubt(PodOnNode(recorded, "team", "b", "n", {}, unserved=True))
    told.doubt(PodOnNode("u", "team", "c", "n", {}, undecodable="what an administrator sees in check"))
    assert [(notice.about.name, notice.reason) for notice in heard.notices] == [
        ("a", notices.BYPASSED),
        ("b", notices.CHANGED),
        ("b", notices.CHANGED),
    ]
    assert all("share of GPU-1" in notice.text for notice in heard.notices[1:])
    told.difference(Difference("bypassed", "team/a", "…"))
    assert metrics.differences.labels("bypassed")._value.get() == 1
