"""Whatever stands in a Node or a ResourceSlice: an answer, never an exception, and one that makes sense."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extender.core.inventory import REASON_TEXT, Inventory, dra_held, group_slices, read_node
from tests.core.node_cases import device

ALONE = {"dra", "invalid", "unknown"}
TOGETHER = {"none", "time-slicing", "mps", "mig-single", "mig-mixed", "vgpu-host", "passthrough"}

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.sampled_from(["0", "1", "2", "4", "7", "8", "14", "56", "-1", "junk", "", "9" * 40, 4, None, True])
PROFILES = ["mig-1g.10gb", "mig-1g.10gb.me", "mig-3g.40gb"]
VALUES = {
    "product": st.sampled_from(["X", "X-SHARED", "X-MIG-1g.10gb", "X-MIG-1g.10gb-SHARED", "X-MIG-INVALID", ""]),
    "memory": st.sampled_from(["81920", "9728", "15843721216", "0", "junk", ""]),
    "count": NUMBERS,
    "replicas": NUMBERS,
    "sharing-strategy": st.sampled_from(["none", "time-slicing", "mps", "", "other"]),
}
LABELS = st.fixed_dictionaries(
    {},
    optional={
        **{f"nvidia.com/{who}.{key}": value for who in ("gpu", *PROFILES) for key, value in VALUES.items()},
        "nvidia.com/mig.strategy": st.sampled_from(["single", "mixed", "none"]),
        "nvidia.com/mig.config.state": st.sampled_from(["pending", "success", "failed"]),
        "nvidia.com/gpu.workload.config": st.sampled_from(["container", "vm-vgpu", "vm-passthrough"]),
        "nvidia.com/gpu.deploy.dra-driver": st.just("true"),
        "nvidia.com/gpu.present": st.just("true"),
        "gpu-extender.io/gpu-memory-mib": st.sampled_from(["1000", "0", "junk"]),
        "gpu-extender.io/sharing": st.sampled_from(["disabled", "enabled", "x"]),
        "nvidia.com/gpu.slices.gi": st.just("1"),
    },
)
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        f"nvidia.com/{name}{suffix}": NUMBERS
        for name in ("gpu", *PROFILES, "GA102GL_A10", "GRID_T4-2Q", "hostdev")
        for suffix in ("", ".shared")
    },
)
ANNOTATIONS = JUNK | st.builds(
    lambda told: {"gpu-extender.io/reported-memory": told},
    st.sampled_from(["b: GPU-a=4 GPU-b=5", "b:", "c: GPU-a=4"]) | JUNK,
)
NODES = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"labels": LABELS, "annotations": ANNOTATIONS}),
        "spec": st.sampled_from([{}, {"unschedulable": True}]),
        "status": st.fixed_dictionaries(
            {"capacity": RESOURCES},
            optional={"allocatable": RESOURCES, "nodeInfo": st.just({"bootID": "b"}) | JUNK},
        ),
    }
)
NAMES = st.sampled_from(["gpu-0", "gpu-1", "gpu-2"])
DEVICES = st.builds(
    lambda name, kind, memory, uuid, extra: device(name, kind, memory, uuid=uuid, parentUUID=uuid) | extra,
    NAMES,
    st.sampled_from(["gpu", "mig", "vfio", "other"]),
    st.sampled_from(["40Gi", "0", None, "junk"]),
    st.sampled_from(["GPU-a", "GPU-b", None]),
    st.sampled_from([{}, {"allowMultipleAllocations": True}, {"consumesCounters": [{"counterSet": "s"}]}]),
)
SLICES = st.builds(
    lambda devices, generation, of: {
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n",
            "pool": {"name": "n", "generation": generation, "resourceSliceCount": of},
            "devices": devices,
        }
    },
    st.lists(DEVICES, max_size=3),
    st.integers(0, 2),
    st.integers(1, 2),
)


def make_sense(inventory: Inventory) -> None:
    parts = inventory.mode.split("+")
    assert set(parts) <= TOGETHER or inventory.mode in ALONE
    assert len(parts) == len(set(parts))
    assert "none" not in parts or parts == ["none"]
    assert inventory.whole_gpus >= 0
    assert inventory.physical_gpus is None or inventory.physical_gpus >= inventory.whole_gpus
    assert inventory.memory_mib is None or inventory.memory_mib > 0
    assert inventory.product != ""
    assert all(count > 0 for count in inventory.units.values())
    assert all(cut.count > 0 and cut.memory_mib != 0 for cut in inventory.slices.values())
    assert not any(resource.endswith(".shared") for resource in inventory.slices)
    assert inventory.whole_resource not in inventory.units or inventory.whole_resource is None
    if inventory.unusable is not None:
        assert inventory.whole_gpus == 0
    if inventory.mode == "invalid":
        assert not inventory.units
        assert not inventory.slices
    takes_shares = inventory.share_refusal is None
    assert takes_shares or {inventory.share_refusal, inventory.unusable} - {None} <= set(REASON_TEXT)
    if takes_shares:
        assert inventory.whole_gpus > 0
        assert inventory.memory_mib is not None
        assert inventory.whole_resource == "nvidia.com/gpu"
        assert parts[0] in ("none", "mig-mixed")
    hash(inventory)


@given(NODES)
@settings(max_examples=400)
def test_random_labels_and_resources(node: dict[str, Any]) -> None:
    make_sense(read_node(node))


@given(NODES, st.lists(SLICES, max_size=3))
def test_random_slices(node: dict[str, Any], slices: list[dict[str, Any]]) -> None:
    own = group_slices(slices).get("n", ())
    inventory = read_node(node, own)
    make_sense(inventory)
    claims = [
        {"status": {"allocation": {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "n", "device": d}]}}}}
        for d in ("gpu-0", "gpu-1", "gpu-2")
    ]
    assert dra_held(claims, {"n": own}).get("n", 0) <= 3


@given(JUNK, JUNK, JUNK, JUNK)
def test_junk_anywhere(labels: Any, spec: Any, capacity: Any, junk: Any) -> None:
    shapes: list[Any] = [
        junk,
        {"metadata": junk, "spec": spec, "status": junk},
        {"metadata": {"labels": labels}, "spec": spec, "status": {"capacity": capacity, "conditions": junk}},
        {
            "metadata": {"labels": {"nvidia.com/gpu.count": labels}},
            "status": {"capacity": {"nvidia.com/gpu": junk}},
        },
        {"spec": {"taints": [junk, {"key": junk, "effect": junk}]}},
    ]
    pool = {"name": "n", "generation": junk, "resourceSliceCount": labels}
    own = {"driver": "gpu.nvidia.com", "nodeName": "n"}
    slices: list[Any] = [
        junk,
        {"metadata": junk, "spec": own | {"pool": pool}},
        {"spec": own | {"pool": {"resourceSliceCount": 1}, "devices": junk}},
        {"spec": own | {"pool": {"resourceSliceCount": 1}, "devices": [{"attributes": junk, "capacity": spec}]}},
        {
            "spec": own
            | {"pool": {"resourceSliceCount": 1}, "devices": [{"attributes": {"uuid": junk}, "taints": spec}]}
        },
    ]
    for shape in shapes:
        make_sense(read_node(shape))
    for slice_ in slices:
        make_sense(read_node({}, [slice_]))
    dra_held([junk, {"status": {"allocation": {"devices": {"results": junk}}}}], group_slices(slices))
