"""A share bound on a node with a backend gets what that one reads, and a pod that it could not limit is not bound."""

import pytest

from extender.core import names
from extender.core.placement import REASON_TEXT
from extender.core.requests import LIMITS
from tests.binding.stage import World
from tests.builders import PodBuilder, make_pod

ALL = {f"{key}.0" for _, key in LIMITS.values()} | {f"{names.MPS_THREADS}.0", names.PRELOAD}


def prepared(name: str, *backends: str) -> PodBuilder:
    pod = make_pod(name).gpu_memory(400).container("main")
    return pod.env("main", **{LIMITS[backend][0]: f"{LIMITS[backend][1]}.0" for backend in backends})


@pytest.mark.parametrize(
    ("label", "written"),
    [
        (None, ALL),
        (names.UNENFORCED, set()),
        (names.NRI, set()),
        (names.HAMI_CORE, {f"{names.HAMI_MEMORY_LIMIT}.0", names.PRELOAD}),
        (names.MPS, {f"{names.MPS_MEMORY_LIMIT}.0", f"{names.MPS_THREADS}.0"}),
    ],
)
async def test_the_node_decides_what_is_written(world: World, label: str | None, written: set[str]) -> None:
    if label is not None:
        world.cluster.label("n", names.ENFORCEMENT_LABEL, label)
    pod = await world.pod(prepared("p", *LIMITS))
    await world.bind(pod)
    annotations = (await world.stored(pod))["metadata"]["annotations"]
    assert annotations.keys() & ALL == written
    assert ("nvidia.com/container.main.gpu-memory.limit" in annotations) == (label in (None, names.NRI))
    assert annotations[names.VISIBLE_DEVICES], "the device, whoever limits"


async def test_a_label_that_came_between_filter_and_bind(world: World) -> None:
    """bind looks again: the pod would run there without its limit."""
    pod = await world.pod(prepared("p", names.HAMI_CORE))
    world.cluster.label("n", names.ENFORCEMENT_LABEL, names.MPS)
    assert REASON_TEXT["NotPrepared"] in await world.error(pod)
    assert world.account() == {}
    assert world.reservation_pods() == []
    await world.bind(pod, "m")


async def test_what_runs_keeps_its_limit_when_the_label_changes(world: World) -> None:
    world.cluster.label("n", names.ENFORCEMENT_LABEL, names.HAMI_CORE)
    pod = await world.pod(prepared("p", names.HAMI_CORE))
    await world.bind(pod)
    before = await world.stored(pod)
    world.cluster.label("n", names.ENFORCEMENT_LABEL, names.MPS)
    await world.pass_by(20)
    assert await world.stored(pod) == before
    assert world.seen()["totals"]["usedMiB"] == 400
