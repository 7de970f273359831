"""The parts of a running extender, put together; which cluster it serves is the caller's choice."""

import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cachetools import LRUCache

from extender.binding.api import KubeApi, Pod
from extender.binding.bind import Binder
from extender.binding.evidence import LedgerEvidence
from extender.binding.fence import Fence
from extender.binding.records import NodeRecords
from extender.binding.reservations import Reservations
from extender.binding.share import ShareBinding
from extender.config import Settings
from extender.core.consistency import Difference, differences
from extender.core.decisions import Decisions, Policy, Refresher, at_once
from extender.core.reservation import Template
from extender.embedded import EmbeddedCluster
from extender.metrics import Metrics
from extender.reflector import Reflector
from extender.snapshot import Snapshot

#: Pods whose last decision is remembered for explain.
LAST_DECISIONS = 10_000


class Cluster(KubeApi, Protocol):
    """A cluster that is also read from memory: what explain and check need."""

    nodes: Mapping[str, Mapping[str, Any]]

    def unbound_shares(self) -> Iterable[tuple[str, str, str]]:
        """Namespace, name and UID of every pod that asks for a share and waits."""

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod as last seen, or None."""


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


def join(  # noqa: PLR0913 - the parts that it joins
    settings: Settings,
    cluster: Cluster,
    decisions: Decisions,
    watcher: Reflector,
    *,
    clock: Callable[[], float],
    process: str,
) -> tuple[Binder, Reservations]:
    """The parts of the bind protocol, joined for one process. ``process``: a name that no other one has ever had."""
    fence = Fence(cluster, process, cluster.unbound_shares)
    evidence = LedgerEvidence(decisions.ledger, fence)
    records = NodeRecords(cluster, evidence)
    template = Template("gpu-scheduler", "gpu-extender")
    reservations = Reservations(cluster, decisions.ledger, records, process, template)
    watcher.reservation_changed = reservations.changed
    shares = ShareBinding(
        cluster,
        decisions,
        reservations=reservations,
        records=records,
        evidence=evidence,
        fence=fence,
        process=process,
        bind_timeout=settings.bind_timeout,
        observe=watcher.pod,
    )
    return Binder(cluster, decisions, shares, clock), reservations


def embedded_service(
    settings: Settings,
    snapshot: Snapshot,
    clock: Callable[[], float] = time.monotonic,
    refresher: Refresher = at_once,
) -> Service:
    """The service on the embedded cluster: in step from the start. ``refresher`` learns what pods ask for."""
    decisions = Decisions(policy_of(settings), claim_ttl=settings.claim_ttl, timer=clock, refresher=refresher)
    cluster = EmbeddedCluster(snapshot)
    watcher = Reflector(decisions)
    # One process for each such cluster, so its name may be fixed: the same calls give the same ids.
    cluster.attach(watcher)
    cluster.write_records(decisions.ledger)
    binder, reservations = join(settings, cluster, decisions, watcher, clock=clock, process="embedded")
    metrics = Metrics()
    service = Service(settings, decisions, binder, reservations, cluster, metrics, lambda: None)
    for difference in service.differences():
        metrics.differences.labels(difference.kind).inc()
    return service
