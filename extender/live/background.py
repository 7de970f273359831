"""Work that no decision waits for: the reconciler under the Lease, pokes and events in every process."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from extender.binding.reconciler import Reconciler
from extender.cluster import KubeCluster
from extender.elector import LEASE, Elector
from extender.events import Events
from extender.pokes import Pokes

log = structlog.get_logger()

#: Seconds between two passes of the reconciler.
PAUSE: Final = 1.0
#: Seconds between two questions how binds without an answer have ended.
SETTLE_PAUSE: Final = 10.0


class Counts(Collector):
    """Metrics of the background work."""

    def __init__(self, events: Events, pokes: Pokes, elector: Elector) -> None:
        self._events = events
        self._pokes = pokes
        self._elector = elector

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield CounterMetricFamily("gpu_extender_pokes", "Pods that were told to try again.", value=self._pokes.sent)
        events = CounterMetricFamily("gpu_extender_events", "Events that were sent, or lost.", labels=["result"])
        events.add_metric(["sent"], self._events.sent)
        events.add_metric(["lost"], self._events.dropped)
        yield events
        leads = float(self._elector.is_leader)
        yield GaugeMetricFamily("gpu_extender_leader", "1 in the process that does the background work.", value=leads)


def elector(cluster: KubeCluster, namespace: str, identity: str) -> Elector:
    """This process as a candidate for the background work."""
    return Elector(cluster, namespace, LEASE, identity, clock=time.monotonic, now=lambda: datetime.now(UTC))


async def reconcile(reconciler: Reconciler, in_step: Callable[[], Awaitable[None]]) -> None:
    """Pass after pass, for ever, once the ledger is in step."""
    await in_step()
    await repeat("reconciler", reconciler.once, PAUSE)


async def repeat(name: str, work: Callable[[], Awaitable[None]], pause: float) -> None:
    """For ever; where the work meets a bug of ours, that is logged, and it is done again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception(name)
        await asyncio.sleep(pause)
