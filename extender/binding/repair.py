"""Devices that no reservation pod holds while shares run on them: said in the record, looked for, put back.

::

    open ──▶ lost          the reservation is gone, has ended, holds another device, or is of another boot
    lost ──▶ open          a reservation pod, the old one or a new one, reports the device: it takes its place
    lost ──▶ (gone)        the last share has ended

While a record says lost, its node gives out nothing. No user pod is ever deleted.
"""

from collections.abc import Callable, Collection
from typing import Final

from extender.binding.api import KubeApi, Pod
from extender.binding.notice import Kind, Notice, Tell
from extender.binding.records import Change, NodeRecords, RecordRefused
from extender.binding.reservations import Reservations, opened_of
from extender.core import names
from extender.core.accounting import RESERVATION_LOST, holds_device
from extender.core.ages import Ages
from extender.core.errors import NotFound
from extender.core.ledger import Ledger
from extender.core.podreader import uid_of
from extender.core.record import Opened
from extender.core.values import GpuState, Node, NodeState, Reservation, SharedGpu, ShareState

_TEXT: Final = {
    Kind.GPU_LOST: "the pod's GPU has lost its reservation; the node gives out no GPU until it is held again",
    Kind.GPU_REPAIRED: "the pod's GPU is reserved again",
    Kind.NODE_REOPENED: "no GPU under a running share is without a reservation any more",
    Kind.GPU_NOT_FOUND: "no free GPU of the node is the one that was lost; the node stays closed while the pod runs",
}


