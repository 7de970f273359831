"""The judge judges: each forgery is found, and nothing is found where all is well. And the kubelet is strict."""

from random import Random
from typing import Any

import pytest

from tests.builders import PodBuilder, make_pod
from tests.controlplane.gpu_node import (
    MEMORY_MIB,
    RESERVATIONS,
    VISIBLE_DEVICES,
    Admitted,
    Device,
    GpuNode,
    Rejection,
    quantity,
    requests,
)
from tests.controlplane.judge import Kind, judge

Json = dict[str, Any]


@pytest.fixture
def node() -> GpuNode:
    devices = {uuid: Device(uuid, 1000) for uuid in ("GPU-a", "GPU-b")}
    return GpuNode("n", {"cpu": 4000, "memory": 2**30, "pods": 5}, devices, Random(7), "boot-1")


def share(name: str, devices: str, mib: str) -> Json:
    """As its user has asked for it."""
    return placed(make_pod(name).gpu_memory(mib).num_devices(devices.count(",") + 1), devices, mib)


def placed(pod: PodBuilder, devices: str, mib: str) -> Json:
    return pod.annotation(VISIBLE_DEVICES, devices).annotation(MEMORY_MIB, mib).build()


def reservation(name: str) -> Json:
    return make_pod(name, RESERVATIONS).gpus(1).build()


def admit(node: GpuNode, pod: Json) -> Admitted:
    admitted = node.admit(pod)
    assert isinstance(admitted, Admitted), admitted
    return admitted


def held(node: GpuNode) -> str:
    return admit(node, reservation(f"share-{len(node.admitted)}")).devices[0].uuid


def kinds(node: GpuNode) -> set[Kind]:
    return {violation.kind for violation in judge(node)}


def test_shares_that_fit_are_well(node: GpuNode) -> None:
    device = held(node)
    admit(node, share("a", device, "400"))
    admit(node, share("b", device, "600"))
    admit(node, make_pod("whole").gpus(1).build())
    assert list(judge(node)) == []


def test_one_mib_too_many(node: GpuNode) -> None:
    device = held(node)
    admit(node, share("a", device, "400"))
    admit(node, share("b", device, "601"))
    assert [v.text for v in judge(node)] == [f"{device}: default/a 400 MiB, default/b 601 MiB on 1000 MiB"]


def test_a_share_of_several_devices_counts_on_each(node: GpuNode) -> None:
    first, second = held(node), held(node)
    admit(node, share("a", f"{first},{second}", "600"))
    admit(node, share("b", f"{second},{first}", "400"))
    assert kinds(node) == set()
    admit(node, share("c", first, "1"))
    assert kinds(node) == {Kind.OVERSUBSCRIBED}


def test_a_share_that_has_ended_counts_no_more(node: GpuNode) -> None:
    device = held(node)
    for name in ("a", "b"):
        admit(node, share(name, device, "600"))
    assert kinds(node) == {Kind.OVERSUBSCRIBED}
    del node.admitted[share("a", device, "600")["metadata"]["uid"]]
    assert kinds(node) == set()


def test_a_card_that_nobody_holds(node: GpuNode) -> None:
    admit(node, share("a", "GPU-a", "1"))
    assert kinds(node) == {Kind.UNHELD}


def test_a_card_given_to_somebody_else(node: GpuNode) -> None:
    device = admit(node, make_pod("whole").gpus(1).build()).devices[0].uuid
    admit(node, share("a", device, "1"))
    assert kinds(node) == {Kind.GIVEN_AWAY, Kind.UNHELD}


def test_a_card_given_twice(node: GpuNode) -> None:
    first = admit(node, make_pod("one").gpus(1).build())
    second = admit(node, make_pod("two").gpus(1).build())
    assert kinds(node) == set()
    second.devices = first.devices
    assert kinds(node) == {Kind.GIVEN_TWICE}


