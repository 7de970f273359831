"""The twelve recorded nodes, read as a person would read them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.core.inventory import Inventory, Slice, group_slices, read_node

NODES = Path(__file__).parents[1] / "fixtures" / "nodes"
GPU = "nvidia.com/gpu"


def whole(product: str, count: int, memory_mib: int | None, refusal: str | None = None) -> Inventory:
    return Inventory(product, "none", count, count, memory_mib, whole_resource=GPU, share_refusal=refusal)


EXPECTED = {
    "a100-80gb-x8": whole("NVIDIA-A100-SXM4-80GB", 8, 81920),
    "h100-80gb-x8": whole("NVIDIA-H100-80GB-HBM3", 8, 81559),
    "t4-x1": whole("Tesla-T4", 1, 15360),
    "vgpu-guest-grid-a100-10c": whole("GRID-A100-10C", 1, 10240),
    "gb10-no-memory": whole("NVIDIA-GB10", 1, None, "MemoryUnknown"),
    "cpu-only": Inventory(share_refusal="NoGpu"),
    "t4-timesliced-r4": Inventory("Tesla-T4-SHARED", "time-slicing", 1, 0, 15360, {GPU: 4}, share_refusal="TimeSliced"),
    "l4-x2-timesliced-renamed": Inventory(
        "NVIDIA-L4", "time-slicing", 2, 0, 23034, {f"{GPU}.shared": 10}, share_refusal="TimeSliced"
    ),
    "a10g-x4-mps-r10": Inventory("NVIDIA-A10G-SHARED", "mps", 4, 0, 23028, {GPU: 40}, share_refusal="Mps"),
    "a100-mig-single-1g10gb": Inventory(
        "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
        "mig-single",
        None,
        0,
        None,
        {GPU: 56},
        {GPU: Slice(56, 9728)},
        share_refusal="Mig",
    ),
    "a100-mig-mixed": Inventory(
        "NVIDIA-A100-SXM4-80GB",
        "mig-mixed",
        1,
        0,
        81920,
        {"nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-2g.20gb": 1, "nvidia.com/mig-3g.40gb": 1},
        {
            "nvidia.com/mig-1g.10gb": Slice(2, 9728),
            "nvidia.com/mig-2g.20gb": Slice(1, 19968),
            "nvidia.com/mig-3g.40gb": Slice(1, 40192),
        },
        share_refusal="Mig",
    ),
    "resourceslice-a100-gpu-and-mig": Inventory(
        "NVIDIA A100-SXM4-40GB",
        "dra",
        2,
        1,
        40960,
        {},
        {"nvidia.com/mig-3g.20gb": Slice(1, 20096), "nvidia.com/mig-1g.5gb": Slice(2, 4864)},
        share_refusal="Dra",
    ),
}


def read(name: str) -> Any:
    return yaml.safe_load((NODES / f"{name}.yaml").read_text())


def test_every_fixture_is_expected() -> None:
    assert {path.stem for path in NODES.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_fixture(name: str) -> None:
    thing = read(name)
    if thing["kind"] == "Node":
        assert read_node(thing) == EXPECTED[name]
    else:
        # Its Node is not in the file: the slice makes a node of its own.
        ((node, slices),) = group_slices([thing]).items()
        assert node == "p4d-03"
        assert read_node({}, slices) == EXPECTED[name]
