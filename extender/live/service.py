"""The service on a real cluster."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog

from extender.cluster import Collection, KubeCluster
from extender.config import Settings
from extender.core.decisions import Decisions, Refresher
from extender.live.listwatch import ListWatch, Sink
from extender.live.nodes import Nodes
from extender.live.pods import Pod, Pods
from extender.live.records import Records
from extender.metrics import Metrics
from extender.reflector import Reflector
from extender.service import Service, join, policy_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LiveView:
    """See ``service.View``: what the watches have shown."""

    _nodes: Nodes
    _pods: Pods

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """See View."""
        return self._nodes.objects

    def pods(self) -> Sequence[Pod]:
        """See View."""
        return tuple(self._pods)

    def find(self, namespace: str, name: str) -> Pod | None:
        """See View."""
        return self._pods.find(namespace, name)


@asynccontextmanager
async def live_service(settings: Settings, refresher: Refresher) -> AsyncIterator[Service]:
    """The service on the cluster that ``kubeconfig``, or the pod that this runs in, names.

    It answers before the first lists are complete, with ``Error``. Raises InputError where there are no credentials.
    """
    cluster = await KubeCluster.connect(settings.kubeconfig)
    try:
        decisions = Decisions(
            policy_of(settings), claim_ttl=settings.claim_ttl, timer=time.monotonic, refresher=refresher
        )
        metrics = Metrics()
        watcher = Reflector(decisions)
        nodes = Nodes(watcher, lambda kind: metrics.repairs.labels("nodes", kind).inc())
        pods = Pods(watcher, cluster.get_pod, lambda kind: metrics.repairs.labels("pods", kind).inc())
        records = Records(watcher, cluster.create_config_map)
        watches = _watches(cluster, metrics, nodes, pods, records)
        view = LiveView(nodes, pods)
        binder, reservations, _reconciler = join(
            settings,
            cluster,
            decisions,
            watcher,
            clock=time.monotonic,
            process=uuid4().hex[:12],
            owner=lambda: records.owner,
        )

        def behind() -> str | None:
            return next((watch.behind for watch in watches if watch.behind), None)

        service = Service(settings, decisions, binder, reservations, view, metrics, behind)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watch.run()) for watch in watches]
            tasks.append(group.create_task(_say_when_in_step(service, watches)))
            yield service
            for task in tasks:
                task.cancel()
    finally:
        await cluster.close()


def _watches(cluster: KubeCluster, metrics: Metrics, nodes: Nodes, pods: Pods, records: Records) -> list[ListWatch]:
    """All of them must have listed before the first decision."""
    sinks: dict[Collection, Sink] = {
        Collection.RESOURCE_SLICES: nodes.slices,
        Collection.RESOURCE_CLAIMS: nodes.claims,
        Collection.NODES: nodes.nodes,
        Collection.CONFIG_MAPS: records,
        Collection.PODS: pods,
    }
    return [
        ListWatch(cluster, kind, sink, sleep=asyncio.sleep, failed=metrics.watch_failures.labels(kind.noun).inc)
        for kind, sink in sinks.items()
    ]


async def _say_when_in_step(service: Service, watches: Sequence[ListWatch]) -> None:
    """Log it once, and count what the ledger finds wrong in the cluster then."""
    began = time.monotonic()
    for watch in watches:
        await watch.in_step.wait()
    gc.freeze()  # Most of it stays.
    for difference in service.differences():
        service.metrics.differences.labels(difference.kind).inc()
    states = sum(1 for _ in service.decisions.ledger.snapshot())
    log.info("in step", nodes=states, pods=len(tuple(service.view.pods())), seconds=round(time.monotonic() - began, 3))
