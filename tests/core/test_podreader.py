"""From a pod in the API to what it holds; what cannot be read is never taken for nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.core import names
from extender.core.podreader import (
    annotations_of,
    has_ended,
    is_reservation,
    lingers,
    namespaced_name,
    node_of,
    placement_annotations,
    pod_on_node,
    reservation_of,
    uid_of,
)
from extender.core.reservation import Template, reservation_pod
from extender.core.values import NEVER_REPORTED, NOT_NEEDED, PodOnNode, ShareOnGpu
from tests.builders import make_pod


def placed(ids: str, devices: str, mib: str) -> Any:
    pod = make_pod("p", "team").gpu_memory(100).on_node("n").build()
    written = {names.SHARED_GPUS: ids, names.VISIBLE_DEVICES: devices, names.MEMORY_MIB: mib}
    pod["metadata"]["annotations"] |= {key: value for key, value in written.items() if value != "absent"}
    return pod


def holding(pod: Any) -> PodOnNode:
    found = pod_on_node(pod)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("sizes", "written"), [((100, 100), "100"), ((100, 90), "100,90")], ids=["alike", "each its own"]
)
def test_what_a_binding_writes_is_read_back(sizes: tuple[int, int], written: str) -> None:
    shares = tuple(ShareOnGpu(f"share-{i}", f"GPU-{i}", mib) for i, mib in enumerate(sizes))
    annotations = placement_annotations(PodOnNode("u", "d", "p", "n", {}, shares), ("a", "b"))
    assert annotations[names.MEMORY_MIB] == written
    assert annotations["nvidia.com/container.a.gpus.devices"] == "GPU-0,GPU-1"
    assert annotations["nvidia.com/container.b.gpus.devices"] == "GPU-0,GPU-1"
    pod = make_pod().on_node("n").build()
    pod["metadata"]["annotations"] = annotations
    assert holding(pod).shares == shares
    assert holding(pod).undecodable is None


def test_a_bound_pod() -> None:
    pod = make_pod("p", "team").container("c", requests={"cpu": "1500m"}, limits={"nvidia.com/gpu": 2}).on_node("n")
    found = holding(pod.build())
    assert (found.namespace, found.name, found.node, found.observed) == ("team", "p", "n", True)
    assert found.resources == {"cpu": 1500, "nvidia.com/gpu": 2}
    assert found.shares == ()


def test_who_holds_nothing() -> None:
    assert pod_on_node(make_pod().build()) is None
    assert pod_on_node(make_pod().on_node("n", "Succeeded").build()) is None


@pytest.mark.parametrize(
    ("ids", "devices", "mib"),
    [
        ("a", "GPU-1", "lots"),
        ("a", "GPU-1", "0"),
        ("a", "GPU-1", "-5"),
        ("a", "GPU-1", "1.5"),
        ("a", "GPU-1", "٣"),
        ("a", "GPU-1", "9" * 13),
        ("a", "GPU-1", "absent"),
        ("a", "absent", "5"),
        ("absent", "GPU-1", "5"),
        ("a,b", "GPU-1", "5"),
        ("a,b", "GPU-1,GPU-1", "5"),
        ("a,a", "GPU-1,GPU-2", "5"),
        ("a,", "GPU-1,GPU-2", "5"),
        ("a,b", "GPU-1,", "5"),
        ("a,b", "GPU-1,GPU-2", "5,6,7"),
    ],
)
def test_what_cannot_be_read_is_not_nothing(ids: str, devices: str, mib: str) -> None:
    found = holding(placed(ids, devices, mib))
    assert found.shares == ()
    assert found.undecodable


def test_spaces_are_no_reason() -> None:
    assert holding(placed("a, b", " GPU-1 ,GPU-2", "5")).shares == (
        ShareOnGpu("a", "GPU-1", 5),
        ShareOnGpu("b", "GPU-2", 5),
    )


def test_unreadable_resources_are_not_nothing() -> None:
    pod = make_pod().on_node("n").build()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "many"}}
    assert holding(pod).undecodable


def test_the_compute_mode() -> None:
    pod = make_pod().container("main").container_gpu_memory("main", limit="1Gi").compute_mode("main", names.SM_SHARING)
    assert holding(pod.on_node("n").build()).compute_mode == names.SM_SHARING
    assert holding(make_pod().on_node("n").build()).compute_mode == names.TIME_SLICING
    wrong = make_pod().compute_mode("main", "nonsense").on_node("n").build()
    assert holding(wrong).compute_mode == names.TIME_SLICING


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"])
@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_the_end_of_a_pod(kind: str, phase: str) -> None:
    pod = make_pod().on_node("n", phase)
    assert has_ended(pod.build())
    assert has_ended(pod.status(**{kind: [{"state": {"terminated": {"exitCode": 0}, "running": None}}]}).build())
    assert not has_ended(pod.status(**{kind: [{"state": {"running": {}}}]}).build()), "its process still runs"


def test_a_deletion_that_was_asked_for_ends_nothing() -> None:
    pod = make_pod().on_node("n").metadata(deletionTimestamp="2026-09-14T09:00:00Z").build()
    assert not has_ended(pod)
    assert pod_on_node(pod) is not None


def test_a_reservation() -> None:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).on_node("n")
    pod.container("agent", limits={"nvidia.com/gpu": 1, "cpu": "50m"})
    bare = reservation_of(pod.build())
    assert bare is not None
    assert (bare.id, bare.device, bare.memory_mib, bare.closing, bare.ended) == ("share-1", None, None, False, False)
    assert bare.resources == {"cpu": 50}, "its GPU is the shared GPU itself"
    pod.annotation(names.DEVICE, "GPU-1").annotation(names.DEVICE_MEMORY_MIB, "81920").annotation(names.BOOT_ID, "b")
    told = reservation_of(pod.build())
    assert told is not None
    assert (told.device, told.memory_mib, told.boot_id, told.undecodable) == ("GPU-1", 81920, "b", None)
    closing = reservation_of(pod.metadata(deletionTimestamp="2026-09-14T09:00:00Z").build())
    assert closing is not None
    assert closing.closing
    assert reservation_of(make_pod("share-1", names.RESERVATION_NAMESPACE).build()) is None


def test_a_reservation_that_is_not_bound_yet_is_for_the_node_of_its_affinity() -> None:
    pod = reservation_pod("share-1", "n", "nvidia.com/gpu", Template("gpu-scheduler", "image"))
    found = reservation_of(pod)
    assert found is not None
    assert (found.node, found.device, found.failure) == ("n", None, None)


def test_why_a_reservation_has_failed() -> None:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).on_node("n")
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    pulling = reservation_of({**pod.build(), "status": {"phase": "Pending", **waiting}})
    refused = reservation_of({**pod.build(), "status": {"phase": "Failed", "reason": "OutOfcpu"}})
    silent = reservation_of(pod.annotation(names.CLOSED_BECAUSE, NEVER_REPORTED).build())
    unneeded = reservation_of(pod.annotation(names.CLOSED_BECAUSE, NOT_NEEDED).build())
    reported = reservation_of({**pod.annotation(names.DEVICE, "GPU-1").build(), "status": {"phase": "Failed"}})
    found = (pulling, refused, silent, unneeded, reported)
    assert [r.failure for r in found if r] == [None, "OutOfcpu", NEVER_REPORTED, None, None]
    assert [r.why for r in found if r][:2] == ["ImagePullBackOff", "OutOfcpu"]
    assert [r.closing for r in found if r] == [False, False, True, True, True]


def test_what_the_agent_says_against_its_device() -> None:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).on_node("n")
    found = reservation_of(pod.annotation(names.DEVICE_HEALTH, "Xid: 79").build())
    assert found is not None
    assert found.problem == "Xid"


RUNNING: Any = {"containerStatuses": [{"state": {"running": {}}}, {"state": {"terminated": {}}}]}
ENDED: Any = {"containerStatuses": [{"state": {"terminated": {}}}, {"state": {"waiting": {}}}]}


@pytest.mark.parametrize(
    ("grace", "status", "seconds"),
    [
        (0, {"phase": "Running", **RUNNING}, 45),
        (0, {"phase": "Pending"}, 45),
        (0, {"phase": "Failed", **RUNNING}, 45),
        (0, {"phase": "Running", **ENDED}, 0),
        (0, {"phase": "Failed"}, 0),
        (45, {"phase": "Running", **RUNNING}, 0),
        (None, {"phase": "Running", **RUNNING}, 0),
    ],
)
def test_how_long_a_pod_outlives_its_deletion(grace: int | None, status: Any, seconds: int) -> None:
    """Only one that was taken away by force: else the kubelet has said that it has ended."""
    pod = make_pod().on_node("n").metadata(deletionGracePeriodSeconds=grace).build()
    pod["spec"]["terminationGracePeriodSeconds"] = 45
    assert lingers({**pod, "status": status}) == seconds
    del pod["spec"]["terminationGracePeriodSeconds"]
    assert lingers({**pod, "status": status}) == (30 if seconds else 0)
    del pod["spec"]["nodeName"]
    assert lingers({**pod, "status": status}) == 0


@pytest.mark.parametrize("mib", ["", "0", "-1", "81920Mi", "1e5"])
def test_a_report_that_cannot_be_read(mib: str) -> None:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).on_node("n").annotation(names.DEVICE_MEMORY_MIB, mib)
    found = reservation_of(pod.build())
    assert found is not None
    assert found.undecodable


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)
fields = {"metadata": json, "spec": json, "status": json}
names_of = {"name": json, "namespace": json, "uid": json, "annotations": json}
statuses = {"phase": st.just("Failed"), "containerStatuses": json}


@given(
    pod=st.fixed_dictionaries({}, optional=fields)
    | st.fixed_dictionaries(
        {},
        optional={
            "metadata": st.fixed_dictionaries({}, optional=names_of),
            "status": st.fixed_dictionaries({}, optional=statuses),
        },
    )
)
def test_readers_of_names_never_raise(pod: Any) -> None:
    """Every verb calls them for its log line, whatever the pod is."""
    assert isinstance(uid_of(pod), str)
    assert all(isinstance(part, str) for part in namespaced_name(pod))
    assert isinstance(is_reservation(pod), bool)
    assert isinstance(has_ended(pod), bool)
    assert dict(annotations_of(pod)) is not None
    node_of(pod)
