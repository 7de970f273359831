"""A user writes one annotation into a Deployment: its pods run with the right device and limit at their first start.

The pods are made by the real controllers. A container's variables are what the referee's kubelet resolves as it starts.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from extender.core import names
from extender.core.placement import REASON_TEXT
from tests.builders import make_node, make_pod
from tests.controlplane.gpu_node import Admitted, GpuNode, annotations
from tests.controlplane.policies import HARMLESS, decided
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Stage

Json = dict[str, Any]
APPS = "/apis/apps/v1/namespaces/default"
CARD = 80_000
#: What the Binding fills for HAMi-core, for a share of 0.4.
HAMI_CORE = {
    "CUDA_DEVICE_MEMORY_LIMIT": "32000m",
    "CUDA_DEVICE_MEMORY_LIMIT_0": "32000m",
    "LD_PRELOAD": "/usr/local/vgpu/libvgpu.so",
}


@pytest.fixture(scope="module", autouse=True)
def controllers(stage: Stage) -> Iterator[None]:
    running = stage.plane.start_controllers("deployment", "replicaset")
    yield
    running.stop()


@asynccontextmanager
async def deployed(scene: Scene, replicas: int, **annotations: str) -> AsyncIterator[None]:
    """A Deployment that says nothing but the annotations; without a garbage collector its ReplicaSet goes by name."""
    labels = {"app": "llm"}
    written = {key.replace("_", "-"): text for key, text in annotations.items()}
    template = {
        "metadata": {"labels": labels, "annotations": written},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/llm:1"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    await scene.admin.post(f"{APPS}/deployments", {"metadata": {"name": "llm"}, "spec": spec})
    try:
        yield
    finally:
        await scene.admin.delete(f"{APPS}/deployments/llm")
        await scene.until(lambda: has_no_replicaset(scene), PATIENCE, "a ReplicaSet is left")


async def has_no_replicaset(scene: Scene) -> bool:
    """Delete what there is: until its controller has seen that the Deployment is gone, it makes another one."""
    await scene.admin.delete(f"{APPS}/replicasets")
    await asyncio.sleep(0.3)
    return not (await scene.admin.get(f"{APPS}/replicasets"))["items"]


async def running(scene: Scene, number: int) -> list[Admitted]:
    """The Deployment's pods, once so many run."""

    def found() -> list[Admitted]:
        return [pod for name, pod in scene.referee.running().items() if name.startswith("default/llm-")]

    await scene.referee.until(lambda: len(found()) == number, PATIENCE)
    return found()


def device_of(pod: Admitted, node: GpuNode) -> str:
    """The one device that its container sees: one of the node's."""
    device = pod.environments["main"]["NVIDIA_VISIBLE_DEVICES"]
    assert device in node.devices
    return device


@pytest.mark.parametrize(
    ("backend", "limits"),
    [
        ("none", {}),
        ("nri", {}),
        ("hami-core", {**HAMI_CORE, **HARMLESS}),
        (
            "mps",
            {
                "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "{device}=32000M",
                "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "40",
                "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
            },
        ),
    ],
)
async def test_one_annotation_ends_with_running_pods_that_know_device_and_limit(
    scene: Scene, backend: str, limits: Mapping[str, str]
) -> None:
    node = await scene.add(make_node("n").gpus(2, mib=CARD))
    async with decided(scene.admin, {"backend": backend}), deployed(scene, 4, gpu_fraction="0.4"):
        pods = await running(scene, 4)
        devices = [device_of(pod, node) for pod in pods]
        assert sorted(devices.count(device) for device in set(devices)) == [2, 2]
        for pod, device in zip(pods, devices, strict=True):
            expected = {name: value.format(device=device) for name, value in limits.items()}
            assert pod.environments["main"] == {"NVIDIA_VISIBLE_DEVICES": device, **expected}
            # What kai-gpu-fractioning reads, on whichever node has it.
            assert annotations(pod.pod)["nvidia.com/container.main.gpus.devices"] == device
            assert annotations(pod.pod)["nvidia.com/container.main.gpu-memory.limit"] == "32000Mi"
            assert pod.restarts == 0, "at the first start"
    assert scene.referee.violations() == []


async def test_a_pod_that_its_replicaset_replaces_is_as_complete(scene: Scene) -> None:
    node = await scene.add(make_node("n").gpus(1, mib=CARD))
    async with decided(scene.admin, {"backend": "hami-core"}), deployed(scene, 1, gpu_memory="4096"):
        (first,) = await running(scene, 1)
        await scene.admin.delete(f"/api/v1/namespaces/default/pods/{first.pod['metadata']['name']}")
        await scene.referee.until(lambda: first.name not in scene.referee.running(), PATIENCE)
        (second,) = await running(scene, 1)
        assert second.name != first.name
        assert device_of(second, node) == device_of(first, node)
        assert second.environments["main"]["CUDA_DEVICE_MEMORY_LIMIT"] == "4096m"
    assert scene.referee.violations() == []


# --- a backend for each pool of nodes -----------------------------------------------------------------------


async def test_each_pool_limits_in_its_own_way(scene: Scene) -> None:
    """The pods are all alike until they are bound; variables of the other backend are empty then."""
    hami, mps, bare = [
        await scene.add(make_node(pool).gpus(1, mib=CARD).label(names.ENFORCEMENT_LABEL, pool))
        for pool in ("hami-core", "mps", "none")
    ]
    await scene.add(make_node("misspelt").gpus(8, mib=CARD).label(names.ENFORCEMENT_LABEL, "MPS"))
    async with decided(scene.admin, {"backend": "mps, hami-core"}), deployed(scene, 6, gpu_fraction="0.4"):
        by_node: dict[str, list[Mapping[str, str]]] = {}
        for pod in await running(scene, 6):
            by_node.setdefault(str(pod.pod["spec"]["nodeName"]), []).append(pod.environments["main"])
    own = {
        hami.name: HAMI_CORE,
        mps.name: {
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{next(iter(mps.devices))}=32000M",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "40",
        },
        bare.name: {},
    }
    limits = {name for filled in own.values() for name in filled}
    for node in (hami, mps, bare):
        expected = dict.fromkeys(limits, "") | own[node.name]
        expected |= {"NVIDIA_VISIBLE_DEVICES": next(iter(node.devices)), "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps"}
        expected |= HARMLESS
        assert by_node[node.name] == [expected, expected]
    assert scene.referee.violations() == []


async def test_a_pod_goes_only_where_it_can_be_limited(scene: Scene) -> None:
    await scene.add(make_node("mps").gpus(1, mib=CARD).label(names.ENFORCEMENT_LABEL, "mps"))
    async with decided(scene.admin, {"backend": "hami-core"}):
        await scene.submit(make_pod("late").gpu_memory(1))
        await scene.stay_pending("late")
        why = REASON_TEXT["NotPrepared"]
        await scene.until(lambda: scene.is_told("late", why), PATIENCE, "its user is not told why it waits")
        hami = await scene.add(make_node("hami").gpus(1, mib=CARD).label(names.ENFORCEMENT_LABEL, "hami-core"))
        await scene.run("late")
        assert (await scene.pod("late"))["spec"]["nodeName"] == hami.name
