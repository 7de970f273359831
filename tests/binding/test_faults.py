"""At every request of a bind: it fails, its answer is lost, it lands late, or the process dies before or after it."""

from copy import deepcopy
from typing import Any

import pytest

from tests.binding.world import FAULTS, Process, shared_cluster, violations
from tests.builders import make_node, make_pod

CARD = 1000
GPUS = 2
#: One more than any bind here makes.
MOST_REQUESTS = 14


def pods() -> list[dict[str, Any]]:
    """Two that share a GPU, one on both GPUs, one that needs most of a GPU."""
    return [
        make_pod("a").gpu_memory(600).build(),
        make_pod("b").gpu_memory(300).num_devices(2).build(),
        make_pod("c").gpu_memory(700).build(),
        make_pod("d").gpu_memory(700).build(),
    ]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("fails_at", range(MOST_REQUESTS))
@pytest.mark.parametrize("sees", [True, False], ids=["sees pods as they were created", "reads pods"])
async def test_one_fault_at_every_request(fault: str, victim: int, fails_at: int, sees: bool) -> None:
    """Whatever happens to one request of one bind, no GPU is given out twice, and in the end all that fits runs."""
    cluster = shared_cluster(make_node("n").gpus(GPUS, mib=CARD).build())
    waiting = pods()
    seen = {}
    for pod in waiting:
        created = await cluster.submit(pod)
        seen["default", pod["metadata"]["name"]] = deepcopy(dict(created))
    good = Process(cluster)
    for pod in waiting[:victim]:
        assert await good.bind(pod, "n") is None
    good.die()

    faulty = Process(cluster, fails_at, fault)
    faulty.seen = seen if sees else {}
    answer = await faulty.bind(waiting[victim], "n")
    assert fails_at < MOST_REQUESTS - 1 or faulty.api.was_spared()
    faulty.api.work_again()
    assert violations(cluster, CARD, GPUS) == []

    # Somebody else uses what looks free, while late requests may still land.
    successor = Process(cluster) if answer == "killed" else faulty
    successor.seen = faulty.seen
    await successor.bind(waiting[3], "n")
    await faulty.api.land_late_requests()
    assert violations(cluster, CARD, GPUS) == []

    for _ in range(3):  # kube-scheduler tries again, and the background work goes on
        successor.now += 15
        await successor.reconcile()
        for pod in waiting:
            await successor.bind(pod, "n")
            assert violations(cluster, CARD, GPUS) == []
    successor.decisions.ledger.check()
    rest = [pod["metadata"]["name"] for pod in waiting if not _is_bound(cluster, pod)]
    assert len(rest) <= 1, f"{rest} wait though only one of c and d has no room"


def _is_bound(cluster: Any, pod: dict[str, Any]) -> bool:
    found = cluster.find(pod["metadata"]["namespace"], pod["metadata"]["name"])
    return found is not None and "nodeName" in found["spec"]
