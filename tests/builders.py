"""Fluent builders of Kubernetes objects as plain JSON: say what a test is about, the rest is believable.

::

    make_pod("a").gpu_fraction("0.5").build()
    make_pod("b").container("main", limits={"nvidia.com/gpu": 2}).build()
    make_node("n").gpus(8, mib=81559).taint("nvidia.com/gpu", "present").build()
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any, Self

from extender.core import names

Json = dict[str, Any]
Quantities = Mapping[str, object]

_NAMESPACE = uuid.UUID("2f6c1f0e-9d43-4d0a-9f57-2f3f0f6f9a10")


def make_pod(name: str = "pod", namespace: str = "default") -> PodBuilder:
    """A pending pod; without a call of ``container`` it has one, ``main``, that asks for nothing."""
    return PodBuilder(name, namespace)


def make_node(name: str = "node") -> NodeBuilder:
    """A Ready node with 64 cores, 256 GiB and 110 pod slots, and no GPU."""
    return NodeBuilder(name)


def stable_uid(*parts: str) -> str:
    """A UID that is the same in every run, so that a failure can be repeated."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(parts)))


class PodBuilder:
    def __init__(self, name: str, namespace: str) -> None:
        self._metadata: Json = {
            "name": name,
            "namespace": namespace,
            "uid": stable_uid("pod", namespace, name),
            "resourceVersion": "1",
            "creationTimestamp": "2026-09-14T08:30:00Z",
            "annotations": {},
            "labels": {"app": name},
        }
        self._spec: Json = {"schedulerName": "default-scheduler", "containers": []}
        self._status: Json = {"phase": "Pending"}

    def uid(self, uid: str) -> Self:
        self._metadata["uid"] = uid
        return self

    def annotation(self, key: str, value: object) -> Self:
        self._metadata["annotations"][key] = value
        return self

    def label(self, key: str, value: str) -> Self:
        self._metadata["labels"][key] = value
        return self

    def gpu_fraction(self, fraction: object) -> Self:
        return self.annotation(names.GPU_FRACTION, fraction)

    fraction = gpu_fraction

    def gpu_memory(self, mib: object) -> Self:
        return self.annotation(names.GPU_MEMORY, str(mib) if type(mib) is int else mib)

    def num_devices(self, count: object) -> Self:
        return self.annotation(names.NUM_DEVICES, str(count) if type(count) is int else count)

    def container_name(self, name: object) -> Self:
        return self.annotation(names.CONTAINER_NAME, name)

    def strategy(self, name: object) -> Self:
        return self.annotation(names.PLACEMENT_STRATEGY, name)

    def container_gpu_memory(self, container: str, *, request: object = None, limit: object = None) -> Self:
        """The per-container dialect; what is None is left out."""
        if request is not None:
            self.annotation(names.CONTAINER_PREFIX + container + names.MEMORY_REQUEST_SUFFIX, request)
        if limit is not None:
            self.annotation(names.CONTAINER_PREFIX + container + names.MEMORY_LIMIT_SUFFIX, limit)
        return self

    def compute_mode(self, container: str, mode: object) -> Self:
        return self.annotation(names.CONTAINER_PREFIX + container + names.COMPUTE_MODE_SUFFIX, mode)

    def container(
        self, name: str = "main", *, requests: Quantities | None = None, limits: Quantities | None = None
    ) -> Self:
        self._spec["containers"].append(_container(name, requests, limits))
        return self

    def init_container(
        self,
        name: str = "init",
        *,
        requests: Quantities | None = None,
        limits: Quantities | None = None,
        sidecar: bool = False,
    ) -> Self:
        container = _container(name, requests, limits)
        if sidecar:
            container["restartPolicy"] = "Always"
        self._spec.setdefault("initContainers", []).append(container)
        return self

    def gpus(self, count: object, resource: str = names.GPU_RESOURCE) -> Self:
        """A container that asks for whole GPUs, or units of another GPU resource."""
        return self.container("main", limits={resource: str(count)})

    def env(self, container: str, **variables: str) -> Self:
        """Variables of a container that has been added: each taken from the pod's annotation of that key."""
        (found,) = (c for c in self._spec["containers"] if c["name"] == container)
        for name, key in variables.items():
            source = {"fieldRef": {"fieldPath": f"metadata.annotations['{key}']"}}
            found.setdefault("env", []).append({"name": name, "valueFrom": source})
        return self

    def on_node(self, node: str, phase: str = "Running") -> Self:
        """Bound to a node."""
        self._spec["nodeName"] = node
        self._status["phase"] = phase
        return self

    def phase(self, phase: str) -> Self:
        self._status["phase"] = phase
        return self

    def spec(self, **fields: Any) -> Self:
        """Any other field of the spec, with its name in the API: ``spec(nodeSelector={...})``."""
        self._spec.update(fields)
        return self

    def metadata(self, **fields: Any) -> Self:
        self._metadata.update(fields)
        return self

    def status(self, **fields: Any) -> Self:
        self._status.update(fields)
        return self

    def build(self) -> Json:
        spec = self._spec if self._spec["containers"] else self._spec | {"containers": [_container("main")]}
        return copy.deepcopy(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": self._metadata,
                "spec": spec,
                "status": self._status,
            }
        )


