"""Two extenders, each with its own ledger and watch, bind onto the same GPUs at the same time.

Shares only: two schedulers that do not know of each other can both place on a node's last device, and the kubelet
then refuses one; no extender can close that, and one kube-scheduler does.
"""

import asyncio
import random
from typing import Any

import pytest

from tests.binding.world import Process, shared_cluster, violations
from tests.builders import make_node, make_pod

CARD = 1000
GPUS = 2


@pytest.mark.parametrize("seed", range(12))
async def test_random_binds_by_two_extenders(seed: int) -> None:
    """The same pods, to the same nodes, by both at once, and both clean up: no GPU is given out twice."""
    rng = random.Random(seed)
    cluster = shared_cluster(*(make_node(name).gpus(GPUS, mib=CARD).build() for name in ("n", "m")))
    waiting = [_draw(rng, index) for index in range(14)]
    for pod in waiting:
        await cluster.submit(pod)
    extenders = [Process(cluster), Process(cluster)]

    async def churn(extender: Process) -> None:
        for _ in range(40):
            pod = rng.choice(waiting)
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            await extender.bind(pod, rng.choice(("n", "m")))
            assert violations(cluster, CARD, GPUS) == []

    async def clean_up(extender: Process) -> None:
        for _ in range(40):
            extender.now += rng.choice((1.0, 30.0))
            await extender.reconcile()
            assert violations(cluster, CARD, GPUS) == []

    async def users() -> None:
        """They delete what runs, and the same pods come back as new ones."""
        for index in range(20):
            for _ in range(rng.randrange(60)):
                await asyncio.sleep(0)
            pod = rng.choice(waiting)
            metadata = pod["metadata"]
            await cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"])
            metadata["uid"] = f"{metadata['name']}-{index}"
            await cluster.submit(pod)

    churning = [churn(extender) for extender in extenders for _ in range(2)]
    await asyncio.gather(*churning, *map(clean_up, extenders), users())
    for extender in extenders:
        extender.decisions.ledger.check()
    for pod in [pod for pod in cluster.pods() if pod["metadata"]["namespace"] == "default"]:
        await cluster.delete_pod("default", pod["metadata"]["name"], pod["metadata"]["uid"])
    for _ in range(10):
        for extender in extenders:
            extender.now += 30
            await extender.reconcile()
    assert list(cluster.pods()) == [], "nothing is left of it"


async def test_an_answer_that_is_older_than_the_pods_end_brings_nothing_back() -> None:
    """One extender reads that the other has bound the pod; before it has heard the answer, it has seen the pod end."""
    cluster = shared_cluster(make_node("n").gpus(GPUS, mib=CARD).build())
    pod = make_pod("p").gpu_memory(300).build()
    await cluster.submit(pod)
    one, other = Process(cluster), Process(cluster)
    uid = pod["metadata"]["uid"]

    async def bound_by_the_other() -> None:
        assert await other.bind(pod, "n") is None

    async def ends() -> None:
        await cluster.delete_pod("default", "p", uid)

    one.api.script["bind_pod", 1, "before"] = bound_by_the_other
    one.api.script["get_pod", 3, "after"] = ends
    assert await one.bind(pod, "n") is not None
    assert one.decisions.ledger.pod(uid) is None


def _draw(rng: random.Random, index: int) -> dict[str, Any]:
    pod = make_pod(f"p{index}").gpu_memory(rng.choice((200, 300, 500, 700)))
    return (pod.num_devices(2) if rng.random() < 0.2 else pod).build()
