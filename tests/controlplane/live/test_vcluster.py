"""Pods that a syncer brings from a virtual cluster: under another name, with annotations copied, changed or dropped."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import PodBuilder, make_node, make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.gpu_node import Admitted
from tests.controlplane.policies import decided, grant_everything_on_pods, refused
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, Stage, inspected
from tests.controlplane.users import TENANT
from tests.controlplane.vcluster import DOMAIN, host_name, on_host

Json = dict[str, Any]
PODS: Final = "/api/v1/namespaces/default/pods"
OURS: Final = (names.PREFIX, names.CONTAINER_PREFIX)


@pytest.fixture(scope="module")
def rights(stage: Stage) -> Iterator[None]:
    grant_everything_on_pods(stage.plane, TENANT)
    yield
    stage.plane.kubectl("delete", "clusterrole", "everything-on-pods")


@pytest.fixture
async def syncer(stage: Stage, rights: None) -> AsyncIterator[Client]:
    """An account with every right on pods, as vCluster's has in its namespace; to us a user like any other."""
    async with Client(stage.plane, TENANT) as client:
        yield client


def virtual(name: str = "train", namespace: str = "team-a") -> PodBuilder:
    """A pod of the virtual cluster that asks for a share, complete in nothing else."""
    return make_pod(name, namespace).gpu_memory(4096).container("main").container("side")


async def running(scene: Scene, name: str, namespace: str = "team-a") -> Admitted:
    """The pod as it runs on the host."""
    host = f"default/{host_name(name, namespace)}"
    await scene.referee.wait_running([host], PATIENCE)
    return scene.referee.running()[host]


