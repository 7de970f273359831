"""What is known of the pods behind a record's entries, and how a lost record is made anew."""

from collections import Counter
from collections.abc import Iterable, Mapping

from extender.binding.api import KubeApi, Pod
from extender.binding.fence import Fence
from extender.core import names
from extender.core.errors import NotFound
from extender.core.ledger import Ledger
from extender.core.podreader import is_reservation, pod_on_node, reservation_of, uid_of
from extender.core.record import Entry, NodeRecord, Opened
from extender.core.remembered import still_held
from extender.core.values import PodOnNode, Reservation, ShareState


class LedgerEvidence:
    """Evidence as the ledger holds it."""

    def __init__(self, api: KubeApi, ledger: Ledger, fence: Fence) -> None:
        self._api = api
        self._ledger = ledger
        self._fence = fence

    def is_dead(self, node: str, entry: Entry) -> bool:
        """See Evidence: gone or ended, or bound to another node. Never absence from the ledger."""
        if self._ledger.is_gone(entry.pod_uid):
            return True
        pod = self._ledger.pod(entry.pod_uid)
        return pod is not None and pod.state is ShareState.CONFIRMED and pod.node != node

    def is_gone(self, gpu_id: str) -> bool:
        """See Evidence."""
        return self._ledger.is_gone(gpu_id)

    async def still_holds(self, node: str, opened: Opened) -> bool:
        """See Evidence. What the read shows goes into the ledger, so that nobody chooses the GPU again."""
        try:
            pod = await self._api.get_pod(names.RESERVATION_NAMESPACE, opened.gpu_id)
        except NotFound:
            self._ledger.drop_reservation(node, opened.gpu_id)
            return False
        if uid_of(pod) != opened.reservation:
            self._ledger.drop_reservation(node, opened.gpu_id)
            return False
        shown = reservation_of(pod)
        if shown is None or shown.closing or shown.ended:
            if shown is not None:
                self._ledger.put_reservation(shown)
            return False
        return shown.device == opened.device

    async def rebuild(self, node: str) -> NodeRecord:
        """See Evidence: first no Binding that is still on its way may land, then what is bound is all there is.

        A node that has never had a record and runs no share costs one list of its pods.
        """
        pods = await self._api.list_pods(node)
        if self._ledger.has_record(node) or any(_bound(_holders(pods))):
            await self._fence.all_unbound_shares()
            pods = await self._api.list_pods(node)
        reservations = [reservation_of(pod) for pod in pods if is_reservation(pod)]
        holders = [self._as_bound(pod) for pod in _holders(pods)]
        return record_of(holders, [r for r in reservations if r is not None])

    def _as_bound(self, shown: PodOnNode) -> PodOnNode:
        """With what the pod was bound with, as far as this process has seen it."""
        known = self._ledger.pod(shown.uid)
        return shown if known is None or known.state is not ShareState.CONFIRMED else still_held(known, shown)

    def missing(self, node: str, record: NodeRecord) -> Mapping[str, int]:
        """MiB per device that pods bound there hold beyond what stands in the record."""
        devices = {opened.gpu_id: opened.device for opened, _ in record.opened()}
        written = {(entry.pod_uid, devices[entry.gpu_id]): entry.mib for entry in record.entries()}
        found: Counter[str] = Counter()
        for pod in _bound(self._ledger.pods(node)):
            for share in pod.shares:
                device = share.uuid or ""
                found[device] += max(0, share.mib - written.get((pod.uid, device), 0))
        return found


def record_of(pods: Iterable[PodOnNode], reservations: Iterable[Reservation]) -> NodeRecord:
    """A record of what is bound on one node, by the annotations of the pods and the reservation pods' reports."""
    by_id = {r.id: r for r in reservations}
    record = NodeRecord.empty()
    for pod in _bound(pods):
        opened = {
            share.gpu_id: Opened(share.gpu_id, r.uid, r.device, r.memory_mib)
            for share in pod.shares
            if (r := by_id.get(share.gpu_id)) and r.uid and r.device and r.memory_mib
        }
        entries = [Entry.of(pod, share, pod.attempt or "", pod.grace) for share in pod.shares if share.gpu_id in opened]
        if entries:
            changed = record.with_entries(entries, opened, {})
            # What is bound is so, even where it exceeds the GPU: then it stays out, and counts as missing.
            record = changed if isinstance(changed, NodeRecord) else record
    return record


def _holders(pods: Iterable[Pod]) -> list[PodOnNode]:
    return [held for pod in pods if not is_reservation(pod) and (held := pod_on_node(pod)) is not None]


def _bound(pods: Iterable[PodOnNode]) -> Iterable[PodOnNode]:
    return [pod for pod in pods if pod.shares and pod.state is ShareState.CONFIRMED]
