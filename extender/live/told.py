"""Who hears how decisions end on a real cluster: pods that wait, and people, in events, the log and metrics."""

import structlog

from extender.binding.api import Pod
from extender.binding.notice import Kind, Notice
from extender.core import notices
from extender.core.consistency import Difference
from extender.core.ledger import Ledger
from extender.core.notices import About
from extender.core.podreader import namespaced_name, uid_of
from extender.core.values import PodOnNode
from extender.core.waiting import Waiting
from extender.events import Events
from extender.metrics import Metrics
from extender.service import Audience

log = structlog.get_logger()


class Told(Audience):
    """Pokes and events."""

    def __init__(self, waiting: Waiting, events: Events, ledger: Ledger, metrics: Metrics) -> None:
        self._waiting = waiting
        self._events = events
        self._ledger = ledger
        self._metrics = metrics

    # --- how decisions end --------------------------------------------------------------------------------

    def fits(self, uid: str) -> None:
        """See Audience."""
        self._waiting.forget(uid)

    def rejected(self, pod: Pod) -> None:
        """See Audience."""
        self._waiting.rejected(pod)

    def refused(self, pod: Pod, sentence: str) -> None:
        """See Audience."""
        self._events.tell(notices.refused(About.pod(*namespaced_name(pod), uid_of(pod)), sentence))

    def bound(self, uid: str) -> None:
        """See Audience."""
        held = self._ledger.pod(uid)
        if held is not None and held.shares:
            self._events.tell(notices.placed(held))

    def opening(self, namespace: str, name: str, uid: str, node: str) -> None:
        """See Audience."""
        self._events.tell(notices.opening(About.pod(namespace, name, uid), node))

    # --- what should not be ---------------------------------------------------------------------------------

    def difference(self, found: Difference) -> None:
        """Ledger and API, or the API and itself, contradict each other."""
        self._metrics.differences.labels(found.kind).inc()
        log.warning("difference", kind=found.kind, object=found.object, text=found.text)

    def doubt(self, pod: PodOnNode) -> None:
        """Something of this bound pod is not as it should be; its user hears what concerns him."""
        entry = self._ledger.entry(pod.node, pod.uid)
        if pod.changed:
            self._events.tell(notices.changed(pod))
        elif pod.unserved and entry is not None:
            # It was bound with a share before this process began.
            self._events.tell(notices.changed(pod._replace(shares=entry.shares)))
        elif pod.unserved:
            self._events.tell(notices.bypassed(pod))

    # --- what the background work tells -------------------------------------------------------------------

    def background(self, notice: Notice) -> None:
        """See ``notice.Tell``."""
        self._metrics.background.labels(notice.kind).inc()
        pods = [f"{namespace}/{name}" for _, namespace, name in notice.pods]
        log.info(notice.kind, node=notice.node, gpu=notice.gpu, text=notice.text, pods=pods)
        for event in self._events_of(notice):
            self._events.tell(event)

    def _events_of(self, notice: Notice) -> list[notices.Notice]:
        pods = [pod for uid, _, _ in notice.pods if (pod := self._ledger.pod(uid)) is not None]
        if notice.kind is Kind.GPU_LOST:
            on_node = [notices.closed(node, [notice.gpu]) for node in self._node(notice.node)]
            return [notices.lost(pod, notice.gpu) for pod in pods] + on_node
        if notice.kind is Kind.GPU_REPAIRED:
            return [notices.repaired(pod, notice.gpu) for pod in pods]
        if notice.kind is Kind.NODE_REOPENED:
            return [notices.reopened(node) for node in self._node(notice.node)]
        if notice.kind is Kind.GPU_NOT_FOUND:
            about = [About.pod(pod.namespace, pod.name, pod.uid) for pod in pods] + self._node(notice.node)
            return [notices.repair_failed(each, notice.gpu) for each in about]
        return []

    def _node(self, name: str) -> list[About]:
        state = self._ledger.state(name)
        return [About.node(name, state.node.uid)] if state is not None else []
