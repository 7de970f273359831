"""What devices have told of their memory: read where labels and administrator say nothing, and of this boot only."""

from dataclasses import replace
from typing import Any

import pytest

from extender.core import names
from extender.core.inspect import picture
from extender.core.inventory import Inventory, Reported, read_node, reported_memory
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement, Shortfall, fit
from extender.core.requests import GpuRequest
from extender.core.values import Reservation
from tests.builders import NodeBuilder, make_node, make_pod
from tests.core.node_cases import gpus, node, profile

BOOT = "boot-1"


def read(told: object, boot: str | None = BOOT, **labels: object) -> Inventory:
    """A node of two A100 whose labels say no memory."""
    made: dict[str, Any] = node(gpus(2, memory=None) | labels, gpu=2)
    made["metadata"]["annotations"] = {names.REPORTED_MEMORY: told}
    made["status"]["nodeInfo"] = {"bootID": boot}
    return read_node(made)


def test_what_was_told_is_read_as_it_was_written() -> None:
    inventory = read(reported_memory(BOOT, {"GPU-b": 81920, "GPU-a": 40960}))
    assert inventory.reported == Reported({"GPU-a": 40960, "GPU-b": 81920}, asked=True)
    assert (inventory.memory_mib, inventory.share_refusal) == (40960, None)
    assert inventory.total_mib == 40960 + 81920


def test_a_gpu_that_has_not_told_counts_like_the_smallest() -> None:
    assert read(reported_memory(BOOT, {"GPU-b": 81920})).total_mib == 2 * 81920


def test_a_device_that_told_nothing_was_asked_nevertheless() -> None:
    inventory = read(reported_memory(BOOT, {}))
    assert inventory.reported == Reported(asked=True)
    assert (inventory.memory_mib, inventory.share_refusal) == (None, "MemoryUnknown")


@pytest.mark.parametrize(
    "told",
    ["", "boot-2: GPU-a=1", "boot-1: GPU-a=0", "boot-1: GPU-a=4e4", "boot-1: GPU-a", "boot-1: =4", "GPU-a=1", 5, None],
)
def test_another_boot_and_what_we_did_not_write_count_for_nothing(told: object) -> None:
    inventory = read(told)
    assert inventory.reported == Reported()
    assert (inventory.memory_mib, inventory.share_refusal) == (None, "MemoryUnknown")


def test_a_node_that_names_no_boot_learns_nothing() -> None:
    assert read(reported_memory("", {"GPU-a": 5}), boot=None).reported is None


def test_labels_and_administrator_go_first() -> None:
    told = reported_memory(BOOT, {"GPU-a": 40960})
    for key, said in (("gpu.memory", "500"), (names.GPU_MEMORY_MIB_LABEL, "500")):
        inventory = read(told, **{key: said})
        assert (inventory.memory_mib, inventory.reported) == (500, None)
    unreadable = read(told, **{names.GPU_MEMORY_MIB_LABEL: "40 GB"})
    assert (unreadable.memory_mib, unreadable.reported) == (None, None)


def test_only_units_that_are_whole_gpus_are_asked() -> None:
    for labels, resources in (
        ({}, {"gpu": 2}),
        (gpus(2, memory=None, replicas=4, sharing_strategy="time-slicing"), {"gpu": 8}),
        (gpus(2, memory=None, replicas=0) | profile("1g.10gb", 14, 9728), {"mig-1g.10gb": 14}),
    ):
        made: Any = node(labels, resources=resources)
        made["status"]["nodeInfo"] = {"bootID": BOOT}
        assert read_node(made).reported is None


def test_an_administrator_vouches_for_units_without_naming_a_size() -> None:
    made: Any = node({names.SHARING_LABEL: names.SHARING_ENABLED}, gpu=4)
    made["status"]["nodeInfo"] = {"bootID": BOOT}
    inventory = read_node(made)
    assert (inventory.whole_gpus, inventory.share_refusal, inventory.reported) == (4, "MemoryUnknown", Reported())


# --- GPUs that differ ---------------------------------------------------------------------------------------


def mixed(*open_: str, gpus: int = 3) -> Ledger:
    """A node of GPUs of 400 (a) and 1000 MiB (b), and one that has not told; ``open_``: which are shared."""
    told = {"GPU-a": 400, "GPU-b": 1000}
    built: NodeBuilder = make_node("n").gpus(1, mib=1000).resource(names.GPU_RESOURCE, gpus)
    boot = built.build()["status"]["nodeInfo"]["bootID"]
    built.annotation(names.REPORTED_MEMORY, reported_memory(boot, told))
    ledger = Ledger()
    for read_ in read_nodes([built.build()]):
        ledger.put_node(read_)
    for device, size in told.items():
        if device[-1] in open_:
            ledger.put_reservation(Reservation(device, "n", uid=device, device=device, memory_mib=size, boot_id=boot))
    return ledger


def verdict(ledger: Ledger, mib: int) -> Placement | Shortfall:
    state = ledger.state("n")
    request = GpuRequest.from_pod(make_pod().gpu_memory(mib).build())
    assert state is not None
    assert isinstance(request, GpuRequest)
    return fit(state, request)


def test_a_new_gpu_counts_with_the_smallest_size() -> None:
    opened = verdict(mixed(), 400)
    assert isinstance(opened, Placement)
    assert (opened.new, opened.mib) == (1, (400,))


def test_a_share_larger_than_that_goes_to_a_gpu_that_is_open_and_large_enough() -> None:
    waits, never = verdict(mixed(), 401), verdict(mixed(), 1001)
    assert isinstance(waits, Shortfall)
    assert (waits.reason, waits.resolvable) == ("GpuMemory", True)
    assert isinstance(never, Shortfall)
    assert (never.reason, never.largest) == ("GpuTooSmall", 1000)
    placed = verdict(mixed("a", "b"), 401)
    assert isinstance(placed, Placement)
    assert [gpu.id for gpu in placed.on] == ["GPU-b"]
    assert isinstance(verdict(mixed("b"), 1001), Shortfall)


def test_once_every_gpu_is_known_a_new_one_counts_with_the_smallest_that_is_left() -> None:
    inventory = Inventory(physical_gpus=2, memory_mib=400, reported=Reported({"GPU-a": 400, "GPU-b": 1000}, asked=True))
    assert inventory.new_mib({"GPU-a"}) == 1000
    assert inventory.new_mib({"GPU-b"}) == inventory.new_mib({}) == inventory.new_mib({"GPU-a", "GPU-b"}) == 400
    assert replace(inventory, physical_gpus=3).new_mib({"GPU-a"}) == 400
    opened = verdict(mixed("a", gpus=2), 1000)
    assert isinstance(opened, Placement)
    assert (opened.on, opened.new, opened.mib) == ((), 1, (1000,))


def test_totals_are_those_of_the_devices() -> None:
    totals = picture(list(mixed().snapshot()))["totals"]
    assert totals["memoryMiB"] == 400 + 1000 + 400
