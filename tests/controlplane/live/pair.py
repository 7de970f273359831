"""Two extenders: the one that leads is behind a gate; kube-scheduler asks the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tests.controlplane.client import Answer
from tests.controlplane.gate import Gate
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Served, Stage

LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/gpu-extender/leases/gpu-extender"


@dataclass(frozen=True, slots=True)
class Pair:
    """What the leader asks of the API server can be held up on its way."""

    scene: Scene
    gate: Gate
    leader: Served
    other: Served


@asynccontextmanager
async def paired(stage: Stage, idle_timeout: int) -> AsyncIterator[Pair]:
    """``idle_timeout``: seconds that an idle GPU stays open."""
    async with Scene(stage) as scene, Gate(stage.plane) as gate:
        with suppress(Answer):  # That of a process that is no more: its successor need not wait until it has run out.
            await scene.admin.delete(LEASE)
        leader = await gate.start_extender(stage, "leading", idle_timeout=idle_timeout)
        await scene.until(lambda: leads(leader), 60, "alone it must lead")
        other = await asyncio.to_thread(stage.start_extender, "other", idle_timeout=idle_timeout)
        stage.start_scheduler(other)
        yield Pair(scene, gate, leader, other)
        leader.process.kill()
    stage.stop()


async def leads(extender: Served) -> bool:
    """Whether it does the background work."""
    return await extender.metric("gpu_extender_leader") == 1
