"""Pods as list and watch show them: what was missed is made good, and nothing is freed without evidence."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.errors import ApiError, NotFound, Unavailable
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.podreader import grace_of, namespaced_name, uid_of
from extender.core.requests import GpuRequest
from extender.core.values import GpuState, ShareState
from extender.live.pods import Pods
from extender.reflector import Reflector
from tests.builders import make_node, make_pod
from tests.live.scripted import event

Json = dict[str, Any]
CARD = 1000


def reservation(version: int = 1) -> Json:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).gpus(1).on_node("n").annotation(names.DEVICE, "GPU-1")
    return pod.annotation(names.DEVICE_MEMORY_MIB, str(CARD)).metadata(resourceVersion=str(version)).build()


def waiting(name: str = "a", version: int = 1, grace: int = 0) -> Json:
    pod = make_pod(name).gpu_memory(400).metadata(resourceVersion=str(version))
    return pod.spec(terminationGracePeriodSeconds=grace).build()


def bound(name: str = "a", version: int = 2, uid: str | None = None, grace: int = 0) -> Json:
    pod = make_pod(name).gpu_memory(400).metadata(resourceVersion=str(version)).on_node("n")
    pod.spec(terminationGracePeriodSeconds=grace)
    pod.annotation(names.SHARED_GPUS, "share-1").annotation(names.VISIBLE_DEVICES, "GPU-1")
    pod.annotation(names.MEMORY_MIB, "400")
    return (pod.uid(uid) if uid is not None else pod).build()


def whole(name: str = "w", version: int = 1) -> Json:
    pod = make_pod(name).gpus(1).on_node("n").metadata(resourceVersion=str(version))
    return pod.spec(terminationGracePeriodSeconds=0).build()


class Watching(Reflector):
    """Looks after each pod that the ledger is told of: at no moment may a GPU look lost."""

    lost = False

    def account(self, pod: Any) -> None:
        super().account(pod)
        self._look()

    def pod_gone(self, pod: Any, *, seen: bool = True) -> None:
        super().pod_gone(pod, seen=seen)
        self._look()

    def _look(self) -> None:
        states = [gpu.state for state in self._ledger.snapshot() for gpu in state.gpus]
        self.lost = self.lost or GpuState.LOST in states


class World:
    """A node with four GPUs, the pods that are known of it, and the API as a read shows it."""

    def __init__(self) -> None:
        self.decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
        self.ledger = self.decisions.ledger
        self.watcher = Watching(self.decisions)
        self.watcher.nodes(read_nodes([make_node("n").gpus(4, mib=CARD).build()]))
        self.repaired: list[str] = []
        self.reads: list[str] = []
        #: Name → what a read answers; nothing: 404.
        self.api: dict[str, Json | ApiError] = {}
        self.pods = Pods(self.watcher, self._read, self.repaired.append)

    async def _read(self, namespace: str, name: str) -> Json:
        self.reads.append(name)
        answer = self.api.get(name, NotFound(f'pods "{name}" not found'))
        if isinstance(answer, ApiError):
            raise answer
        return answer

    async def listed(self, *pods: Json) -> None:
        await self.pods.replace([self.pods.slim(pod) for pod in pods])

    def bind(self, pod: Json) -> None:
        """As our own bind does it, up to the 201."""
        request = GpuRequest.from_pod(pod)
        assert isinstance(request, GpuRequest)
        namespace, name = namespaced_name(pod)
        verdict = self.decisions.choose("n", request)
        assert isinstance(verdict, Placement)
        self.ledger.assume(
            uid=uid_of(pod),
            namespace=namespace,
            name=name,
            node="n",
            request=request,
            placement=verdict,
            grace=grace_of(pod),
        )
        self.ledger.record(uid_of(pod), "me-1")
        self.ledger.confirm(uid_of(pod))

    def holders(self) -> list[str]:
        """Who holds something on the node."""
        return sorted(pod.name for pod in self.ledger.pods("n"))

    def names(self) -> list[str]:
        """The pods as last seen."""
        return sorted(namespaced_name(pod)[1] for pod in self.pods)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.ledger.check()


async def test_the_first_list_is_accounted_learned_from_and_repairs_nothing(world: World) -> None:
    await world.listed(bound(), whole(), waiting("b"), reservation())
    assert world.holders() == ["a", "w"]
    assert world.names() == ["a", "b", "share-1", "w"]
    assert world.repaired == []
    assert world.decisions.workload.knows(uid_of(bound()))
    assert not world.watcher.lost


async def test_a_new_list_makes_good_what_was_missed(world: World) -> None:
    await world.listed(reservation(), waiting("changed"), whole("gone"), whole("same"))
    await world.listed(bound("missed"), bound("changed"), whole("same"), reservation())
    assert world.holders() == ["changed", "missed", "same"]
    assert sorted(world.repaired) == ["changed", "gone", "missed"]
    assert world.names() == ["changed", "missed", "same", "share-1"]


async def test_what_stands_as_it_stood_is_told_to_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.listed(reservation(), bound())
    told: list[Json] = []
    monkeypatch.setattr(world.watcher, "account", told.append)
    await world.listed(reservation(), bound())
    assert told == []


async def test_no_gpu_ever_looks_lost_while_a_list_is_taken_in(world: World) -> None:
    await world.listed()
    await world.listed(bound(), reservation())
    await world.listed()
    assert world.holders() == []
    assert not world.watcher.lost


@pytest.mark.parametrize("was_seen_bound", [True, False])
async def test_a_pod_that_went_unseen_counts_for_its_grace_period(world: World, was_seen_bound: bool) -> None:
    """It may have been deleted by force, while nobody told; and bound before, if it was not yet."""
    await world.listed(reservation(), bound(grace=45) if was_seen_bound else waiting(grace=45))
    if not was_seen_bound:
        world.bind(waiting())
    await world.listed(reservation())
    assert world.names() == ["share-1"]
    await asyncio.sleep(44)
    assert world.holders() == ["a"]
    await asyncio.sleep(2)
    assert world.holders() == []


async def test_a_pod_that_had_ended_when_it_was_last_seen_does_not(world: World) -> None:
    stopped = {**bound(grace=45), "status": {"containerStatuses": [{"state": {"terminated": {}}}]}}
    await world.listed(reservation(), stopped)
    await world.listed(reservation())
    assert world.holders() == []


# --- absence from a list ------------------------------------------------------------------------------------


async def test_a_share_that_is_not_listed_ends_once_a_read_has_confirmed_it(world: World) -> None:
    await world.listed(reservation(), bound(), whole())
    await world.listed(reservation())
    assert world.reads == ["a"]  # The whole GPU is kube-scheduler's to give: no read for it.
    assert world.holders() == []


@pytest.mark.parametrize("pod", [bound(), waiting(), reservation()])
async def test_where_the_read_fails_nothing_is_freed_and_the_list_is_wanted_again(world: World, pod: Json) -> None:
    _, name = namespaced_name(pod)
    await world.listed(reservation(), bound("b"), pod)
    if pod == waiting():
        world.bind(pod)
    before = world.ledger.state("n")
    world.api[name] = Unavailable("no answer")
    listed = [other for other in (reservation(), bound("b")) if namespaced_name(other) != namespaced_name(pod)]
    with pytest.raises(Unavailable):
        await world.listed(*listed)
    assert world.ledger.state("n") == before
    assert world.repaired == []
    del world.api[name]
    await world.listed(*listed)
    assert world.ledger.state("n") != before
    assert world.repaired == ["gone"]


async def test_a_share_that_a_read_shows_is_not_gone(world: World) -> None:
    await world.listed(reservation(), bound())
    world.api["a"] = bound(version=9)
    await world.listed(reservation())
    assert world.holders() == ["a"]
    assert world.names() == ["a", "share-1"]
    assert world.repaired == []
    found = world.pods.find("default", "a")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "9"


async def test_another_pod_of_that_name_is_the_end_of_the_first(world: World) -> None:
    await world.listed(reservation(), bound())
    world.api["a"] = bound(version=9, uid="second")
    await world.listed(reservation())
    assert world.ledger.pod(uid_of(bound())) is None
    await world.listed(reservation(), bound(version=9, uid="second"))
    assert world.ledger.pod("second") is not None


async def test_a_list_with_another_pod_of_that_name_alone_frees_nothing(world: World) -> None:
    await world.listed(reservation(), bound())
    world.api["a"] = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await world.listed(reservation(), bound(version=9, uid="second"))
    assert world.ledger.pod(uid_of(bound())) is not None
    world.api["a"] = bound(version=9, uid="second")
    await world.listed(reservation(), bound(version=9, uid="second"))
    assert world.ledger.pod(uid_of(bound())) is None
    assert world.ledger.pod("second") is not None
    assert world.names() == ["a", "share-1"]


async def test_what_we_bound_while_the_watch_was_broken_ends_like_any_other(world: World) -> None:
    await world.listed(reservation())
    world.bind(waiting())
    world.api["a"] = bound()
    await world.listed(reservation())
    assert world.holders() == ["a"]
    del world.api["a"]
    await world.listed(reservation())
    assert world.holders() == []


async def test_what_we_bound_unseen_ends_where_its_name_is_anothers(world: World) -> None:
    await world.listed(reservation())
    world.bind(waiting())
    world.api["a"] = waiting() | {"metadata": {**waiting()["metadata"], "uid": "second"}}
    await world.listed(reservation())
    await asyncio.sleep(31)  # What nobody has seen may have had the usual grace period.
    assert world.holders() == []


async def test_what_we_are_just_binding_is_no_business_of_a_list(world: World) -> None:
    await world.listed(reservation())
    request = GpuRequest.from_pod(waiting())
    assert isinstance(request, GpuRequest)
    verdict = world.decisions.choose("n", request)
    assert isinstance(verdict, Placement)
    world.ledger.assume(uid="u", namespace="default", name="a", node="n", request=request, placement=verdict)
    await world.listed(reservation())
    assert world.reads == []
    assert world.holders() == ["a"]


# --- never undo a 201 ---------------------------------------------------------------------------------------


async def test_neither_a_late_event_nor_an_older_list_undoes_a_201(world: World) -> None:
    await world.listed(reservation(), waiting())
    world.bind(waiting())
    world.pods.change(event("MODIFIED", waiting(version=2)))
    await world.listed(reservation(), waiting(version=3))
    held = world.ledger.pod(uid_of(waiting()))
    assert held is not None
    assert held.state is ShareState.CONFIRMED


# --- events -------------------------------------------------------------------------------------------------


async def test_events_reach_ledger_and_view(world: World) -> None:
    await world.listed(reservation())
    world.pods.change(event("ADDED", waiting()))
    assert world.pods.find("default", "a") is not None
    world.pods.change(event("MODIFIED", bound()))
    assert world.holders() == ["a"]
    world.pods.change(event("DELETED", bound(version=3)))
    assert world.pods.find("default", "a") is None
    assert world.holders() == []
    assert world.repaired == []


async def test_a_reservation_pod_that_is_deleted_under_a_share_is_a_lost_gpu(world: World) -> None:
    await world.listed(reservation(), bound())
    world.pods.change(event("DELETED", reservation(3)))
    state = world.ledger.state("n")
    assert state is not None
    assert [gpu.state for gpu in state.gpus] == [GpuState.LOST]


async def test_an_event_of_another_pod_of_that_name_ends_the_first(world: World) -> None:
    await world.listed(reservation(), bound())
    world.pods.change(event("ADDED", waiting(version=9) | {"metadata": {**waiting()["metadata"], "uid": "second"}}))
    assert world.holders() == []


async def test_the_end_of_a_pod_is_not_the_end_of_its_successor(world: World) -> None:
    """The DELETED of the first may come after a read has shown the second."""
    await world.listed(reservation(), bound(uid="second"))
    world.pods.change(event("DELETED", bound(version=3, uid="first")))
    assert world.holders() == ["a"]
    assert world.names() == ["a", "share-1"]


async def test_what_is_read_is_slim_whichever_way_it_came(world: World) -> None:
    noise = {"managedFields": [{"manager": "kubectl"}]}
    pod, read = bound(), bound("read")
    pod["metadata"] |= noise
    read["metadata"] |= noise
    await world.listed(reservation(), bound("read"))
    world.pods.change(event("ADDED", pod))
    world.api["read"] = read
    await world.listed(reservation(), pod)
    assert world.reads == ["read"]
    assert [found for found in world.pods if "managedFields" in found["metadata"]] == []


async def test_a_new_list_does_not_shorten_the_grace_period_of_a_pod_that_was_deleted_by_force(world: World) -> None:
    await world.listed(reservation(), bound(grace=600))
    forced = bound(version=3, grace=600)
    forced["metadata"] |= {"deletionGracePeriodSeconds": 0, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    world.pods.change(event("DELETED", forced))
    await asyncio.sleep(60)
    await world.listed(reservation())
    await asyncio.sleep(60)
    assert world.holders() == ["a"]
    await asyncio.sleep(600)
    assert world.holders() == []


async def test_a_pod_that_was_bound_and_deleted_by_force_unseen_has_its_own_grace_period(world: World) -> None:
    await world.listed(reservation())
    world.bind(waiting(grace=600))
    await world.listed(reservation())
    await asyncio.sleep(60)
    assert world.holders() == ["a"]
    await asyncio.sleep(600)
    assert world.holders() == []
