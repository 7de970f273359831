"""Pods that ask for nothing are stored as an API server without our policies stores them, to the letter."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import decided, what_if

Json = dict[str, Any]
#: Given to each pod anew, by any server.
OWN: Final = ("uid", "creationTimestamp", "managedFields")
SAYS_ALL: Final = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}, {"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    """A server that has never heard of us."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
async def elsewhere(bare: ControlPlane) -> AsyncIterator[Client]:
    async with Client(bare) as client:
        yield client


def busy() -> PodBuilder:
    """Containers of each kind, with variables, volumes and mounts, some at places where a share pod has ours."""
    mounts = [{"name": "data", "mountPath": path} for path in ("/usr/local/vgpu", "/tmp/nvidia-mps", "/dev/shm")]
    container = {"image": "x", "env": SAYS_ALL, "envFrom": [{"secretRef": {"name": "s"}}], "volumeMounts": mounts}
    volumes: list[Json] = [{"name": "data", "emptyDir": {}}, {"name": "gpu-extender-hami-core", "emptyDir": {}}]
    return make_pod().spec(
        volumes=volumes,
        containers=[{"name": "main", **container}, {"name": "plain", "image": "x"}],
        initContainers=[{"name": "side", "restartPolicy": "Always", **container}, {"name": "setup", "image": "x"}],
        nodeSelector={"gpu-extender.io/enforcement": "mps"},
    )


PODS: Final = {
    "plain": make_pod(),
    "annotated": make_pod().annotation("gpu-placement", "0.5").annotation("prometheus.io/scrape", "true"),
    "whole GPU": make_pod().gpus(1),
    "busy": busy(),
    "another scheduler": make_pod().spec(schedulerName="mine"),
}


async def stored(client: Client, pod: PodBuilder, labels: Json) -> Json:
    built = pod.build()
    metadata = {"name": "pod", "annotations": built["metadata"]["annotations"], "labels": labels}
    found = await client.post(what_if(), {"metadata": metadata, "spec": built["spec"]})
    found["metadata"] = {key: value for key, value in found["metadata"].items() if key not in OWN}
    return found


@pytest.mark.usefixtures("policed")
@pytest.mark.parametrize("backend", ["none", "hami-core", "mps", "mps, hami-core"])
async def test_pods_that_ask_for_nothing_are_stored_as_anywhere(admin: Client, elsewhere: Client, backend: str) -> None:
    async with decided(admin, {"backend": backend}):
        for name, pod in PODS.items():
            for labels in ({}, {"app": "a"}):
                here, there = await stored(admin, pod, labels), await stored(elsewhere, pod, labels)
                assert here == there, name
