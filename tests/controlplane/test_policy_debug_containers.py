"""A debug container of a share pod sees no device, whatever its image says; ``kubectl debug`` works as ever."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import refused
from tests.controlplane.users import TENANT

Json = dict[str, Any]
VOID: Final = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
DEVICES: Final = {"fieldRef": {"fieldPath": f"metadata.annotations['{names.VISIBLE_DEVICES}']"}}


@pytest.fixture
async def share(admin: Client, tenant: Client) -> AsyncIterator[Json]:
    pod = await tenant.create_pod(make_pod("debugged").gpu_memory(1).build())
    yield pod
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


@pytest.fixture
async def ordinary(admin: Client, tenant: Client) -> AsyncIterator[Json]:
    pod = await tenant.create_pod(make_pod("ordinary").build())
    yield pod
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


async def debug(client: Client, pod: Json, containers: Sequence[Json]) -> list[Json]:
    """Add debug containers; all that the pod has then."""
    body = {"spec": {"ephemeralContainers": [{"image": "x", **container} for container in containers]}}
    kind = "application/strategic-merge-patch+json"
    stored = await client.send("PATCH", f"{path_of(pod)}/ephemeralcontainers", body, kind)
    return list(stored["spec"]["ephemeralContainers"])


async def test_a_debug_container_that_says_nothing_sees_no_device(tenant: Client, share: Json) -> None:
    """An image that says "all" would show every GPU of the node; so would a ConfigMap that envFrom names."""
    mode = {"name": "MODE", "value": "fast"}
    unseen = [{"configMapRef": {"name": "what-it-holds-nobody-sees"}}]
    found = await debug(tenant, share, [{"name": "a"}, {"name": "b", "env": [mode], "envFrom": unseen}])
    assert [container["env"] for container in found] == [[VOID], [VOID, mode]]
    # Those that are there stay as they are: Kubernetes allows no change of them.
    found = await debug(tenant, share, [{"name": "c"}])
    assert {container["name"]: container["env"] for container in found} == {"a": [VOID], "b": [VOID, mode], "c": [VOID]}


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        # The pod's own device, without what holds its containers to their limit.
        {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": DEVICES},
        {"name": "CUDA_VISIBLE_DEVICES", "value": "0"},
    ],
    ids=["all", "the pod's own", "by CUDA"],
)
async def test_a_debug_container_names_no_device(tenant: Client, share: Json, entry: Json) -> None:
    sentence = await refused(debug(tenant, share, [{"name": "debug", "env": [entry]}]))
    assert sentence.startswith(f"container debug sets {entry['name']}, but the devices")


async def test_debug_containers_of_other_pods_are_not_touched(tenant: Client, ordinary: Json) -> None:
    says_all = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    found = await debug(tenant, ordinary, [{"name": "a"}, {"name": "b", "env": [says_all]}])
    assert [container.get("env") for container in found] == [None, [says_all]]


async def test_kubectl_debug_needs_no_flag(granted: ControlPlane, share: Json, ordinary: Json) -> None:
    """By somebody who has rights on pods and no others."""
    seen = {}
    for pod in (share, ordinary):
        name = pod["metadata"]["name"]
        granted.kubectl("debug", name, "--image=x", "--container=shell", "--env=MODE=fast", user=TENANT)
        stored = json.loads(granted.kubectl("get", "pod", name, "-o", "json"))
        seen[name] = stored["spec"]["ephemeralContainers"][0]["env"]
    mode = {"name": "MODE", "value": "fast"}
    assert seen == {"debugged": [VOID, mode], "ordinary": [mode]}
