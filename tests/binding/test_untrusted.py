"""Without admission somebody writes to what runs: the record keeps what was bound, and gives none of it out again."""

from typing import Any

import pytest

from extender.binding.evidence import LedgerEvidence
from extender.binding.fence import Fence
from extender.core import names
from extender.core.record import RECORD_KEY, NodeRecord, record_name
from tests.binding.stage import CARD, GpuCluster, World
from tests.binding.world import Process
from tests.builders import make_pod

NONE = dict.fromkeys((names.SHARED_GPUS, names.VISIBLE_DEVICES, names.MEMORY_MIB, names.TRY))
#: What somebody writes on the running pod.
WRITTEN: dict[str, dict[str, str | None]] = {
    "its share shrinks": {names.MEMORY_MIB: "1"},
    "it shrinks, and another try has bound it": {names.MEMORY_MIB: "1", names.TRY: "x"},
    "it was bound by nobody": NONE,
}


async def world_with_600() -> tuple[World, Any]:
    """One GPU, on which a pod holds 600 MiB of 1000."""
    world = World(GpuCluster(1, "n"))
    victim = await world.pod(make_pod("victim").gpu_memory(600))
    await world.bind(victim)
    return world, victim


def write_record(world: World, text: str | None) -> None:
    """Watches do not show it."""
    key = names.RESERVATION_NAMESPACE, record_name("n")
    if text is None:
        del world.cluster._config_maps[key]
    else:
        world.cluster._config_maps[key]["data"][RECORD_KEY] = text
        world.cluster._config_maps[key]["metadata"]["resourceVersion"] = "edited"


async def only_400_are_free(world: World) -> None:
    assert await world.error(await world.pod(make_pod("greedy").gpu_memory(401))) != ""
    assert await world.error(await world.pod(make_pod("modest").gpu_memory(400))) == ""
    assert await world.error(await world.pod(make_pod("late").gpu_memory(1))) != ""


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_written_on_a_running_pod(written: dict[str, str | None], restarted: bool) -> None:
    world, victim = await world_with_600()
    await world.cluster.annotate(victim, written)
    if restarted:
        world.restart()
    await only_400_are_free(world)
    held = {entry.pod: entry.mib for entry in await world.entries()}
    assert held == {"default/victim": 600, "default/modest": 400}


@pytest.mark.parametrize("text", [None, '{"v":1,"gpus":{}}'], ids=["deleted", "emptied"])
async def test_the_record_is_gone_too(text: str | None) -> None:
    """The process remembers; one that starts now has nothing to go by."""
    world, victim = await world_with_600()
    await world.cluster.annotate(victim, {names.MEMORY_MIB: "1"})
    write_record(world, text)
    await only_400_are_free(world)
    held = {entry.pod: entry.mib for entry in await world.entries()}
    assert held.get("default/victim") == (600 if text is None else None)


async def test_a_record_that_was_shrunk_is_judged_with_what_the_pods_hold() -> None:
    """Another process chose the room before this one's watch has shown it anything: the PUT is judged, too."""
    world, _ = await world_with_600()
    record = await world.record()
    shrunk = record.dump().replace('"mib":600', '"mib":1')
    assert shrunk != record.dump()
    evidence = LedgerEvidence(world.api, world.ledger, Fence(world.api, "me"))
    assert evidence.missing("n", NodeRecord.parse(shrunk)) == {"GPU-n-0": 599}
    assert sum(evidence.missing("n", record).values()) == 0


async def test_an_entry_of_a_pod_that_was_bound_elsewhere_is_dropped() -> None:
    world = World(GpuCluster(1, "n", "m"))
    pod = await world.pod(make_pod("p").gpu_memory(CARD))
    world.api.faults["bind_pod", 1] = "never"
    world.api.faults["patch_pod", 1] = "never"
    assert "nobody knows" in await world.error(pod)
    other = Process(world.cluster)
    assert await other.bind(pod, "m") is None
    assert [entry.pod for entry in await world.entries()] == ["default/p"]
    assert await other.bind(await world.pod(make_pod("q").gpu_memory(CARD)), "n") is None
    assert [entry.pod for entry in await world.entries()] == ["default/q"]