class Repair:
    """``patience``: seconds that a reservation pod of an earlier boot gets to report its device again."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        api: KubeApi,
        ledger: Ledger,
        *,
        records: NodeRecords,
        reservations: Reservations,
        observe: Callable[[Pod], None],
        tell: Tell,
        patience: float,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._records = records
        self._reservations = reservations
        self._observe = observe
        self._tell = tell
        self._patience = patience
        #: By node and device.
        self._ages: Ages[tuple[str, str]] = Ages()
        self._told: set[tuple[str, str, Kind]] = set()
        #: Nodes of which it was told that a GPU is lost, and not yet that they give out GPUs again.
        self._closed: set[str] = set()

    def see(self, states: Collection[NodeState], now: float) -> dict[tuple[str, str], float]:
        """Age of each lost device, by node and device."""
        lost = {(state.name, gpu.uuid or gpu.id) for state in states for gpu in _lost(state)}
        self._told = {told for told in self._told if told[:2] in lost}
        self._tell_reopened()
        return self._ages.see(lost, now)

    async def once(self, node: str, ages: dict[tuple[str, str], float]) -> None:
        """Raises ApiError, UnreadableRecord where a step failed: the next pass goes on from there."""
        await self._prove_gone(node)
        for gpu in self._lost(node):
            self._tell_once(Kind.GPU_LOST, node, gpu)
            for written in self._ledger.opened(node):
                if written.device == gpu.uuid and not written.lost:
                    await self._commit(node, _losing(written.id))
        repaired = await self._put_back(node)
        lost = self._lost(node)
        await self._leave(node)
        if repaired and not lost:
            await self._reservations.close_idle(node)  # What the search has held.
        await self._search(node, [gpu for gpu in lost if not self._may_return(node, gpu, ages)])

    # --- evidence -------------------------------------------------------------------------------------------

    async def _prove_gone(self, node: str) -> None:
        """A GPU of the record whose reservation pod the watch does not show: only the API can say that it is gone."""
        shown = {reservation.id for reservation in self._ledger.reservations(node)}
        for opened in self._ledger.opened(node):
            if opened.id not in shown and not self._ledger.is_gone(opened.id):
                pod = await self._find(opened)
                if pod is None:
                    self._ledger.drop_reservation(node, opened.id)
                else:
                    self._observe(pod)

    async def _find(self, opened: Reservation) -> Pod | None:
        try:
            pod = await self._api.get_pod(names.RESERVATION_NAMESPACE, opened.id)
        except NotFound:
            return None
        return pod if uid_of(pod) == opened.uid else None

    def _lost(self, node: str) -> list[SharedGpu]:
        state = self._ledger.state(node)
        return [] if state is None else _lost(state)

    def _may_return(self, node: str, gpu: SharedGpu, ages: dict[tuple[str, str], float]) -> bool:
        """After a reboot its reservation pod starts again, and mostly gets the same device."""
        alive = any(r.device == gpu.uuid and not (r.ended or r.problem) for r in self._ledger.reservations(node))
        return alive and ages.get((node, gpu.uuid or gpu.id), 0.0) < self._patience

    # --- the record -----------------------------------------------------------------------------------------

    async def _put_back(self, node: str) -> bool:
        """Whether any lost device has been found."""
        found = False
        for lost in self._ledger.opened(node):
            opened = self._holder(node, lost) if lost.lost else None
            if opened is not None and await self._commit(node, _repaired(opened)):
                found = True
                state = self._ledger.state(node)
                for gpu in state.gpus if state is not None else ():
                    if gpu.uuid == lost.device:
                        self._tell(_notice(Kind.GPU_REPAIRED, node, gpu))
        return found

    def _holder(self, node: str, lost: Reservation) -> Opened | None:
        state = self._ledger.state(node)
        if state is None:
            return None
        holders = (r for r in self._ledger.reservations(node) if r.device == lost.device)
        return next((opened_of(r) for r in holders if holds_device(r, state.node)), None)

    async def _leave(self, node: str) -> None:
        """Ids of GPUs that are gone leave the record, unless shares run on their devices."""
        state = self._ledger.state(node)
        used = {gpu.uuid for gpu in state.gpus if gpu.shares} if state is not None else set()
        for opened in self._ledger.opened(node):
            if self._ledger.is_gone(opened.id) and opened.device not in used:
                await self._commit(node, _without(opened.id))

    async def _commit(self, node: str, change: Change) -> bool:
        """Whether the record has it now. Raises ApiError, UnreadableRecord."""
        try:
            await self._records.commit(node, change)
        except RecordRefused:
            return False  # Somebody else was faster, or knows better.
        return True

    # --- the search -----------------------------------------------------------------------------------------

    async def _search(self, node: str, lost: list[SharedGpu]) -> None:
        """One reservation pod for each lost device at a time; those that get another device keep it meanwhile."""
        state = self._ledger.state(node)
        if not lost or state is None or state.barred or state.inventory.unusable is not None:
            return
        alive = [r for r in self._ledger.reservations(node) if not r.ended]
        asking = sum(r.device is None for r in alive)
        room = state.inventory.whole_gpus - state.whole_held - len(alive)
        for _ in range(min(len(lost) - asking, room)):
            pod = await self._reservations.search(node, "repair")
            if pod is not None:
                self._observe(pod)
        if room <= 0 and not asking:
            for gpu in lost:
                self._tell_once(Kind.GPU_NOT_FOUND, node, gpu)
            for reservation in alive:
                if _is_useless(reservation, state.node):
                    await self._reservations.remove(reservation)  # It holds nothing, but kube-scheduler counts it.

    def _tell_once(self, kind: Kind, node: str, gpu: SharedGpu) -> None:
        what = (node, gpu.uuid or gpu.id, kind)
        if what not in self._told:
            self._told.add(what)
            self._tell(_notice(kind, node, gpu))
        if kind is Kind.GPU_LOST:
            self._closed.add(node)

    def _tell_reopened(self) -> None:
        for node in sorted(self._closed):
            state = self._ledger.state(node)
            if state is None or state.closed != RESERVATION_LOST:
                self._closed.remove(node)
                if state is not None:
                    self._tell(Notice(Kind.NODE_REOPENED, node, _TEXT[Kind.NODE_REOPENED]))


def _is_useless(reservation: Reservation, node: Node) -> bool:
    """Whether it holds its device no longer. One that only the record calls another's may well hold what it says."""
    return reservation.device is not None and not reservation.foreign and not holds_device(reservation, node)


def _lost(state: NodeState) -> list[SharedGpu]:
    """Where a share is bound. Entries of the record alone end by a fence, and the GPU with them."""
    lost = (gpu for gpu in state.gpus if gpu.state is GpuState.LOST)
    return [gpu for gpu in lost if any(share.state is ShareState.CONFIRMED for share in gpu.shares)]


def _losing(gpu_id: str) -> Change:
    return lambda record: record.losing(gpu_id)


def _repaired(by: Opened) -> Change:
    return lambda record: record.repaired(by)


def _without(gpu_id: str) -> Change:
    return lambda record: record.without_gpu(gpu_id)


def _notice(kind: Kind, node: str, gpu: SharedGpu) -> Notice:
    pods = tuple((share.uid, share.namespace, share.pod) for share in gpu.shares)
    return Notice(kind, node, _TEXT[kind], gpu.uuid or gpu.id, pods)
