"""Clusters to measure on: N nodes of eight H100, empty or half full of shares."""

from collections.abc import Iterator
from typing import Any

import orjson

from extender.core import names
from extender.snapshot import Snapshot
from tests.builders import make_node, make_pod

Json = dict[str, Any]
CARD_MIB = 81559
GPUS = 8
#: What is asked for, in turn.
FRACTIONS = ("0.25", "0.5", "0.25", "0.1", "0.25", "0.4", "0.25", "0.75")


def cluster(nodes: int, *, shares_per_gpu: int = 0, shared_gpus: int = 0) -> Snapshot:
    """``shared_gpus`` of each node's eight are shared by ``shares_per_gpu`` pods of a quarter each."""
    return Snapshot(
        nodes=tuple(make_node(node_name(i)).gpus(GPUS, mib=CARD_MIB).build() for i in range(nodes)),
        pods=tuple(
            pod for i in range(nodes) for gpu in range(shared_gpus) for pod in _shared_gpu(i, gpu, shares_per_gpu)
        ),
        resource_slices=(),
        resource_claims=(),
    )


def node_name(index: int) -> str:
    """Names as long as a cloud gives them."""
    return f"ip-10-{index // 250:03d}-{index % 250:03d}.eu-central-1.compute.internal"


def pod_body(index: int, nodes: list[str]) -> bytes:
    """ExtenderArgs for one pod after another: each refresh of what is learned voids the scores of all these shapes."""
    pod = make_pod(f"p{index}", "bench").gpu_fraction(FRACTIONS[index % len(FRACTIONS)]).build()
    return orjson.dumps({"Pod": pod, "Nodes": None, "NodeNames": nodes})


def _shared_gpu(node: int, gpu: int, shares: int) -> Iterator[Json]:
    gpu_id, device = f"share-{node:06x}{gpu:02x}", f"GPU-{node:08x}-0000-4000-8000-{gpu:012x}"
    agent = make_pod(gpu_id, names.RESERVATION_NAMESPACE).container("agent", limits={names.GPU_RESOURCE: 1}).build()
    agent["metadata"]["annotations"] = {names.DEVICE: device, names.DEVICE_MEMORY_MIB: str(CARD_MIB)}
    yield _bound(agent, node)
    for share in range(shares):
        pod = make_pod(f"pod-{node}-{gpu}-{share}", "team").gpu_fraction("0.25").build()
        pod["metadata"]["annotations"] |= {
            names.SHARED_GPUS: gpu_id,
            names.VISIBLE_DEVICES: device,
            names.MEMORY_MIB: str(CARD_MIB // 4),
        }
        yield _bound(pod, node)


def _bound(pod: Json, node: int) -> Json:
    pod["spec"]["nodeName"] = node_name(node)
    pod["status"] = {"phase": "Running"}
    return pod