async def test_a_pod_under_another_name_runs_with_its_device_and_limit(scene: Scene, syncer: Client) -> None:
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    wants = virtual().build()
    asks = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    wants["spec"]["containers"][0]["env"] = [asks]
    async with decided(scene.admin, {"backend": "hami-core"}):
        await syncer.post(PODS, on_host(wants))
        pod = await running(scene, "train")
    (device,) = node.devices
    seen = pod.environments["main"]
    assert (seen["NVIDIA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_MEMORY_LIMIT"]) == (device, "4096m")
    assert seen["POD"] == "train", "its own name in the virtual cluster"
    assert pod.environments["side"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert scene.cards(node) == [[4096]]
    assert scene.referee.violations() == []


async def test_pods_of_one_name_in_two_virtual_namespaces_and_a_name_that_is_cut(scene: Scene, syncer: Client) -> None:
    node = await scene.add(make_node("n").gpus(1, mib=8192 + 4096))
    long = "x" * 60
    for name, namespace in (("train", "team-a"), ("train", "team-b"), (long, "team-a")):
        await syncer.post(PODS, on_host(virtual(name, namespace).build()))
    for name, namespace in (("train", "team-a"), ("train", "team-b"), (long, "team-a")):
        await running(scene, name, namespace)
    assert scene.cards(node) == [[4096, 4096, 4096]]
    assert scene.referee.violations() == []


async def test_what_the_syncer_writes_later_does_not_move_the_share(
    scene: Scene, syncer: Client, extender: Served
) -> None:
    await scene.add(make_node("n").gpus(1, mib=8192))
    await syncer.post(PODS, on_host(virtual().build()))
    pod = (await running(scene, "train")).pod
    noted = {f"{DOMAIN}/labels": 'app="new"', f"{DOMAIN}/owner-set-kind": "ReplicaSet", "team": "a"}
    await syncer.patch(path_of(pod), {"metadata": {"annotations": noted, "labels": {"app": "new"}}})
    # A tenant may write on his virtual pod what he likes; the syncer brings it here, and there it ends.
    for key, value in ((names.MEMORY_MIB, "1"), (names.VISIBLE_DEVICES, "all"), (names.SHARED_GPUS, None)):
        sentence = await refused(syncer.patch(path_of(pod), {"metadata": {"annotations": {key: value}}}))
        assert sentence == f"annotation {key} is written by the GPU extender only"
    await refused(syncer.patch(path_of(pod), {"metadata": {"annotations": {names.GPU_MEMORY: "1"}}}))
    assert (await extender.get("/check"))["differences"] == []
    assert scene.referee.violations() == []


@pytest.mark.parametrize("size", [(names.GPU_FRACTION, "0.5"), (names.GPU_MEMORY, "4096")])
async def test_a_placement_that_was_copied_to_the_virtual_pod_does_not_come_back(
    scene: Scene, syncer: Client, size: tuple[str, str]
) -> None:
    """The syncer shows the host pod's annotations on the virtual one. A host pod made anew from that is placed anew."""
    old = await scene.add(make_node("old").gpus(1, mib=8192))
    wants = make_pod("train", "team-a").annotation(*size).container("main").container("side")
    await syncer.post(PODS, on_host(wants.build()))
    first = (await running(scene, "train")).pod
    copied = {k: v for k, v in first["metadata"]["annotations"].items() if not k.startswith(DOMAIN)}
    assert copied.keys() > {names.SHARED_GPUS, names.VISIBLE_DEVICES, names.TRY}
    await scene.admin.delete(path_of(first), {"gracePeriodSeconds": 0})
    await scene.referee.until(lambda: not any("train" in name for name in scene.referee.running()), PATIENCE)
    await scene.referee.remove_node(old.name)
    node = await scene.add(make_node("new").gpus(1, mib=8192))
    again = wants.build()
    again["metadata"]["annotations"] |= copied
    created = await syncer.post(PODS, on_host(again))
    left = [key for key in created["metadata"]["annotations"] if key.startswith(OURS)]
    assert left == [], "nothing of the old placement"
    second = await running(scene, "train")
    assert second.environments["main"]["NVIDIA_VISIBLE_DEVICES"] == next(iter(node.devices))
    assert second.pod["metadata"]["annotations"][names.MEMORY_MIB] == "4096"
    assert scene.referee.violations() == []


async def test_a_limit_of_the_users_own_is_no_copy(scene: Scene, syncer: Client) -> None:
    """In the per-container dialect the limit is what he asks for."""
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    wants = make_pod("train", "team-a").container_gpu_memory("main", limit="2Gi").container("main")
    wants.annotation(names.SHARED_GPUS, "share-old").annotation(names.VISIBLE_DEVICES, "GPU-old")
    await syncer.post(PODS, on_host(wants.build()))
    await running(scene, "train")
    assert scene.cards(node) == [[2048]]


async def test_who_is_no_syncer_is_refused_as_ever(scene: Scene, syncer: Client) -> None:
    forged = make_pod("forged").gpu_memory(1).annotation(names.VISIBLE_DEVICES, "GPU-1").build()
    body = {**forged, "metadata": {k: forged["metadata"][k] for k in ("name", "annotations")}}
    assert await refused(syncer.post(PODS, body)) == (
        f"annotation {names.VISIBLE_DEVICES} is written by the GPU extender only"
    )


async def test_annotations_that_are_dropped_on_the_way_leave_an_ordinary_pod(
    scene: Scene, syncer: Client, extender: Served
) -> None:
    """It runs, and sees no device: the variable's annotation does not exist. Nothing is counted."""
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    wants = virtual().spec(schedulerName="gpu-scheduler").env("main", NVIDIA_VISIBLE_DEVICES=names.VISIBLE_DEVICES)
    host = on_host(wants.build())
    del host["metadata"]["annotations"][names.GPU_MEMORY]
    await syncer.post(PODS, host)
    pod = await running(scene, "train")
    assert pod.environments["main"]["NVIDIA_VISIBLE_DEVICES"] == ""
    assert scene.cards(node) == []
    assert (await inspected(extender, node.name))["sharedGpus"] == []


async def test_a_scheduler_inside_the_virtual_cluster_cannot_place_a_share(scene: Scene, syncer: Client) -> None:
    """Then the syncer brings the pod with its node: nobody has given it a device."""
    node = await scene.add(make_node("n").gpus(1, mib=8192))
    host = on_host(virtual().spec(nodeName=node.name).build())
    assert await refused(syncer.post(PODS, host)) == (
        "a pod that asks for a GPU share must not set nodeName: only the extender knows which GPU has room"
    )