@pytest.mark.parametrize(("devices", "mib"), [("GPU-x", "1"), ("", "1"), ("GPU-a", "x"), ("GPU-a", "1,2")])
def test_a_device_that_the_node_does_not_have(node: GpuNode, devices: str, mib: str) -> None:
    admit(node, share("a", devices, mib))
    assert Kind.UNKNOWN_DEVICE in kinds(node)


def test_a_pod_that_asks_for_a_share_and_got_none(node: GpuNode) -> None:
    admit(node, make_pod("a").gpu_fraction("0.5").build())
    assert kinds(node) == {Kind.UNPLACED}


def test_devices_come_in_an_order_that_nobody_chooses() -> None:
    seen = set()
    for seed in range(20):
        devices = {uuid: Device(uuid, 1) for uuid in ("GPU-a", "GPU-b")}
        seen.add(held(GpuNode("n", {}, devices, Random(seed), "b")))
    assert seen == {"GPU-a", "GPU-b"}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (make_pod("p").gpus(3), "UnexpectedAdmissionError"),
        (make_pod("p").container(requests={"cpu": "4001m"}), "OutOfcpu"),
        (make_pod("p").container(requests={"memory": "1025Mi"}), "OutOfmemory"),
        (make_pod("p").container(requests={"memory": "1Gi"}, limits={"cpu": "5"}), "OutOfcpu"),
        (make_pod("p").init_container(requests={"cpu": "5"}), "OutOfcpu"),
    ],
)
def test_what_does_not_fit_is_rejected_and_holds_nothing(node: GpuNode, pod: Any, reason: str) -> None:
    rejected = node.admit(pod.build())
    assert isinstance(rejected, Rejection)
    assert rejected.reason == reason
    assert node.admitted == {}


def test_the_last_pod_slot(node: GpuNode) -> None:
    for number in range(5):
        admit(node, make_pod(f"p{number}").build())
    rejected = node.admit(make_pod("p5").build())
    assert rejected == Rejection(
        "OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 5, capacity: 5"
    )


def test_a_failed_device_is_given_to_nobody(node: GpuNode) -> None:
    node.unhealthy.add("GPU-a")
    assert node.allocatable() == {"nvidia.com/gpu": 1}
    assert held(node) == "GPU-b"
    assert isinstance(node.admit(reservation("late")), Rejection)


def test_a_reboot_ends_what_holds_devices_and_nothing_else(node: GpuNode) -> None:
    device = held(node)
    running = admit(node, share("a", device, "5"))
    assert [admitted.is_reservation for admitted in node.reboot()] == [True]
    assert node.boot_id != "boot-1"
    assert running.restarts == 1
    assert kinds(node) == {Kind.UNHELD}


def test_after_other_devices_came_a_share_cannot_start(node: GpuNode) -> None:
    running = admit(node, share("a", held(node), "5"))
    node.reimage()
    assert not running.running
    assert not {"GPU-a", "GPU-b"} & set(node.devices)
    assert kinds(node) == set()


@pytest.mark.parametrize(
    ("name", "text", "amount"),
    [("cpu", "1", 1000), ("cpu", "1500m", 1500), ("cpu", "0.1", 100), ("memory", "1.5Gi", 3 * 2**29), ("pods", 7, 7)],
)
def test_quantities(name: str, text: object, amount: int) -> None:
    assert quantity(name, text) == amount


def test_requests_default_to_limits_and_add_up() -> None:
    pod = make_pod("p").container("a", limits={"cpu": "1"}).container("b", limits={"cpu": "2"}, requests={"cpu": "1"})
    assert requests(pod.init_container(requests={"cpu": "1"}).build()) == {"cpu": 2000, "pods": 1}


# --- what its user has asked for ----------------------------------------------------------------------------


