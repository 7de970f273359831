"""The service on a real cluster."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog

from extender.cluster import Collection, KubeCluster
from extender.config import Settings
from extender.core.decisions import Decisions, Refresher
from extender.core.waiting import Waiting
from extender.events import Events
from extender.live.audit import PAUSE as AUDIT_PAUSE
from extender.live.audit import Audit
from extender.live.background import SETTLE_PAUSE, Counts, elector, reconcile, repeat
from extender.live.collector import Collector
from extender.live.listwatch import ListWatch, Sink
from extender.live.nodes import Nodes
from extender.live.pods import Pod, Pods
from extender.live.records import Records
from extender.live.told import Told
from extender.metrics import Metrics
from extender.pokes import Pokes
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
        live = _Live(settings, cluster, refresher)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in live.work()]
            yield live.service
            for task in tasks:
                task.cancel()
    finally:
        await cluster.close()


class _Live:
    """The parts, joined."""

    def __init__(self, settings: Settings, cluster: KubeCluster, refresher: Refresher) -> None:
        # A name that no process ever had: ids of tries and reservation pods carry it.
        process = uuid4().hex[:12]
        clock = time.monotonic
        decisions = Decisions(policy_of(settings), claim_ttl=settings.claim_ttl, timer=clock, refresher=refresher)
        metrics = Metrics()
        watcher = Reflector(decisions)
        nodes = Nodes(watcher, lambda kind: metrics.repairs.labels("nodes", kind).inc())
        pods = Pods(watcher, cluster.get_pod, lambda kind: metrics.repairs.labels("pods", kind).inc())
        self._pods = pods
        records = Records(watcher, cluster.create_config_map)
        self._watches = _watches(cluster, metrics, nodes, pods, records)
        self._waiting = waiting = Waiting(decisions, nodes.objects, is_binding=self._is_binding)
        self._events = Events(cluster, instance=process, now=lambda: datetime.now(UTC), clock=clock)
        self._pokes = Pokes(cluster, waiting, process=process, clock=clock)
        told = Told(waiting, self._events, decisions.ledger, metrics)
        self._audit = Audit(decisions.ledger, pods.find, told)
        binder, reservations, self._reconciler = join(
            settings,
            cluster,
            decisions,
            watcher,
            clock=clock,
            process=process,
            owner=lambda: records.owner,
            tell=told.background,
            waiting=self._unschedulable,
            seen=pods.find,
        )
        identity = f"{socket.gethostname()}_{process}"
        self._elector = elector(cluster, settings.lease_namespace, identity)
        metrics.add(Counts(self._events, self._pokes, self._elector))
        view = LiveView(nodes, pods)
        self.service = Service(settings, decisions, binder, reservations, view, metrics, self._behind, audience=told)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that runs beside the listeners, until it is cancelled."""
        return [
            *(watch.run() for watch in self._watches),
            self._begin(),
            self._events.run(),
            self._pokes.run(),
            repeat("settle", self.service.binder.settle, SETTLE_PAUSE),
            self._elector.run(lambda: reconcile(self._reconciler, self._in_step)),
        ]

    def _unschedulable(self) -> list[Pod]:
        return self._pods.unschedulable(self.service.settings.scheduler_name)

    def _is_binding(self, uid: str) -> bool:
        return self.service.binder.is_open(uid)

    def _behind(self) -> str | None:
        return next((watch.behind for watch in self._watches if watch.behind), None)

    async def _in_step(self) -> None:
        for watch in self._watches:
            await watch.in_step.wait()

    async def _begin(self) -> None:
        """Once everything is listed: say so, tell what is wrong in the cluster and go on so, and poke who may fit."""
        began = time.monotonic()
        await self._in_step()
        # Another process may have rejected them, for reasons that hold no more.
        self._waiting.found(self._unschedulable())
        service = self.service
        self._audit.begin(await service.differences())
        seconds = round(time.monotonic() - began, 3)
        log.info("in step", nodes=len(service.view.nodes), pods=len(tuple(service.view.pods())), seconds=seconds)
        await repeat("audit", self._audit.once, AUDIT_PAUSE)


def _watches(cluster: KubeCluster, metrics: Metrics, nodes: Nodes, pods: Pods, records: Records) -> list[ListWatch]:
    """All of them must have listed before the first decision."""
    sinks: dict[Collection, Sink] = {
        Collection.RESOURCE_SLICES: nodes.slices,
        Collection.RESOURCE_CLAIMS: nodes.claims,
        Collection.NODES: nodes.nodes,
        Collection.CONFIG_MAPS: records,
        Collection.PODS: pods,
    }
    collector = Collector()

    def watch(kind: Collection, sink: Sink) -> ListWatch:
        failed = metrics.watch_failures.labels(kind.noun).inc
        return ListWatch(cluster, kind, sink, sleep=asyncio.sleep, failed=failed, reading=collector.off)

    return [watch(kind, sink) for kind, sink in sinks.items()]
