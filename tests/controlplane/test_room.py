"""The account by which a pending pod is said to fit, or not to."""

from random import Random

import pytest

from tests.builders import PodBuilder, make_pod
from tests.controlplane.gpu_node import MEMORY_MIB, RESERVATIONS, VISIBLE_DEVICES, Admitted, Device, GpuNode
from tests.controlplane.room import fits


@pytest.fixture
def node() -> GpuNode:
    """Two cards of 1000 MiB: 600 of the first are used."""
    devices = {uuid: Device(uuid, 1000) for uuid in ("GPU-a", "GPU-b")}
    node = GpuNode("n", {"cpu": 4000, "memory": 2**30, "pods": 4}, devices, Random(7), "boot-1")
    admit(node, make_pod("share-1", RESERVATIONS).gpus(1))
    [first] = [device.uuid for pod in node.admitted.values() for device in pod.devices]
    admit(node, make_pod("user").gpu_memory(1).annotation(VISIBLE_DEVICES, first).annotation(MEMORY_MIB, "600"))
    return node


def admit(node: GpuNode, pod: PodBuilder) -> None:
    assert isinstance(node.admit(pod.build()), Admitted)


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (make_pod().gpu_memory(400), True),
        (make_pod().gpu_memory(1000), True),
        (make_pod().gpu_memory(1001), False),
        (make_pod().gpu_fraction("0.4").num_devices(2), True),
        (make_pod().gpu_fraction("0.401").num_devices(2), False),
        (make_pod().gpus(1), True),
        (make_pod().gpus(2), False),
        (make_pod().gpu_memory(400).container(requests={"cpu": "5"}), False),
    ],
)
def test_one_card_is_free_and_400_mib_of_the_other(node: GpuNode, pod: PodBuilder, expected: bool) -> None:
    assert fits(pod.build(), [node]) is expected


def test_a_card_of_a_pod_with_whole_gpus_has_no_room(node: GpuNode) -> None:
    admit(node, make_pod("whole").gpus(1))
    assert not fits(make_pod().gpu_memory(401).build(), [node])
    assert fits(make_pod().gpu_memory(400).build(), [node])


def test_an_idle_reservation_can_be_given_back(node: GpuNode) -> None:
    node.admitted = {uid: pod for uid, pod in node.admitted.items() if pod.is_reservation}
    assert fits(make_pod().gpus(2).build(), [node])


def test_no_slot_no_room(node: GpuNode) -> None:
    for number in range(2):
        admit(node, make_pod(f"cpu-{number}"))
    assert not fits(make_pod().gpu_memory(1).build(), [node])
    assert not fits(make_pod().gpu_memory(1).build(), [])
