"""From Node objects to the ledger's nodes."""

from typing import Any

from extender.core import names
from extender.core.nodereader import allocatable, read_nodes
from tests.builders import make_node


def test_a_node() -> None:
    node = make_node("n").gpus(4, mib=1000).cpu("3500m").memory("2Gi").build()
    [found] = read_nodes([node])
    assert (found.name, found.uid, found.claimed_gpus) == ("n", node["metadata"]["uid"], 0)
    assert found.boot_id == node["status"]["nodeInfo"]["bootID"]
    assert (found.inventory.physical_gpus, found.inventory.memory_mib) == (4, 1000)
    assert found.allocatable[names.CPU] == 3500
    assert found.allocatable[names.MEMORY] == 2 * 1024**3
    assert found.allocatable[names.PODS] == 110
    assert found.allocatable[names.GPU_RESOURCE] == 4


def test_what_is_allocatable_counts_not_capacity() -> None:
    node = make_node().cpu(8).allocatable(names.CPU, "7910m").build()
    assert allocatable(node)[names.CPU] == 7910


def test_a_node_that_has_not_reported_yet() -> None:
    assert allocatable({}) == {}
    assert allocatable({"status": {"capacity": {"cpu": "2"}}}) == {"cpu": 2000}
    [found] = read_nodes([{"metadata": {"name": "n"}}])
    assert (found.uid, found.boot_id, found.allocatable) == ("n", None, {})


def test_what_cannot_be_read_is_not_there() -> None:
    """So nothing fits; unknown is never plenty."""
    amounts: dict[str, Any] = {"cpu": "many", "memory": None, "pods": "-3", "nvidia.com/gpu": "1.9", "x/y": [1]}
    assert allocatable({"status": {"allocatable": amounts}}) == {"pods": 0, "nvidia.com/gpu": 1}


def test_nodes_come_in_the_order_given() -> None:
    listed = [make_node(name).build() for name in ("b", "a", "c")]
    assert [node.name for node in read_nodes(listed)] == ["b", "a", "c"]


def test_a_node_that_only_a_resource_slice_names() -> None:
    slices = [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": "s"},
            "spec": {
                "driver": "gpu.nvidia.com",
                "nodeName": "only-dra",
                "pool": {"name": "only-dra", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0", "attributes": {"type": {"string": "gpu"}}}],
            },
        }
    ]
    found = list(read_nodes([make_node("n").build()], slices))
    assert [node.name for node in found] == ["n", "only-dra"]
    assert (found[1].inventory.mode, found[1].inventory.physical_gpus) == ("dra", 1)
