"""The rules of the node record, and that what it says survives being written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.core import names
from extender.core.record import CLOSING, LOST, OPEN, Entry, NodeRecord, Opened, UnreadableRecord, record_name
from extender.core.recordreader import recorded_gpus, recorded_pods

CARD = 1000
A = Opened("share-a", "uid-a", "GPU-a", CARD)
B = Opened("share-b", "uid-b", "GPU-b", CARD)
KNOWN = {A.gpu_id: A, B.gpu_id: B}


def entry(gpu: Opened, pod: str, mib: int, attempt: str = "x-1", mode: str = names.TIME_SLICING) -> Entry:
    return Entry(gpu.gpu_id, pod, f"ns/{pod}", mib, attempt, mode)


def taken(record: NodeRecord, *entries: Entry, missing: dict[str, int] | None = None) -> NodeRecord:
    changed = record.with_entries(entries, KNOWN, missing or {})
    assert isinstance(changed, NodeRecord), changed
    return changed


def refused(record: NodeRecord, *entries: Entry, missing: dict[str, int] | None = None) -> str:
    before = record.dump()
    changed = record.with_entries(entries, KNOWN, missing or {})
    assert isinstance(changed, str)
    assert record.dump() == before
    return changed


def closed(record: NodeRecord, opened: Opened = A) -> NodeRecord:
    changed = record.closing(opened)
    assert isinstance(changed, NodeRecord), changed
    return changed


# --- taking in --------------------------------------------------------------------------------------------


def test_the_sum_of_the_shares_never_exceeds_the_card() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 600))
    assert refused(record, entry(A, "q", 401)) == "the shared GPU no longer has room"
    assert len(list(taken(record, entry(A, "q", 400)).entries())) == 2


def test_bound_pods_that_the_record_misses_count_too() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 600))
    assert refused(record, entry(A, "q", 400), missing={"GPU-a": 1}) == "the shared GPU no longer has room"
    taken(record, entry(A, "q", 400), missing={"GPU-b": 1})


def test_a_device_occurs_once() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 100))
    twin = Opened("share-twin", "uid-twin", A.device, CARD)
    changed = record.with_entries([entry(twin, "q", 100)], {twin.gpu_id: twin}, {})
    assert changed == "the device stands in the record under another reservation pod"


@pytest.mark.parametrize(
    "other", [Opened("share-a", "uid-2", "GPU-a", CARD), Opened("share-a", "uid-a", "GPU-2", CARD)]
)
def test_an_id_stands_for_one_reservation_and_one_device(other: Opened) -> None:
    """The Binding would name another device than the one that the record accounts for."""
    record = taken(NodeRecord.empty(), entry(A, "p", 100))
    changed = record.with_entries([entry(A, "q", 100)], {"share-a": other}, {})
    assert changed == "the shared GPU stands in the record with another device"


def test_all_devices_of_a_pod_or_none() -> None:
    record = taken(NodeRecord.empty(), entry(B, "q", 800))
    refused(record, entry(A, "p", 300), entry(B, "p", 300))
    assert {e.gpu_id for e in taken(record, entry(A, "p", 200), entry(B, "p", 200)).of("p")} == {"share-a", "share-b"}


def test_a_gpu_that_is_not_open_gains_nothing() -> None:
    assert refused(closed(NodeRecord.empty()), entry(A, "p", 1)) == "the shared GPU is closing"
    lost = taken(NodeRecord.empty(), entry(A, "p", 1)).losing("share-a")
    assert isinstance(lost, NodeRecord)
    assert lost.state("share-a") == LOST
    assert refused(lost, entry(A, "q", 1)) == "the shared GPU is lost"


def test_a_gpu_that_nobody_knows_gains_nothing() -> None:
    changed = NodeRecord.empty().with_entries([entry(A, "p", 1)], {}, {})
    assert changed == "the shared GPU has left the record"


@pytest.mark.parametrize("grace", [0, 30, 3600])
def test_how_long_a_pods_processes_may_outlive_it_is_kept(grace: int) -> None:
    record = taken(NodeRecord.empty(), replace(entry(A, "p", 100), grace=grace))
    assert [e.grace for e in NodeRecord.parse(record.dump()).entries()] == [grace]


def test_compute_modes_do_not_mix() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 100, mode=names.SM_SHARING))
    assert "another compute mode" in refused(record, entry(A, "q", 100))
    assert [e.compute_mode for e in NodeRecord.parse(record.dump()).entries()] == [names.SM_SHARING]


def test_a_new_try_takes_the_place_of_the_old_one() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 900, "x-1"))
    record = taken(record, entry(B, "p", 900, "x-2"))
    assert record.of("p") == (entry(B, "p", 900, "x-2"),)


# --- leaving out ------------------------------------------------------------------------------------------


def test_only_the_try_that_is_named_is_left_out() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 100, "x-2"))
    assert record.without([("p", "x-1"), ("q", "x-2")]) == record
    assert record.without([("p", "x-2")]).of("p") == ()


def test_a_gpu_with_shares_does_not_close_and_does_not_leave() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 100))
    assert record.closing(A) == record.without_gpu("share-a") == "shares are on the GPU"


def test_a_gpu_closes_even_where_it_never_stood() -> None:
    """Another extender, whose watch has shown the report, may be about to write it down."""
    assert closed(NodeRecord.empty()).state("share-a") == CLOSING


def test_closing_under_another_name_leaves_the_device_where_it_stands() -> None:
    """Lost shares may wait for exactly that reservation pod; one that holds the device no longer may go."""
    record = taken(NodeRecord.empty(), entry(A, "p", 100))
    twin = Opened("share-twin", "u", A.device, CARD)
    assert record.closing(twin) == "the device stands in the record under another reservation pod"
    assert record.closing(twin, holds=False) == record


def test_a_closed_gpu_leaves_when_its_pod_is_gone() -> None:
    record = closed(taken(NodeRecord.empty(), entry(B, "p", 100)))
    assert record.without_closed(lambda _: False) == record
    left = record.without_closed(lambda _: True)
    assert (left.state("share-a"), left.state("share-b")) == (None, OPEN)


def test_a_new_reservation_takes_the_place_of_a_lost_one_with_its_shares() -> None:
    lost = taken(NodeRecord.empty(), entry(A, "p", 100)).losing("share-a")
    assert isinstance(lost, NodeRecord)
    repaired = lost.repaired(Opened("share-new", "uid-new", A.device, CARD))
    assert isinstance(repaired, NodeRecord)
    assert repaired.of("p") == (Entry("share-new", "p", "ns/p", 100, "x-1"),)
    assert (repaired.state("share-new"), repaired.state("share-a")) == (OPEN, None)
    assert repaired.repaired(Opened("share-a", "u", A.device, CARD)) == "the device is not lost"
    assert lost.repaired(Opened("share-b", "u", B.device, CARD)) == "the device is not lost"


def test_the_old_reservation_takes_its_own_place_again() -> None:
    record = taken(NodeRecord.empty(), entry(A, "p", 100))
    lost = record.losing("share-a")
    assert isinstance(lost, NodeRecord)
    assert lost.repaired(A) == record


def test_more_shares_than_a_repaired_gpu_has_memory_stay_and_take_no_other() -> None:
    """After a change of ECC mode: they run, whatever fits."""
    lost = taken(NodeRecord.empty(), entry(A, "p", CARD)).losing("share-a")
    assert isinstance(lost, NodeRecord)
    smaller = lost.repaired(Opened("share-new", "uid-new", A.device, CARD // 2))
    assert isinstance(smaller, NodeRecord)
    again = NodeRecord.parse(smaller.dump())
    full = again.with_entries([replace(entry(A, "q", 1), gpu_id="share-new")], {}, {})
    assert full == "the shared GPU no longer has room"


def test_only_a_gpu_with_shares_is_lost() -> None:
    assert NodeRecord.empty().losing("share-a") == "the shared GPU has left the record"
    assert closed(NodeRecord.empty()).losing("share-a") == "no share is on the GPU"


# --- reading ----------------------------------------------------------------------------------------------


def test_fields_that_we_do_not_know_are_kept() -> None:
    content = json.loads(taken(NodeRecord.empty(), entry(A, "p", 100)).dump())
    content["later"] = 1
    content["gpus"]["share-a"]["later"] = {"x": [2]}
    content["gpus"]["share-a"]["shares"]["p"]["later"] = None
    record = taken(NodeRecord.parse(json.dumps(content)), entry(A, "q", 100), entry(B, "q", 100))
    written = json.loads(record.without([("q", "x-1")]).without_closed(lambda _: True).dump())
    del written["gpus"]["share-b"]
    assert written == content


def spoil(path: list[str], value: Any) -> str:
    content = json.loads(taken(NodeRecord.empty(), entry(A, "p", 100), entry(B, "p", 100)).dump())
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(content)


SPOILT: list[tuple[list[str], Any]] = [
    (["v"], 2),
    (["v"], None),
    (["gpus"], []),
    (["gpus", "share-a"], None),
    (["gpus", "share-a", "device"], "GPU-b"),
    (["gpus", "share-a", "device"], ""),
    (["gpus", "share-a", "reservation"], 7),
    (["gpus", "share-a", "mib"], 0),
    (["gpus", "share-a", "mib"], True),
    (["gpus", "share-a", "mib"], 1.5),
    (["gpus", "share-a", "state"], "ajar"),
    (["gpus", "share-a", "shares"], []),
    (["gpus", "share-a", "shares", "p"], 1),
    (["gpus", "share-a", "shares", "p", "mib"], -1),
    (["gpus", "share-a", "shares", "p", "try"], None),
    (["gpus", "share-a", "shares", "p", "pod"], []),
    (["gpus", "share-a", "shares", "p", "mode"], "mps"),
    (["gpus", "share-a", "shares", "p", "grace"], -1),
    (["gpus", "share-a", "shares", "p", "grace"], True),
    (["gpus", "share-a", "shares", "p", "grace"], "30"),
]


@pytest.mark.parametrize(("path", "value"), SPOILT, ids=json.dumps)
def test_what_we_would_not_have_written_is_unreadable(path: list[str], value: Any) -> None:
    NodeRecord.parse(spoil(["later"], 1))
    with pytest.raises(UnreadableRecord):
        NodeRecord.parse(spoil(path, value))


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(UnreadableRecord):
        NodeRecord.parse(text)


def test_names_of_records_differ() -> None:
    assert record_name("n1") != record_name("n2")
    assert len(record_name("n" * 253)) < 64


# --- any sequence -----------------------------------------------------------------------------------------

pods = st.sampled_from("pqrs")
gpus = st.sampled_from([A, B])
steps = st.one_of(
    st.builds(
        lambda gpu, pod, mib, n: ("take", gpu, entry(gpu, pod, mib, f"x-{n}")),
        gpus,
        pods,
        st.integers(1, CARD),
        st.integers(1, 3),
    ),
    st.builds(lambda gpu: ("close", gpu, None), gpus),
    st.builds(lambda gpu: ("leave", gpu, None), gpus),
    st.builds(lambda gpu, pod, n: ("drop", gpu, entry(gpu, pod, 1, f"x-{n}")), gpus, pods, st.integers(1, 3)),
)


def step(record: NodeRecord, what: str, gpu: Opened, share: Entry | None) -> NodeRecord:
    if what == "take":
        assert share is not None
        changed = record.with_entries([share], KNOWN, {})
    elif what == "drop":
        assert share is not None
        changed = record.without([(share.pod_uid, share.attempt)])
    else:
        changed = record.closing(gpu) if what == "close" else record.without_gpu(gpu.gpu_id)
    return changed if isinstance(changed, NodeRecord) else record


@given(st.lists(steps, max_size=30))
def test_after_any_steps_the_rules_hold_and_the_text_says_it_all(
    taken_steps: list[tuple[str, Opened, Entry | None]],
) -> None:
    record = NodeRecord.empty()
    for what, gpu, share in taken_steps:
        closing = {opened.gpu_id for opened, state in record.opened() if state == CLOSING}
        before = set(record.entries())
        record = step(record, what, gpu, share)
        assert not [e for e in set(record.entries()) - before if e.gpu_id in closing]
        for opened, _ in record.opened():
            assert sum(e.mib for e in record.entries() if e.gpu_id == opened.gpu_id) <= opened.mib
        again = NodeRecord.parse(record.dump())
        assert again == record
        assert hash(again) == hash(record)
        assert {p.uid: [(s.gpu_id, s.mib) for s in p.shares] for p in recorded_pods("n", again)} == {
            uid: [(e.gpu_id, e.mib) for e in record.of(uid)] for uid in {e.pod_uid for e in record.entries()}
        }
        assert {r.id: r.closing for r in recorded_gpus("n", again)} == {
            opened.gpu_id: state == CLOSING for opened, state in record.opened()
        }
