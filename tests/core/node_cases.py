"""Nodes and ResourceSlices as terse literals: labels and resources are what these tests are about."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
READY = {"type": "Ready", "status": "True"}


def node(
    labels: Mapping[str, object] | None = None,
    *,
    resources: Mapping[str, object] | None = None,
    spec: Json | None = None,
    ready: str | None = "True",
    allocatable: Mapping[str, object] | None = None,
    **capacity: object,
) -> Json:
    """A Node. Label keys and resources are without ``nvidia.com/``; allocatable is capacity unless given.

    Resources are keywords, ``gpu=8``, or stand in ``resources`` where a name has dots or dashes.
    """
    whole = nvidia({**capacity, **(resources or {})})
    conditions = [] if ready is None else [READY | {"status": ready}]
    return {
        "metadata": {"name": "n", "labels": nvidia(labels or {})},
        "spec": spec or {},
        "status": {
            "capacity": {"cpu": "64", **whole},
            "allocatable": {"cpu": "63", **(whole | nvidia(allocatable or {}))},
            "conditions": conditions,
        },
    }


def nvidia(named: Mapping[str, object]) -> dict[str, str]:
    """Quoted values; names without a domain get NVIDIA's."""
    return {key if "/" in key else f"nvidia.com/{key}": str(value) for key, value in named.items()}


def gpus(count: int = 8, memory: object = 81920, **more: object) -> dict[str, object]:
    """The labels of whole GPUs; keywords are attributes of ``gpu.``, None leaves one out."""
    attributes: dict[str, object] = {
        "count": count,
        "product": "NVIDIA-A100-SXM4-80GB",
        "memory": memory,
        "replicas": 1,
        "sharing-strategy": "none",
    } | {key.replace("_", "-"): value for key, value in more.items()}
    labels = {f"gpu.{key}": value for key, value in attributes.items() if value is not None}
    # The operator labels every node so, MIG or not.
    return {"gpu.present": "true", "mig.strategy": "single", **labels}


def profile(name: str, count: int, memory: int | None, **more: object) -> dict[str, object]:
    """The labels of one MIG profile."""
    attributes: dict[str, object] = {
        "count": count,
        "memory": memory,
        "replicas": 1,
        "sharing-strategy": "none",
    }
    attributes |= {key.replace("_", "-"): value for key, value in more.items()}
    return {f"mig-{name}.{key}": value for key, value in attributes.items() if value is not None}


def device(name: str, kind: str = "gpu", memory: str | None = "80Gi", **attributes: Any) -> Json:
    """A device of a ResourceSlice; attributes are strings, ``pci`` is short for the PCI address."""
    named = {"type": kind, "productName": "NVIDIA A100-SXM4-80GB", **attributes}
    if "pci" in named:
        named["resource.kubernetes.io/pciBusID"] = named.pop("pci")
    return {
        "name": name,
        "attributes": {key: {"string": value} for key, value in named.items() if value is not None},
        "capacity": {} if memory is None else {"memory": {"value": memory}},
    }


def resource_slice(
    *devices: Json,
    node: str = "n",
    name: str = "s-1",
    generation: int = 1,
    of: int = 1,
    driver: str = "gpu.nvidia.com",
    pool: str | None = None,
) -> Json:
    """One of ``of`` slices of a node's pool."""
    return {
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": of},
            "devices": list(devices),
        },
    }


def claim(*results: tuple[str, str], driver: str = "gpu.nvidia.com", **more: object) -> Json:
    """A ResourceClaim that holds (pool, device) pairs."""
    allocated = [{"request": "r", "driver": driver, "pool": p, "device": d, **more} for p, d in results]
    return {"metadata": {"name": "c"}, "status": {"allocation": {"devices": {"results": allocated}}}}
