"""The parts of a running extender, put together; which cluster it serves is the caller's choice."""

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from cachetools import LRUCache

from extender.binding.bind import Binder
from extender.binding.reservations import Reservations
from extender.config import Settings
from extender.core.consistency import Difference, differences
from extender.core.decisions import Decisions, Policy, Refresher, at_once
from extender.embedded import EmbeddedCluster
from extender.metrics import Metrics
from extender.snapshot import Snapshot

#: Pods whose last decision is remembered for explain.
LAST_DECISIONS = 10_000


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work on."""

    settings: Settings
    decisions: Decisions
    binder: Binder
    reservations: Reservations
    cluster: EmbeddedCluster
    metrics: Metrics
    #: Why the ledger is not in step with the API yet; None once it is.
    not_ready: Callable[[], str | None]
    #: pod UID → what the verb that last decided about it said
    last_decisions: MutableMapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: LRUCache(maxsize=LAST_DECISIONS)
    )

    def differences(self) -> list[Difference]:
        """What ledger and API disagree on now."""
        return differences(self.decisions.ledger, self.cluster.pods())


def policy_of(settings: Settings) -> Policy:
    """The settings that decisions depend on."""
    return Policy(settings.shortlist, settings.strategy, settings.preemption)


def embedded_service(
    settings: Settings,
    snapshot: Snapshot,
    clock: Callable[[], float] = time.monotonic,
    refresher: Refresher = at_once,
) -> Service:
    """The service on the embedded cluster: in step from the start. ``refresher`` learns what pods ask for."""
    decisions = Decisions(policy_of(settings), claim_ttl=settings.claim_ttl, timer=clock, refresher=refresher)
    cluster = EmbeddedCluster(snapshot, decisions)
    reservations = Reservations(cluster, decisions.ledger, scheduler="gpu-scheduler", image="gpu-extender")
    binder = Binder(cluster, decisions, reservations, process=uuid4().hex[:8], clock=clock)
    metrics = Metrics()
    service = Service(settings, decisions, binder, reservations, cluster, metrics, lambda: None)
    for difference in service.differences():
        metrics.differences.labels(difference.kind).inc()
    return service