class NodeBuilder:
    def __init__(self, name: str) -> None:
        self._metadata: Json = {
            "name": name,
            "uid": stable_uid("node", name),
            "resourceVersion": "1",
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
            },
            "annotations": {},
        }
        self._spec: Json = {}
        self._resources: Json = {
            "cpu": "64",
            "memory": "268435456Ki",
            "pods": "110",
            "ephemeral-storage": "959786032Ki",
        }
        self._allocatable: Json = {}
        self._ready = "True"

    def cpu(self, cores: object) -> Self:
        return self.resource(names.CPU, cores)

    def memory(self, quantity: object) -> Self:
        return self.resource(names.MEMORY, quantity)

    def pod_slots(self, count: int) -> Self:
        return self.resource(names.PODS, count)

    def resource(self, name: str, quantity: object) -> Self:
        """Capacity and, unless ``allocatable`` says otherwise, what is allocatable."""
        self._resources[name] = str(quantity)
        return self

    def allocatable(self, name: str, quantity: object) -> Self:
        """Where it differs from capacity: a device that the device plugin found unhealthy, say."""
        self._allocatable[name] = str(quantity)
        return self

    def label(self, key: str, value: str) -> Self:
        self._metadata["labels"][key] = value
        return self

    def without_label(self, key: str) -> Self:
        self._metadata["labels"].pop(key, None)
        return self

    def annotation(self, key: str, value: str) -> Self:
        self._metadata["annotations"][key] = value
        return self

    def taint(self, key: str, value: str = "", effect: str = "NoSchedule") -> Self:
        self._spec.setdefault("taints", []).append({"key": key, "value": value, "effect": effect})
        return self

    def cordoned(self) -> Self:
        self._spec["unschedulable"] = True
        return self.taint("node.kubernetes.io/unschedulable")

    def not_ready(self) -> Self:
        self._ready = "False"
        return self

    def uid(self, uid: str) -> Self:
        self._metadata["uid"] = uid
        return self

    def gpus(
        self,
        count: int,
        *,
        mib: int | None = 81559,
        product: str = "NVIDIA-H100-80GB-HBM3",
        family: str = "hopper",
        mig_capable: bool = True,
    ) -> Self:
        """Whole GPUs with the labels of GPU feature discovery; ``mib=None``: without the memory label."""
        for key, value in _gpu_labels(count, product, family, mig_capable).items():
            self.label(key, value)
        if mib is not None:
            self.label("nvidia.com/gpu.memory", str(mib))
        return self.resource(names.GPU_RESOURCE, count)

    def build(self) -> Json:
        status = {
            "capacity": self._resources,
            "allocatable": self._resources | self._allocatable,
            "conditions": _conditions(self._ready),
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "kubeletVersion": "v1.34.3",
                "bootID": stable_uid("boot", self._metadata["name"]),
            },
        }
        return copy.deepcopy(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": self._metadata,
                "spec": self._spec,
                "status": status,
            }
        )


def _container(name: str, requests: Quantities | None = None, limits: Quantities | None = None) -> Json:
    listed = {"requests": requests, "limits": limits}
    resources = {kind: dict(quantities) for kind, quantities in listed.items() if quantities}
    return {"name": name, "image": "registry.example.com/app:1.0", "resources": resources}


def _gpu_labels(count: int, product: str, family: str, mig_capable: bool) -> dict[str, str]:
    return {
        "feature.node.kubernetes.io/pci-10de.present": "true",
        "nvidia.com/cuda.driver-version.full": "570.172.08",
        "nvidia.com/cuda.driver-version.major": "570",
        "nvidia.com/cuda.runtime-version.full": "12.8",
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.deploy.device-plugin": "true",
        "nvidia.com/gpu.deploy.driver": "true",
        "nvidia.com/gpu.family": family,
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true" if mig_capable else "false",
        "nvidia.com/mig.strategy": "single",
        "nvidia.com/mps.capable": "false",
        "nvidia.com/vgpu.present": "false",
    }


def _conditions(ready: str) -> list[Json]:
    at = {"lastHeartbeatTime": "2026-09-14T08:30:00Z", "lastTransitionTime": "2026-09-01T06:00:00Z"}
    pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
    reason = "KubeletReady" if ready == "True" else "KubeletNotReady"
    return [
        *({"type": pressure, "status": "False", "reason": f"KubeletHasNo{pressure}", **at} for pressure in pressures),
        {"type": "Ready", "status": ready, "reason": reason, **at},
    ]
