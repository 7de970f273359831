"""GPUs that kube-scheduler gives out by ResourceClaim: seen, shown with who holds them, and never shared."""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.client import Answer
from tests.controlplane.gpu_node import GpuNode
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, inspected
from tests.core.node_cases import device, resource_slice

Json = dict[str, Any]
DRIVER: Final = "gpu.nvidia.com"
GROUP: Final = "/apis/resource.k8s.io/v1"
CLAIMS: Final = f"{GROUP}/namespaces/default/resourceclaims"


def of_kind(kind: str, found: Json) -> Json:
    return {"apiVersion": "resource.k8s.io/v1", "kind": kind, **found}


@pytest.fixture
async def node(scene: Scene) -> AsyncIterator[GpuNode]:
    """Its DRA driver offers two GPUs; no device plugin runs there."""
    node = await scene.add(make_node("n").cpu(16))
    gpus = [device(f"gpu-{number}", uuid=f"GPU-{number}", pci=f"0000:{number:02x}:00.0") for number in range(2)]
    made = {
        f"{GROUP}/deviceclasses": {
            "metadata": {"name": DRIVER},
            "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]},
        },
        f"{GROUP}/resourceslices": resource_slice(*gpus, node=node.name, name=node.name),
        CLAIMS: {
            "metadata": {"name": "gpu"},
            "spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": DRIVER}}]}},
        },
    }
    kinds = ("DeviceClass", "ResourceSlice", "ResourceClaim")
    paths = []
    for (path, body), kind in zip(made.items(), kinds, strict=True):
        await scene.admin.post(path, of_kind(kind, body))
        paths.append(f"{path}/{body['metadata']['name']}")
    yield node
    # The controller that takes this off is not running here.
    await scene.admin.patch(f"{CLAIMS}/gpu", {"metadata": {"finalizers": None}})
    for path in reversed(paths):
        await scene.admin.delete(path)


async def shows(extender: Served, node: GpuNode, **expected: object) -> bool:
    found = await inspected(extender, node.name)
    return {key: found[key] for key in expected} == expected


async def test_what_claims_hold_is_seen_and_no_share_gets_there(scene: Scene, node: GpuNode, extender: Served) -> None:
    devices = {"mode": "dra", "physicalGpus": 2, "wholeGpus": 2, "memoryMiB": 81_920, "sharedGpus": []}
    await scene.until(lambda: shows(extender, node, **devices, wholeGpusHeld=0), PATIENCE, "its devices are seen")
    claims = [{"name": "gpu", "resourceClaimName": "gpu"}]
    await scene.submit(make_pod("claims").spec(resourceClaims=claims), make_pod("share").gpu_fraction("0.5"))
    await scene.run("claims")
    await scene.until(lambda: shows(extender, node, **devices, wholeGpusHeld=1), PATIENCE, "the claim's device is held")
    await scene.stay_pending("share")
    await scene.until(lambda: scene.is_told("share", "DRA"), PATIENCE, "its user is not told why it waits")

    await scene.admin.delete(f"{GROUP}/resourceslices/{node.name}")
    await scene.until(lambda: shows(extender, node, mode="none"), PATIENCE, "its devices are gone")
    with pytest.raises(Answer, match="not found"):
        await scene.admin.get(f"{GROUP}/resourceslices/{node.name}")
    slices = [device("gpu-0", uuid="GPU-0", pci="0000:00:00.0")]
    again = resource_slice(*slices, node=node.name, name=node.name, generation=2)
    await scene.admin.post(f"{GROUP}/resourceslices", of_kind("ResourceSlice", again))
    await scene.until(lambda: shows(extender, node, mode="dra", wholeGpus=1), PATIENCE, "they are back, one is broken")