@pytest.fixture
def uneven() -> GpuNode:
    """Two cards, of 1001 and of 500 MiB, both held."""
    devices = {uuid: Device(uuid, mib) for uuid, mib in (("GPU-a", 1001), ("GPU-b", 500))}
    node = GpuNode("n", {}, devices, Random(7), "boot-1")
    for _ in devices:
        held(node)
    return node


@pytest.mark.parametrize(
    ("pod", "devices", "mib"),
    [
        (make_pod().gpu_fraction("0.5"), "GPU-a", "500"),
        (make_pod().gpu_fraction("0.5"), "GPU-b", "250"),
        (make_pod().gpu_fraction("0.001"), "GPU-b", "1"),
        (make_pod().gpu_fraction("0.5").num_devices(2), "GPU-b,GPU-a", "250,500"),
        (make_pod().gpu_memory(400).num_devices(2), "GPU-a,GPU-b", "400"),
    ],
)
def test_a_share_as_it_was_asked_for(uneven: GpuNode, pod: PodBuilder, devices: str, mib: str) -> None:
    admit(uneven, placed(pod, devices, mib))
    assert kinds(uneven) == set()


@pytest.mark.parametrize(
    ("pod", "devices", "mib"),
    [
        (make_pod().gpu_fraction("0.5"), "GPU-a", "501"),
        (make_pod().gpu_fraction("0.5"), "GPU-a", "499"),
        (make_pod().gpu_fraction("0.5"), "GPU-a,GPU-b", "500,250"),
        (make_pod().gpu_fraction("0.5").num_devices(2), "GPU-a", "500"),
        (make_pod().gpu_fraction("0.5").num_devices(2), "GPU-a,GPU-b", "500"),
        (make_pod().gpu_fraction("0.2").num_devices(2), "GPU-b,GPU-b", "100"),
        (make_pod().gpu_memory(400), "GPU-b", "4"),
        (make_pod().gpu_memory("much"), "GPU-b", "4"),
    ],
)
def test_a_share_that_nobody_has_asked_for(uneven: GpuNode, pod: PodBuilder, devices: str, mib: str) -> None:
    admit(uneven, placed(pod, devices, mib))
    assert kinds(uneven) == {Kind.MISSIZED}


def test_what_is_asked_for_later_changes_nothing(uneven: GpuNode) -> None:
    pod = make_pod().gpu_memory(4)
    admitted = admit(uneven, placed(pod, "GPU-a", "4"))
    admitted.pod = pod.gpu_memory(5).build()
    uneven.reboot()
    assert Kind.MISSIZED not in kinds(uneven)


# --- what a process sees ------------------------------------------------------------------------------------


def seeing(value: str, device: str) -> Json:
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}]
    side = {"name": "side", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}
    pod = make_pod("seeing").gpu_memory(1).annotation(VISIBLE_DEVICES, device).annotation(MEMORY_MIB, "1")
    return pod.spec(containers=[{"name": "main", "env": env}, side]).build()


def test_a_process_that_sees_its_device_is_well(node: GpuNode) -> None:
    device = held(node)
    admit(node, seeing(device, device))
    assert kinds(node) == set()


@pytest.mark.parametrize("value", ["GPU-b", "all", "", "void", "GPU-a,GPU-b"])
def test_a_process_that_sees_something_else(node: GpuNode, value: str) -> None:
    node.devices.pop("GPU-b")
    device = held(node)
    assert device == "GPU-a"
    admit(node, seeing(value, device))
    assert kinds(node) == {Kind.MISLED}


def test_a_process_keeps_what_it_started_with(node: GpuNode) -> None:
    """Whatever somebody writes on its pod later; until it starts again."""
    pod = make_pod("p").annotation("a", "1")
    source = {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}
    pod.spec(containers=[{"name": "main", "env": [{"name": "A", "valueFrom": source}]}])
    admitted = admit(node, pod.build())
    admitted.pod = pod.annotation("a", "2").build()
    assert admitted.environments["main"] == {"A": "1"}
    node.reboot()
    assert admitted.environments["main"] == {"A": "2"}
