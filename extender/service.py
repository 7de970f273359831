"""The parts of a running extender, put together; which cluster it serves is the caller's choice."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cachetools import LRUCache

from extender.binding.api import KubeApi, Pod
from extender.binding.bind import Binder, Seen
from extender.binding.evidence import LedgerEvidence
from extender.binding.fence import Fence
from extender.binding.notice import Tell
from extender.binding.openings import Openings
from extender.binding.reconciler import Patience, Reconciler
from extender.binding.records import NodeRecords
from extender.binding.reservations import Reservations
from extender.binding.share import ShareBinding
from extender.config import Settings
from extender.core.consistency import Difference, differences, steps
from extender.core.decisions import Decisions, Policy, Refresher, at_once
from extender.core.podreader import namespaced_name
from extender.core.reservation import Template
from extender.embedded import EmbeddedCluster
from extender.metrics import Metrics
from extender.reflector import Reflector
from extender.snapshot import Snapshot
from extender.turns import in_turns

#: Pods whose last decision is remembered for explain.
LAST_DECISIONS = 10_000


class View(Protocol):
    """A cluster as last seen, read from memory: what explain and check need."""

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Name → Node object."""

    def pods(self) -> Iterable[Pod]:
        """Every pod; not to be changed."""

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod, not to be changed, or None."""


class Audience:
    """Who hears how decisions end. On the embedded cluster nobody does: nobody there is poked or reads events."""

    def fits(self, uid: str) -> None:
        """filter has found a node for the pod."""

    def rejected(self, pod: Pod) -> None:
        """filter has just found none, in this tick."""

    def refused(self, pod: Pod, sentence: str) -> None:
        """No node will ever do, for the request is wrong."""

    def bound(self, uid: str) -> None:
        """The pod is bound."""

    def opening(self, namespace: str, name: str, uid: str, node: str) -> None:
        """A bind has ended while the reservation pod of a new GPU is still starting: the next one goes on with it."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work on."""

    settings: Settings
    decisions: Decisions
    binder: Binder
    reservations: Reservations
    view: View
    metrics: Metrics
    #: Why the ledger is not in step with the API yet; None once it is.
    not_ready: Callable[[], str | None]
    #: Where users' pods are created over HTTP; None on a real cluster.
    embedded: EmbeddedCluster | None = None
    audience: Audience = field(default_factory=Audience)
    #: pod UID → what the verb that last decided about it said
    last_decisions: MutableMapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: LRUCache(maxsize=LAST_DECISIONS)
    )

    async def differences(self) -> list[Difference]:
        """What ledger and API disagree on; each object as it stands when it is looked at."""
        view = self.view
        looked = steps(self.decisions.ledger, view.pods, lambda pod: view.find(*namespaced_name(pod)))
        return [found async for step in in_turns(looked) for found in step]


def policy_of(settings: Settings) -> Policy:
    """The settings that decisions depend on."""
    return Policy(settings.shortlist, settings.strategy, settings.preemption)


class Joined(NamedTuple):
    """The parts of the bind protocol that others call."""

    binder: Binder
    reservations: Reservations
    reconciler: Reconciler


def join(  # noqa: PLR0913 - the parts that it joins
    settings: Settings,
    api: KubeApi,
    decisions: Decisions,
    watcher: Reflector,
    *,
    clock: Callable[[], float],
    process: str,
    owner: Callable[[], tuple[str, str] | None] = lambda: None,
    tell: Tell = lambda _notice: None,
    waiting: Callable[[], Iterable[Pod]] = lambda: (),
    seen: Seen = lambda _namespace, _name: None,
) -> Joined:
    """The parts of the bind protocol, joined for one process.

    ``process``: a name that no other one has ever had. ``owner``: name and UID of the reservation pods' owner.
    ``waiting``: pods that kube-scheduler could not place. ``seen``: a pod as the watch has last shown it.
    """
    fence = Fence(api, process)
    evidence = LedgerEvidence(api, decisions.ledger, fence)
    records = NodeRecords(api, evidence)

    def template() -> Template:
        return Template(settings.scheduler_name, settings.agent_image, settings.agent_runtime_class, owner())

    reservations = Reservations(api, decisions.ledger, records, process, template)
    watcher.reservation_changed = reservations.changed
    watcher.reservation_seen = Openings(decisions.ledger, clock, call_later).saw
    shares = ShareBinding(
        api,
        decisions,
        reservations=reservations,
        records=records,
        evidence=evidence,
        fence=fence,
        process=process,
        bind_timeout=settings.bind_timeout,
        observe=watcher.answered,
    )
    reconciler = Reconciler(
        api,
        decisions.ledger,
        records=records,
        reservations=reservations,
        fence=fence,
        observe=watcher.answered,
        clock=clock,
        tell=tell,
        waiting=waiting,
        patience=Patience(settings.idle_timeout, settings.report_timeout, max(20.0, 2 * settings.bind_timeout)),
        spare=settings.spare_gpus,
        learn=settings.learn_nodes,
    )
    return Joined(Binder(api, decisions, shares, clock, seen), reservations, reconciler)


def call_later(seconds: float, callback: Callable[[], None]) -> None:
    """On the running loop."""
    asyncio.get_running_loop().call_later(seconds, callback)


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
    binder, reservations, _ = join(settings, cluster, decisions, watcher, clock=clock, process="embedded")
    metrics = Metrics()
    service = Service(settings, decisions, binder, reservations, cluster, metrics, lambda: None, cluster)
    for difference in differences(decisions.ledger, tuple(cluster.pods())):
        metrics.differences.labels(difference.kind).inc()
    return service
