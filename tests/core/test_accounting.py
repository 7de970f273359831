"""A node's state, derived from what is on it."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.core import names
from extender.core.accounting import derive, holds_device
from extender.core.nodereader import read_nodes
from extender.core.values import GpuState, Node, PodOnNode, Reservation, ShareOnGpu
from tests.builders import make_node

CARD = 1000


def node(gpus: int = 4) -> Node:
    [made] = read_nodes([make_node("n").gpus(gpus, mib=CARD).build()])
    return made


def pod(uid: str, *shares: ShareOnGpu, gpus: int = 0, mode: str = names.TIME_SLICING) -> PodOnNode:
    resources = {names.GPU_RESOURCE: gpus} if gpus else {}
    return PodOnNode(uid, "d", uid, "n", resources, shares, mode, observed=True)


def reserved(gpu_id: str, device: str | None, mib: int | None = CARD) -> Reservation:
    return Reservation(gpu_id, "n", uid=f"uid-{gpu_id}", device=device, memory_mib=mib)


def test_a_reservation_and_its_gpu_are_one_gpu() -> None:
    share = ShareOnGpu("a", "GPU-1", 300)
    state = derive(node(), [pod("p", share), pod("w", gpus=2)], [reserved("a", "GPU-1")])
    assert (state.whole_held, state.whole_pods, state.whole_free) == (2, 1, 1)
    [gpu] = state.gpus
    assert (gpu.id, gpu.uuid, gpu.used_mib, gpu.free_mib, gpu.state) == ("a", "GPU-1", 300, 700, GpuState.READY)


def test_what_is_free_is_never_negative() -> None:
    share = ShareOnGpu("a", "GPU-1", CARD + 500)
    state = derive(node(1), [pod("p", share), pod("w", gpus=7)], [reserved("a", "GPU-1")])
    assert state.whole_free == 0
    assert state.gpus[0].free_mib == 0
    assert state.gpus[0].used_mib == CARD + 500


def test_it_goes_by_device_not_by_id() -> None:
    state = derive(node(), [pod("p", ShareOnGpu("old-name", "GPU-1", 300))], [reserved("a", "GPU-1")])
    assert [(gpu.id, gpu.used_mib) for gpu in state.gpus] == [("a", 300)]
    other = derive(node(), [pod("p", ShareOnGpu("a", "GPU-2", 300))], [reserved("a", "GPU-1")])
    assert [(gpu.id, gpu.state, gpu.used_mib) for gpu in other.gpus] == [
        ("a", GpuState.READY, 0),
        ("a-lost", GpuState.LOST, 300),
    ]
    assert other.closed == "ReservationLost"


def test_a_share_waits_for_its_report() -> None:
    known = pod("p", ShareOnGpu("a", "GPU-1", 300))
    waiting = pod("q", ShareOnGpu("a", None, 200))
    assert derive(node(), [waiting], [reserved("a", None)]).gpus[0].state is GpuState.ASSUMED
    # Another extender has seen the report before us.
    state = derive(node(), [known, waiting], [reserved("a", None, None)])
    assert [(gpu.used_mib, gpu.memory_mib) for gpu in state.gpus] == [(500, CARD)]
    assert state.closed is None


@pytest.mark.parametrize("change", [{"ended": True}, {"boot_id": "an older boot"}])
def test_a_device_that_is_no_longer_held_is_lost(change: dict[str, object]) -> None:
    reservation = replace(reserved("a", "GPU-1"), **change)  # type: ignore[arg-type]
    state = derive(node(), [pod("p", ShareOnGpu("a", "GPU-1", 300))], [reservation])
    assert not holds_device(reservation, node())
    assert [(gpu.state, gpu.used_mib) for gpu in state.gpus] == [(GpuState.LOST, 300)]
    assert state.closed == "ReservationLost"


def test_after_a_reboot_the_reservation_holds_some_device() -> None:
    """Nobody knows which: it counts as one more, until it has ended."""
    rebooted = replace(reserved("a", "GPU-1"), boot_id="an older boot")
    assert derive(node(4), [], [rebooted]).whole_free == 3
    assert derive(node(4), [], [replace(rebooted, ended=True)]).whole_free == 4
    unknown = replace(reserved("a", "GPU-1"), boot_id=None)
    assert holds_device(unknown, node())
    assert derive(node(4), [], [unknown]).gpus[0].state is GpuState.READY


@pytest.mark.parametrize(
    "change", [{"closing": True}, {"undecodable": "its report cannot be read"}], ids=["closing", "unreadable"]
)
def test_what_takes_no_share(change: dict[str, object]) -> None:
    reservation = replace(reserved("a", "GPU-1"), **change)  # type: ignore[arg-type]
    state = derive(node(), [], [reservation])
    assert not state.gpus[0].takes(names.TIME_SLICING)
    assert state.whole_free == 3


def test_compute_modes_never_meet() -> None:
    slicing, sm = pod("a", ShareOnGpu("a", "GPU-1", 1)), pod("b", ShareOnGpu("a", "GPU-1", 1), mode=names.SM_SHARING)
    alone = derive(node(), [sm], [reserved("a", "GPU-1")]).gpus[0]
    assert (alone.takes(names.SM_SHARING), alone.takes(names.TIME_SLICING)) == (True, False)
    both = derive(node(), [slicing, sm], [reserved("a", "GPU-1")]).gpus[0]
    assert not both.takes(names.SM_SHARING)
    assert not both.takes(names.TIME_SLICING)
    empty = derive(node(), [], [reserved("a", "GPU-1")]).gpus[0]
    assert empty.takes(names.SM_SHARING)
    assert empty.takes(names.TIME_SLICING)


def test_resources_are_those_of_pods_and_reservations() -> None:
    holder = pod("p")._replace(resources={names.CPU: 1500, names.MEMORY: 10})
    reservation = replace(reserved("a", "GPU-1"), resources={names.CPU: 50})
    free = derive(node(), [holder], [reservation]).free
    assert (free[names.CPU], free[names.PODS]) == (64_000 - 1550, 108)
    ended = derive(node(), [holder], [replace(reservation, ended=True)]).free
    assert (ended[names.CPU], ended[names.PODS]) == (64_000 - 1500, 109)


def test_an_unreadable_pod_closes_the_node() -> None:
    assert derive(node(), [pod("p")._replace(undecodable="what?")], []).closed == "ShareUnreadable"


devices = st.sampled_from([None, "GPU-1", "GPU-2", "GPU-3"])
shares = st.builds(ShareOnGpu, st.sampled_from("abc"), devices, st.integers(1, CARD))
modes = st.sampled_from(names.COMPUTE_MODES)
pods = st.lists(st.tuples(st.lists(shares, max_size=2), st.integers(0, 2), modes), max_size=5)
reservations = st.lists(
    st.builds(reserved, st.sampled_from("abcd"), devices), unique_by=lambda reservation: reservation.id, max_size=4
)


def shuffled(things: Sequence[object], seed: int) -> list[object]:
    return random.Random(seed).sample(things, len(things))


@settings(deadline=None)
@given(pods=pods, reservations=reservations, seed=st.integers(0, 9))
def test_the_order_of_events_does_not_matter(
    pods: list[tuple[list[ShareOnGpu], int, str]], reservations: list[Reservation], seed: int
) -> None:
    """Whatever contradicts itself: a rebuild from a list sees what the events made."""
    held = [pod(f"p{i}", *shares, gpus=gpus, mode=mode) for i, (shares, gpus, mode) in enumerate(pods)]
    state = derive(node(), held, reservations)
    assert derive(node(), shuffled(held, seed), shuffled(reservations, seed)) == state  # type: ignore[arg-type]
    assert sum(gpu.used_mib for gpu in state.gpus) == sum(share.mib for one in held for share in one.shares)
    assert state.whole_free >= 0
