"""Interleavings that the model (tests/model) has found.

Those that the code still lets through are marked. ``strict``: what closes one makes its mark fail, and the mark goes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from extender.core import names
from extender.core.errors import Conflict
from extender.core.podreader import is_reservation
from extender.core.record import RECORD_KEY, NodeRecord, record_name
from extender.embedded import EmbeddedCluster
from extender.snapshot import Snapshot
from tests.binding.world import Process, shared_cluster, violations
from tests.builders import PodBuilder, make_node, make_pod

CARD = 1000
GPUS = 2


class HeldBack:
    """A watch that falls behind: from ``stop`` on nothing arrives."""

    def __init__(self, cluster: EmbeddedCluster, process: Process) -> None:
        self._watcher = process._watcher
        self._stopped = False
        cluster.detach(self._watcher)
        cluster.attach(self)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._stopped = True

    def __getattr__(self, name: str) -> Callable[..., None]:
        def arrive(*arguments: Any) -> None:
            if not self._stopped:
                getattr(self._watcher, name)(*arguments)

        return arrive


class SlowAgents(EmbeddedCluster):
    """Reservation pods start, but report only when told to."""

    slow = False

    def _start_reservation(self, pod: dict[str, Any]) -> None:
        super()._start_reservation(pod)
        if self.slow:
            pod["metadata"]["reports"] = pod["metadata"].pop("annotations")

    async def report(self) -> None:
        """The agents that have not reported do so now, and from now on at once."""
        self.slow = False
        for pod in [pod for pod in self.pods() if "reports" in pod["metadata"]]:
            report = {"metadata": {"annotations": pod["metadata"]["reports"], "reports": None}}
            await self.patch_pod(names.RESERVATION_NAMESPACE, pod["metadata"]["name"], report)


def cluster_of() -> EmbeddedCluster:
    return shared_cluster(make_node("n").gpus(GPUS, mib=CARD).build())


async def submit(cluster: EmbeddedCluster, builder: PodBuilder) -> dict[str, Any]:
    return await cluster.submit(builder.build())


async def delete(cluster: EmbeddedCluster, pod: dict[str, Any]) -> None:
    metadata = pod["metadata"]
    await cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"])


def reservation_pods(cluster: EmbeddedCluster) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in cluster.pods() if is_reservation(pod))


async def states(cluster: EmbeddedCluster) -> list[str]:
    found = await cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    return [state for _, state in NodeRecord.parse(found["data"][RECORD_KEY]).opened()]


async def test_a_gpu_that_was_closed_does_not_enter_the_record_again() -> None:
    """Its reservation pod is gone and its id has left the record; a watch that lags still shows it open."""
    cluster = cluster_of()
    closer, lagging = Process(cluster), Process(cluster)
    watch = HeldBack(cluster, lagging)
    first = await submit(cluster, make_pod("first").gpu_memory(400))
    assert await closer.bind(first, "n") is None
    await delete(cluster, first)
    watch.stop()
    await closer.reservations.close_idle("n")
    assert reservation_pods(cluster) == []

    await lagging.bind(await submit(cluster, make_pod("second").gpu_memory(400)), "n")
    assert violations(cluster, CARD, GPUS) == []


async def test_a_gpu_that_reports_while_it_is_deleted() -> None:
    """Nobody can write ``closing`` for a device that nobody knows; the report comes, and another extender uses it."""
    nodes = (make_node("n").gpus(GPUS, mib=CARD).build(),)
    cluster = SlowAgents(Snapshot(nodes=nodes, pods=(), resource_slices=(), resource_claims=()))
    opener, other = Process(cluster), Process(cluster)
    cluster.slow = True
    share = await submit(cluster, make_pod("share").gpu_memory(400))

    async def report_and_bind() -> None:
        await cluster.report()
        await other.bind(share, "n")

    opener.api.script["delete_pod", 2, "before"] = report_and_bind
    assert await opener.bind(await submit(cluster, make_pod("both").gpu_memory(400).num_devices(2)), "n")
    assert violations(cluster, CARD, GPUS) == []


async def test_a_close_without_a_write_gives_way_too() -> None:
    """The device still stands under a GPU that is gone, so ``closing`` writes nothing; then another extender knows
    better, and its share enters before the DELETE."""
    cluster = cluster_of()
    knows = Process(cluster)
    first = await submit(cluster, make_pod("first").gpu_memory(400))
    assert await knows.bind(first, "n") is None
    await delete(cluster, first)
    knows.api.faults["put_config_map", knows.api.calls.count("put_config_map") + 2] = "never"
    await knows.reservations.close_idle("n")
    knows.api.work_again()
    assert (reservation_pods(cluster), await states(cluster)) == ([], ["closing"])
    dies = Process(cluster)
    dies.api.faults["get_config_map", 1] = "killed-before"
    assert await dies.bind(await submit(cluster, make_pod("second").gpu_memory(400)), "n") == "killed"
    assert len(reservation_pods(cluster)) == 1

    closer = Process(cluster)
    third = await submit(cluster, make_pod("third").gpu_memory(400))

    async def bind_third() -> None:
        assert await knows.bind(third, "n") is None

    closer.api.script["delete_pod", 1, "before"] = bind_third
    await closer.reservations.close_idle("n")
    assert violations(cluster, CARD, GPUS) == []


async def test_a_record_that_goes_while_a_gpu_is_closed() -> None:
    """The reservation pod lives on and holds its device; the extender must not think that it is gone."""
    cluster = cluster_of()
    process = Process(cluster)
    first = await submit(cluster, make_pod("first").gpu_memory(400))
    assert await process.bind(first, "n") is None
    await delete(cluster, first)

    async def delete_record() -> None:
        cluster._config_maps.clear()

    process.api.script["put_config_map", process.api.calls.count("put_config_map") + 1, "before"] = delete_record
    for _ in range(2):
        await process.reservations.close_idle("n")
        known = sorted(reservation.id for reservation in process.decisions.ledger.reservations("n"))
        assert known == reservation_pods(cluster)
    assert reservation_pods(cluster) == []


async def test_a_record_that_is_lost_between_closing_and_delete() -> None:
    """The DELETE is on its way, and an extender that has just begun makes a new record, which knows nothing of it."""
    cluster = cluster_of()
    closer = Process(cluster)
    first = await submit(cluster, make_pod("first").gpu_memory(400))
    stays = await submit(cluster, make_pod("stays").gpu_memory(900))
    for pod in (first, stays):
        assert await closer.bind(pod, "n") is None
    await delete(cluster, first)
    share = await submit(cluster, make_pod("share").gpu_memory(400))

    async def lose_and_bind() -> None:
        cluster._config_maps.clear()
        await Process(cluster).bind(share, "n")

    closer.api.script["delete_pod", 1, "before"] = lose_and_bind
    await closer.reservations.close_idle("n")
    assert violations(cluster, CARD, GPUS) == []


async def test_a_try_that_was_fenced_does_not_come_back() -> None:
    """Each PUT lands and is then answered 409, as where a client repeats it by itself. The second extender has fenced
    the first one's try, so it takes that for dead; the first one fences too, and sends it at the new version."""
    cluster = cluster_of()
    first, second = Process(cluster), Process(cluster)
    before = await submit(cluster, make_pod("before").gpu_memory(100))
    assert await first.bind(before, "n") is None
    pod = await submit(cluster, make_pod("pod").gpu_memory(400))
    second_wrote, first_done = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[str | None]] = []

    async def let_second_write() -> None:
        tasks.append(asyncio.create_task(second.bind(pod, "n")))
        await second_wrote.wait()
        raise Conflict("409")

    async def wait_for_first() -> None:
        second_wrote.set()
        await first_done.wait()
        raise Conflict("409")

    first.api.script["put_config_map", first.api.calls.count("put_config_map") + 1, "after"] = let_second_write
    second.api.script["put_config_map", 1, "after"] = wait_for_first
    assert await first.bind(pod, "n") is None
    first_done.set()
    await asyncio.gather(*tasks)
    found = await cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    written = NodeRecord.parse(found["data"][RECORD_KEY]).of(pod["metadata"]["uid"])
    bound = await cluster.get_pod("default", "pod")
    assert [entry.attempt for entry in written] == [bound["metadata"]["annotations"][names.TRY]]


async def test_a_close_that_is_refused_takes_its_word_back() -> None:
    """To an extender whose watch lags the GPU is idle; shares are on it, so it stays, and its room must stay usable."""
    cluster = shared_cluster(make_node("n").gpus(1, mib=CARD).build())
    binds, lags = Process(cluster), Process(cluster)
    first = await submit(cluster, make_pod("first").gpu_memory(300))
    assert await binds.bind(first, "n") is None
    await delete(cluster, first)
    HeldBack(cluster, lags).stop()
    assert await binds.bind(await submit(cluster, make_pod("second").gpu_memory(300)), "n") is None
    await lags.reservations.close_idle("n")
    assert await binds.bind(await submit(cluster, make_pod("third").gpu_memory(300)), "n") is None
