"""What admission should have prevented: whatever is written on pods, no memory that is in use is given out.

The account here is kept by hand: what each pod was bound with. What the ledger would still give out of a device must
never be more than the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from extender.binding.records import config_map_of
from extender.core import names
from extender.core.consistency import differences
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.record import Entry, NodeRecord, Opened
from extender.core.values import GpuState, SharedGpu
from extender.reflector import Reflector
from tests.builders import PodBuilder, make_node, make_pod, stable_uid

Json = dict[str, Any]
CARD = 1000
OPENED = Opened("share-1", stable_uid("pod", names.RESERVATION_NAMESPACE, "share-1"), "GPU-1", CARD)


def reservation(gpu_id: str = "share-1", device: str | None = "GPU-1", mib: object = CARD) -> PodBuilder:
    pod = make_pod(gpu_id, names.RESERVATION_NAMESPACE).gpus(1).on_node("n")
    if device is not None:
        pod.annotation(names.DEVICE, device).annotation(names.DEVICE_MEMORY_MIB, str(mib))
    return pod


def bound(name: str = "p", mib: object = 600, gpu: str = "share-1", device: str = "GPU-1") -> PodBuilder:
    pod = make_pod(name).gpu_memory(600).on_node("n").annotation(names.TRY, f"try-of-{name}")
    pod.annotation(names.SHARED_GPUS, gpu).annotation(names.VISIBLE_DEVICES, device)
    return pod.annotation(names.MEMORY_MIB, str(mib))


def entry(name: str = "p", mib: int = 600, gpu: str = "share-1") -> Entry:
    return Entry(gpu, stable_uid("pod", "default", name), f"default/{name}", mib, f"try-of-{name}")


def record(*entries: Entry, gpu: Opened = OPENED) -> Json:
    made = NodeRecord.empty()
    for each in entries:
        changed = made.with_entries([each], {gpu.gpu_id: gpu}, {})
        assert isinstance(changed, NodeRecord)
        made = changed
    return config_map_of("n", made)


class World:
    """A node with two GPUs; on one of them, GPU-1, a pod holds 600 of 1000 MiB."""

    def __init__(self, *, reported: PodBuilder | None = None, remembers: bool = True, recorded: bool = True) -> None:
        """``remembers``: it has seen the pod as it was bound. ``recorded``: the node record is there."""
        decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
        self.reflector = Reflector(decisions)
        self.ledger = decisions.ledger
        self.reflector.nodes(read_nodes([make_node("n").gpus(2, mib=CARD).build()]))
        self.pods: dict[str, Json] = {}
        self.see(reported or reservation())
        if remembers:
            self.see(bound())
        if recorded:
            self.reflector.config_map(record(entry()))

    def see(self, pod: PodBuilder) -> None:
        built = pod.build()
        self.pods[built["metadata"]["uid"]] = built
        self.reflector.pod(built)

    def gpus(self) -> tuple[SharedGpu, ...]:
        state = self.ledger.state("n")
        assert state is not None
        return state.gpus

    def free(self) -> int:
        """MiB of GPU-1 that a new share could get, by whatever name."""
        state = self.ledger.state("n")
        assert state is not None
        if state.closed is not None:
            return 0
        there = [gpu for gpu in state.gpus if gpu.uuid == "GPU-1" or (gpu.id, gpu.uuid) == ("share-1", None)]
        return sum(gpu.free_mib for gpu in there if gpu.takes(names.TIME_SLICING))

    def found(self) -> set[str]:
        return {difference.kind for difference in differences(self.ledger, list(self.pods.values()))}


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.ledger.check()


# --- a pod that runs is written to ----------------------------------------------------------------------------


CHANGES: Mapping[str, Callable[[], PodBuilder]] = {
    "its share shrinks": lambda: bound(mib=1),
    "it moves to another GPU": lambda: bound(gpu="share-2", device="GPU-2"),
    "it names another device": lambda: bound(device="GPU-2"),
    "it names none": lambda: make_pod("p").gpu_memory(600).on_node("n"),
    "it asks for nothing": lambda: make_pod("p").on_node("n"),
    "it cannot be read": lambda: bound(mib="lots"),
    "another try has bound it": lambda: bound(mib=1).annotation(names.TRY, "x"),
    "it asks for less": lambda: bound(mib=100).gpu_memory(100),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("recorded", [True, False])
def test_what_was_bound_is_remembered(change: Callable[[], PodBuilder], recorded: bool) -> None:
    world = World(recorded=recorded)
    world.see(change())
    assert world.free() <= 400
    assert world.found() & {"different", "unreadable"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_process_that_starts_later_has_the_record(change: Callable[[], PodBuilder]) -> None:
    world = World(remembers=False)
    world.see(change())
    assert world.free() <= 400
    assert world.found() & {"record", "unreadable"}


def test_what_it_takes_besides_counts_too(world: World) -> None:
    """Its container may have started again since: nobody knows on which of the two it runs."""
    world.see(reservation("share-2", "GPU-2"))
    world.see(bound(gpu="share-2", device="GPU-2"))
    assert {gpu.uuid: gpu.used_mib for gpu in world.gpus()} == {"GPU-1": 600, "GPU-2": 600}
    world.see(bound(mib=900))
    assert {gpu.uuid: gpu.used_mib for gpu in world.gpus()} == {"GPU-1": 900, "GPU-2": 600}


@pytest.mark.parametrize("remembers", [True, False])
def test_its_compute_mode_stays(remembers: bool) -> None:
    """Pods of another mode must not meet it on its GPU."""
    world = World(remembers=remembers, recorded=not remembers)
    other = make_pod("p").on_node("n").container("main").container_gpu_memory("main", limit="600Mi")
    other.compute_mode("main", names.SM_SHARING)
    for key in (names.SHARED_GPUS, names.VISIBLE_DEVICES, names.MEMORY_MIB, names.TRY):
        other.annotation(key, bound().build()["metadata"]["annotations"][key])
    world.see(other)
    [gpu] = world.gpus()
    assert gpu.takes(names.TIME_SLICING)
    assert not gpu.takes(names.SM_SHARING)


def test_with_the_pod_its_share_ends(world: World) -> None:
    world.see(bound(mib=1))
    world.reflector.pod_gone(bound(mib=1).build())
    assert world.free() == CARD


def test_a_pod_of_that_name_that_comes_later_is_another(world: World) -> None:
    world.reflector.pod_gone(bound().build())
    world.see(bound(mib=1).uid("second"))
    assert world.free() == CARD - 1


# --- pods that nobody has bound by the protocol ---------------------------------------------------------------


def test_a_forged_pod_counts_with_what_it_says(world: World) -> None:
    world.see(bound("forged", mib=300).annotation(names.TRY, "try-of-p"))
    assert world.free() == 100
    assert "record" in world.found()
    world.see(bound("more", mib=CARD))
    assert world.free() == 0
    assert "overcommitted" in world.found()


def test_an_unbound_pod_that_brings_an_allocation_holds_nothing(world: World) -> None:
    world.see(bound("forged").spec(nodeName=None))
    assert world.free() == 400
    assert "forged" in world.found()


def test_a_pod_that_was_bound_past_us_holds_nothing_and_is_told(world: World) -> None:
    world.see(make_pod("open").gpu_memory(100).on_node("n"))
    assert world.free() == 400
    assert "bypassed" in world.found()


def test_a_pod_with_whole_gpus_in_hand_counts(world: World) -> None:
    world.see(make_pod("whole").gpus(1).on_node("n").spec(schedulerName="mine"))
    state = world.ledger.state("n")
    assert state is not None
    assert state.whole_free == 0


# --- the record is written to ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        record(entry(mib=1)),
        record(),
        record(entry("other", 1)),
        record(entry(mib=600), gpu=Opened("share-1", OPENED.reservation, "GPU-1", 10 * CARD)),
        record(entry(mib=600), gpu=Opened("share-1", OPENED.reservation, "GPU-2", CARD)),
        record(entry(mib=600), gpu=Opened("share-1", "another", "GPU-1", CARD)),
    ],
    ids=["share shrunk", "emptied", "another pod", "memory grown", "device changed", "reservation changed"],
)
def test_a_record_that_says_less_than_the_pods(world: World, forged: Json) -> None:
    world.reflector.config_map(forged)
    assert world.free() <= 400
    assert world.found() & {"record", "unreadable", "lost"}


# --- reservation pods -----------------------------------------------------------------------------------------


REPORTS: Mapping[str, Callable[[], PodBuilder]] = {
    "more memory": lambda: reservation(mib=9 * CARD),
    "another device": lambda: reservation(device="GPU-2"),
    "no device": lambda: reservation(device=None),
    "unreadable memory": lambda: reservation(mib="lots"),
}


@pytest.mark.parametrize("change", REPORTS.values(), ids=REPORTS.keys())
@pytest.mark.parametrize("recorded", [True, False])
def test_a_report_is_made_once(change: Callable[[], PodBuilder], recorded: bool) -> None:
    """Shares were counted against the first: nothing new is placed there, and what is there stays where it is."""
    world = World(recorded=recorded)
    world.see(change())
    assert world.free() == 0
    [gpu] = world.gpus()
    assert (gpu.uuid, gpu.memory_mib, gpu.used_mib, gpu.state) == ("GPU-1", CARD, 600, GpuState.READY)
    assert "unreadable" in world.found()
    world.see(reservation())
    assert world.free() == 400, "what was changed back is what it was"


@pytest.mark.parametrize("change", REPORTS.values(), ids=REPORTS.keys())
def test_a_process_that_starts_later_has_the_recorded_report(change: Callable[[], PodBuilder]) -> None:
    world = World(reported=change(), remembers=False)
    world.see(bound())
    assert world.free() == 0
    assert [(gpu.uuid, gpu.memory_mib, gpu.used_mib) for gpu in world.gpus()] == [("GPU-1", CARD, 600)]
    assert "unreadable" in world.found()
    world.see(reservation())
    believed = 0 if change is REPORTS["another device"] else 400
    assert world.free() == believed, "what was changed back is what the record says, if it is about the same device"


@pytest.mark.parametrize("report_first", [True, False])
def test_report_and_record_grow_together(world: World, report_first: bool) -> None:
    grown = record(entry(mib=600), gpu=Opened("share-1", OPENED.reservation, "GPU-1", 10 * CARD))
    if report_first:
        world.see(reservation(mib=10 * CARD))
    world.reflector.config_map(grown)
    world.see(reservation(mib=10 * CARD))
    assert world.free() == 0


@pytest.mark.parametrize("name", ["share-0", "share-9"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_stranger_that_names_the_device_gets_no_share(name: str, recorded: bool) -> None:
    world = World(recorded=recorded)
    world.see(reservation(name, mib=9 * CARD))
    assert world.free() == (400 if recorded else 0), "the record says which of the two it is"
    assert "device-twice" in world.found()


def test_a_stranger_under_the_name_of_one_that_is_gone(world: World) -> None:
    world.reflector.pod_gone(reservation().build())
    world.see(reservation(mib=9 * CARD).uid("stranger"))
    assert world.free() == 0
    assert "lost" in world.found()


def test_a_stranger_that_asks_for_no_device_holds_none(world: World) -> None:
    stranger = make_pod("share-2", names.RESERVATION_NAMESPACE).on_node("n")
    world.see(stranger.annotation(names.DEVICE, "GPU-2").annotation(names.DEVICE_MEMORY_MIB, str(CARD)))
    assert [gpu.id for gpu in world.gpus()] == ["share-1"]
    assert "forged" in world.found()


# --- anything ---------------------------------------------------------------------------------------------------


_WRITES = st.fixed_dictionaries(
    {},
    optional={
        names.SHARED_GPUS: st.sampled_from(["share-1", "share-2", "share-1,share-2", ""]),
        names.VISIBLE_DEVICES: st.sampled_from(["GPU-1", "GPU-2", "GPU-1,GPU-2", ""]),
        names.MEMORY_MIB: st.sampled_from(["1", "600", "1000", "x", "", "1,600"]),
        names.TRY: st.sampled_from(["try-of-p", "x", ""]),
        names.GPU_MEMORY: st.sampled_from(["1", "600", "x"]),
    },
)


@settings(max_examples=300, deadline=None)
@given(writes=st.lists(_WRITES, max_size=4), remembers=st.booleans())
def test_nothing_that_is_written_on_a_running_pod_frees_its_memory(writes: list[Json], remembers: bool) -> None:
    world = World(remembers=remembers)
    for written in writes:
        pod = make_pod("p").on_node("n")
        for key, value in written.items():
            pod.annotation(key, value)
        world.see(pod)
        assert world.free() <= 400
    world.ledger.check()


_RECORDS = st.sampled_from(
    [
        record(),
        record(entry()),
        record(entry(mib=1)),
        record(entry("other", 1)),
        record(entry(), gpu=Opened("share-1", OPENED.reservation, "GPU-1", 10 * CARD)),
        record(entry(mib=1), gpu=Opened("share-1", OPENED.reservation, "GPU-2", CARD)),
        record(entry(mib=1), gpu=Opened("share-1", "another", "GPU-1", 10 * CARD)),
        record(entry(mib=1, gpu="share-9"), gpu=Opened("share-9", "another", "GPU-1", 10 * CARD)),
    ]
)
_REPORTS = st.builds(
    reservation,
    st.sampled_from(["share-1", "share-0", "share-9"]),
    st.sampled_from(["GPU-1", "GPU-2", None]),
    st.sampled_from([1, CARD, 10 * CARD, "x"]),
)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(st.one_of(_WRITES, _RECORDS, _REPORTS), max_size=6))
def test_nothing_that_is_written_anywhere_frees_what_this_process_has_seen_bound(events: list[Any]) -> None:
    world = World()
    for event in events:
        note(str(event.build()["metadata"] if isinstance(event, PodBuilder) else event))
        if isinstance(event, PodBuilder):
            world.see(event)
        elif "data" in event:
            world.reflector.config_map(event)
        else:
            pod = make_pod("p").on_node("n")
            for key, value in event.items():
                pod.annotation(key, value)
            world.see(pod)
        assert world.free() <= 400
    world.ledger.check()
