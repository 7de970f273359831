"""The account of who holds what: nodes, their shared GPUs, shares, and what else pods take.

A share's states::

              assume                record               confirm              release
    (absent) ────────▶ assumed ───────────────▶ recorded ───────────▶ confirmed ───────▶ (gone)
                          │      the node record    │    the API says     ▲      pod gone
                          │      holds it           │    it is bound      │      or ended
                          │                         │                     │
                          ├─────────────────────────┴──▶ (gone)           │
                          │            forget                             │
                          └───────────────────────────────────────────────┘
                                            confirm

    observe: evidence from the API (list, watch, snapshot) puts a pod straight into *confirmed*.

No timer ends a share: only evidence does (the pod is gone, has ended, or its binding was refused for good). What the
API shows is taken as it is, even where it exceeds a GPU; what we decide never does. What a pod was bound with counts
until its end, whatever is written on it later (``remembered``).

A node's state is derived from its pods and reservation pods (``accounting.derive``) after each change, on first use.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from extender.core import names
from extender.core.accounting import derive, holds_device
from extender.core.doubts import Doubts
from extender.core.errors import DoesNotFit, LedgerError
from extender.core.placement import RESERVATION_NEEDS, Placement, refusal
from extender.core.remembered import by_record, doubted, first_report, in_dispute, joined, still_held
from extender.core.requests import GpuRequest
from extender.core.values import (
    USUAL_GRACE,
    GpuState,
    Node,
    NodeState,
    PodOnNode,
    Reservation,
    ShareOnGpu,
    ShareState,
)


@dataclass(slots=True)
class _Books:
    """Everything known about one node name, whether or not its Node object exists (any more)."""

    node: Node | None = None
    #: pod UID → what it takes here
    pods: dict[str, PodOnNode] = field(default_factory=dict)
    #: pod UID → what the node record says that it holds, whether or not it is bound yet
    recorded: dict[str, PodOnNode] = field(default_factory=dict)
    #: GPUs of the node record
    opened: tuple[Reservation, ...] = ()
    #: The API has shown a node record.
    has_record: bool = False
    #: No GPU is opened here for now.
    barred: bool = False
    #: id → reservation pod, planned ones included
    reservations: dict[str, Reservation] = field(default_factory=dict)
    #: What follows from the above: None after a change, until somebody asks. The first two do not depend on pods.
    by_record: tuple[Reservation, ...] | None = None
    counted: tuple[Reservation, ...] | None = None
    state: NodeState | None = None


class Ledger:
    """The one account of capacity. ``touched`` is told the name of every node that changes."""

    def __init__(self, touched: Callable[[str], None] = lambda _name: None) -> None:
        self._touched = touched
        self._books: dict[str, _Books] = {}
        #: pod UID → node name
        self._where: dict[str, str] = {}
        #: pod UID → nodes whose records name it
        self._recorded: dict[str, set[str]] = {}
        #: UIDs of pods that a new try is about to take out of the record
        self._disregarded: set[str] = set()
        self._doubts = Doubts()
        #: UIDs of pods and ids of reservation pods that the API has shown to be gone. They never come back.
        self._gone: LRUCache[str, bool] = LRUCache(maxsize=GONE)

    # --- reading ------------------------------------------------------------------------------------------

    def state(self, node: str) -> NodeState | None:
        """The node as it stands now, or None if the API shows no such node."""
        books = self._books.get(node)
        if books is None or books.node is None:
            return None
        if books.state is None:
            state = derive(books.node, self._holders(books), self._counted(books))
            books.state = state._replace(barred=books.barred) if books.barred else state
        return books.state

    def node(self, name: str) -> Node | None:
        """The node as the API shows it, or None if it shows no such node."""
        books = self._books.get(name)
        return None if books is None else books.node

    def snapshot(self) -> Iterator[NodeState]:
        """Every node as it stands now, in the order in which the nodes came."""
        for name in list(self._books):
            state = self.state(name)
            if state is not None:
                yield state

    def pod(self, uid: str) -> PodOnNode | None:
        """What that pod holds, or None."""
        node = self._where.get(uid)
        return None if node is None else self._books[node].pods[uid]

    def pods(self, node: str) -> tuple[PodOnNode, ...]:
        """What each pod holds on that node."""
        books = self._books.get(node)
        return () if books is None else tuple(books.pods.values())

    def reservations(self, node: str) -> tuple[Reservation, ...]:
        """The node's reservation pods, planned ones included, as the node record knows them."""
        books = self._books.get(node)
        if books is None:
            return ()
        if books.by_record is None:
            books.by_record = _by_record(books)
        return books.by_record

    def recorded(self, node: str) -> tuple[PodOnNode, ...]:
        """What each pod holds there by the node record, as last seen."""
        books = self._books.get(node)
        return () if books is None else tuple(books.recorded.values())

    def entry(self, node: str, uid: str) -> PodOnNode | None:
        """What that pod holds there by the node record, as last seen; None where the record does not name it."""
        books = self._books.get(node)
        return None if books is None else books.recorded.get(uid)

    def opened(self, node: str) -> tuple[Reservation, ...]:
        """The GPUs of the node record, as last seen."""
        books = self._books.get(node)
        return () if books is None else books.opened

    def has_record(self, node: str) -> bool:
        """Whether the API has ever shown a record of that node."""
        books = self._books.get(node)
        return books is not None and books.has_record

    def doubted(self) -> list[PodOnNode]:
        """Bound pods of which something is not as it should be: past us, changed since, or not as the record says."""
        return [pod for uid in self._doubts.pods if (pod := self.pod(uid)) is not None]

    def doubted_nodes(self) -> list[NodeState]:
        """Nodes whose reservation pods or record are not as they should be."""
        return [state for name in self._doubts.nodes if (state := self.state(name)) is not None]

    def shared_nodes(self) -> list[str]:
        """The nodes with reservation pods, shares, or a record that names any."""
        shared = (state.name for state in self.snapshot() if state.gpus)
        named = (name for name, books in self._books.items() if books.reservations or books.opened)
        return list(dict.fromkeys((*shared, *named)))

    def without(self, node: str, uids: Iterable[str]) -> NodeState | None:
        """The node as it would stand once these pods are gone; reservation pods that this leaves empty go too."""
        books = self._books.get(node)
        if books is None or books.node is None:
            return None
        gone = set(uids)
        before = self._holders(books)
        pods = [pod for pod in before if pod.uid not in gone]
        emptied = _gpu_ids(before) - _gpu_ids(pods)
        kept = [r for r in self._counted(books) if r.id not in emptied and r.uid not in gone]
        return derive(books.node, pods, kept)

    # --- evidence -----------------------------------------------------------------------------------------

    def put_node(self, node: Node) -> None:
        """The API shows this node, new or changed."""
        books = self._books.setdefault(node.name, _Books())
        if books.node != node:
            books.node = node
            self._change_gpus(node.name)

    def drop_node(self, name: str) -> None:
        """The Node object is gone. Its pods stay in the books: they end by their own evidence."""
        books = self._books.get(name)
        if books is None:
            return
        books.node = None
        self._change_gpus(name)
        self._sweep(name)

    def observe(self, pod: PodOnNode) -> None:
        """The API shows this pod bound. What it shows replaces what we assumed, and never what it was bound with."""
        before = self._where.get(pod.uid)
        if before is not None and before != pod.node:
            self._remove(pod.uid)
        books = self._books.setdefault(pod.node, _Books())
        known = books.pods.get(pod.uid)
        if known is not None and known.state is ShareState.CONFIRMED:
            pod = still_held(known, pod)
        # Our own placement seen through the watch is no news, and stays under the strict rule of check().
        if known is not None and _same_holding(known, pod):
            pod = pod._replace(observed=known.observed)
        if known == pod:
            return
        books.pods[pod.uid] = pod
        self._where[pod.uid] = pod.node
        self._doubt(pod.uid)
        self._change(pod.node)

    def put_reservation(self, reservation: Reservation) -> Reservation:
        """The API shows this reservation pod bound to its node, or we plan it. As it counts: by its first report."""
        books = self._books.setdefault(reservation.node, _Books())
        known = books.reservations.get(reservation.id)
        if known is not None:
            reservation = first_report(known, reservation, books.opened)
        if known != reservation:
            books.reservations[reservation.id] = reservation
            self._change_gpus(reservation.node)
            self._doubt_node(reservation.node)
        return reservation

    def put_record(self, node: str, entries: Iterable[PodOnNode], opened: Iterable[Reservation]) -> None:
        """The node record as the API shows it: room that any extender has taken, for pods bound or not."""
        books = self._books.setdefault(node, _Books())
        recorded = {pod.uid: pod for pod in entries}
        gpus = tuple(opened)
        first = not books.has_record
        books.has_record = True
        if first or (books.recorded, books.opened) != (recorded, gpus):
            if books.opened != gpus:
                books.opened = gpus
                self._change_gpus(node)
            before, books.recorded = books.recorded, recorded
            self._index_record(node, before.keys() - recorded.keys(), recorded.keys())
            for uid in before.keys() | recorded.keys() | (books.pods.keys() if first else set()):
                if first or before.get(uid) != recorded.get(uid):
                    self._doubt(uid)
            self._doubt_node(node)
            self._change(node)
            self._sweep(node)

    def disregard_record(self, uid: str) -> None:
        """A new try is about to replace what the record holds for this pod: until the try ends, or ``regard_record``,
        the pod counts by the try alone."""
        self._disregarded.add(uid)
        self._change_recorded(uid)

    def regard_record(self, uid: str) -> None:
        """There is no such try any more. Idempotent."""
        if uid in self._disregarded:
            self._disregarded.remove(uid)
            self._change_recorded(uid)

    def is_gone(self, uid: str) -> bool:
        """Whether the API has shown that this pod is gone or has ended."""
        return uid in self._gone

    def alive(self, uid: str) -> None:
        """The API shows a pod of this UID that has not ended.

        An API server never gives a UID twice, but whoever creates pods in the embedded cluster may.
        """
        if self._gone.pop(uid, False):
            self._change_recorded(uid)

    def drop_reservation(self, node: str, reservation_id: str) -> None:
        """The reservation pod is gone; idempotent."""
        self._gone[reservation_id] = True
        self._drop_reservation(node, reservation_id)

    def release(self, uid: str) -> None:
        """The pod is gone or has ended: evidence, not a wish. Idempotent."""
        self._gone[uid] = True
        if uid in self._where:
            self._remove(uid)
        self._change_recorded(uid)

    def bar(self, node: str, barred: bool) -> None:
        """Whether no GPU may be opened there for now."""
        books = self._books.setdefault(node, _Books())
        if books.barred != barred:
            books.barred = barred
            self._change(node)
            self._sweep(node)

    # --- our own decisions --------------------------------------------------------------------------------

    def assume(  # noqa: PLR0913 - one call names the pod, the place and the new ids
        self,
        *,
        uid: str,
        namespace: str,
        name: str,
        node: str,
        request: GpuRequest,
        placement: Placement,
        new_ids: Sequence[str] = (),
        grace: int = USUAL_GRACE,
    ) -> PodOnNode:
        """Take the room for a pod that we are about to bind; ``grace``: seconds that its processes get to end.

        ``new_ids`` name the ``placement.new`` GPUs that are opened for it. Raises LedgerError if the pod is already in
        the books, DoesNotFit if the placement is no longer possible; nothing has changed then.
        """
        held = self.pod(uid)
        if held is not None:
            raise LedgerError(_stands(held))
        state = self.state(node)
        if state is None:
            raise DoesNotFit(REASON_UNKNOWN)
        self._verify(state, request, placement, new_ids)
        share = request.share
        pod = PodOnNode(
            uid,
            namespace,
            name,
            node,
            request.resources,
            shares=_shares(placement, new_ids),
            compute_mode=share.compute_mode if share is not None else names.TIME_SLICING,
            state=ShareState.ASSUMED,
            grace=grace,
        )
        books = self._books[node]
        for gpu_id in new_ids:
            # Of the size that it was chosen for, whatever becomes of the node's labels until it reports.
            books.reservations[gpu_id] = Reservation(
                gpu_id, node, memory_mib=state.inventory.memory_mib, resources=_reservation_resources()
            )
        books.pods[uid] = pod
        self._where[uid] = node
        if new_ids:
            self._change_gpus(node)
        else:
            self._change(node)
        return pod

    def record(self, uid: str, attempt: str | None = None) -> None:
        """The node record holds the share, by that try. Raises LedgerError unless it is assumed."""
        self._advance(uid, (ShareState.ASSUMED,), ShareState.RECORDED, attempt)

    def confirm(self, uid: str) -> None:
        """The API says that the pod is bound. Idempotent; raises LedgerError for an unknown pod."""
        self._advance(uid, ANY_STATE, ShareState.CONFIRMED)

    def forget(self, uid: str) -> None:
        """Give back what was assumed: the binding never happened. Idempotent; raises LedgerError once confirmed."""
        pod = self.pod(uid)
        if pod is None:
            return
        if pod.state is ShareState.CONFIRMED:
            raise LedgerError(f"pod {pod.namespace}/{pod.name} is confirmed: only its end releases it")
        self._remove(uid)
        self.unplan(pod)

    def unplan(self, pod: PodOnNode) -> None:
        """GPUs planned for that pod that no reservation pod backs and nobody uses are no longer planned. Idempotent.

        ``forget`` does it too; a pod that was released while its bind was under way leaves it to the bind.
        """
        books = self._books.get(pod.node)
        if books is None:
            return
        used = _gpu_ids(books.pods.values())
        for share in pod.shares:
            reservation = books.reservations.get(share.gpu_id)
            if reservation is not None and reservation.uid is None and share.gpu_id not in used:
                # Not gone: its creation may yet land.
                self._drop_reservation(pod.node, share.gpu_id)

    def report(self, node: str, reservation_id: str, device: str, memory_mib: int) -> None:
        """Devices are known: the shares that wait for this GPU get its UUID."""
        books = self._books[node]
        reservation = books.reservations[reservation_id]
        books.reservations[reservation_id] = replace(reservation, device=device, memory_mib=memory_mib)
        for uid, pod in books.pods.items():
            if any(share.gpu_id == reservation_id and share.uuid is None for share in pod.shares):
                books.pods[uid] = pod._replace(
                    shares=tuple(
                        share._replace(uuid=device) if share.gpu_id == reservation_id else share for share in pod.shares
                    ),
                )
        self._change_gpus(node)

    # --- invariants ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """State every invariant; raises AssertionError with the first that is broken. For tests and ``check``."""
        for uid, node in self._where.items():
            assert uid in self._books[node].pods, f"{uid} is said to be on {node} but is not"
        for name, books in self._books.items():
            for uid, pod in books.pods.items():
                assert (pod.uid, pod.node) == (uid, name), f"{uid} is filed in the wrong place"
                assert self._where.get(uid) == name, f"{uid} is on {name} and elsewhere"
            assert books.by_record in (None, _by_record(books)), f"{name}: reservation pods have changed unnoticed"
            assert books.counted in (None, self._count(books)), f"{name}: what counts has changed unnoticed"
            state = self.state(name)
            if state is not None:
                check_node(state, self._holders(books))

    # --- inside -------------------------------------------------------------------------------------------

    def _holders(self, books: _Books) -> list[PodOnNode]:
        """Pods, and those that only the record knows: another extender is binding them, or we are."""
        if not books.recorded:
            return list(books.pods.values())
        counted = (self._where, self._gone, self._disregarded)
        unbound = [pod for uid, pod in books.recorded.items() if not any(uid in other for other in counted)]
        return [*(self._with_record(pod, books) for pod in books.pods.values()), *unbound]

    def _with_record(self, pod: PodOnNode, books: _Books) -> PodOnNode:
        """A bound pod holds what its entry in the record says, too, whatever its annotations say by now."""
        entry = books.recorded.get(pod.uid)
        if entry is None or pod.state is not ShareState.CONFIRMED or pod.uid in self._disregarded:
            return pod
        shares, mode = joined(pod.shares, entry.shares), entry.compute_mode
        same = (shares, mode) == (pod.shares, pod.compute_mode)
        return pod if same else pod._replace(shares=shares, compute_mode=mode, observed=True)

    def _known_reservations(self, books: _Books) -> list[Reservation]:
        return [*books.reservations.values(), *books.opened]

    def _counted(self, books: _Books) -> tuple[Reservation, ...]:
        if books.counted is None:
            books.counted = self._count(books)
        return books.counted

    def _count(self, books: _Books) -> tuple[Reservation, ...]:
        """Reservation pods; those of recorded GPUs that the watch has not shown yet; and what the record calls lost."""
        known = books.reservations.keys()
        unseen = [r for r in books.opened if r.lost or (r.id not in known and r.id not in self._gone)]
        disputed = self._disputed(books)
        listed = (*_by_record(books), *unseen)
        return tuple(doubted(each) if each.id in disputed and not each.lost else each for each in listed)

    def _disputed(self, books: _Books) -> set[str]:
        """Ids of reservation pods of which only one can hold the device that they name."""
        over = {r.id for r in books.reservations.values() if books.node is not None and not holds_device(r, books.node)}
        shown = [r for r in books.reservations.values() if r.id not in over]
        recorded = [r for r in books.opened if not r.lost and r.id not in over and r.id not in self._gone]
        return in_dispute(shown, recorded)

    def _verify(self, state: NodeState, request: GpuRequest, placement: Placement, new_ids: Sequence[str]) -> None:
        if len(new_ids) != placement.new or len(set(new_ids)) != placement.new:
            raise LedgerError(f"{placement.new} new GPUs need as many different ids, got {list(new_ids)}")
        current = {gpu.id: gpu for gpu in state.gpus}
        if any(gpu_id in current for gpu_id in new_ids):
            raise LedgerError(f"a new GPU has the id of one that exists: {list(new_ids)}")
        mode = request.share.compute_mode if request.share is not None else ""
        for gpu, mib in zip(placement.on, placement.mib, strict=False):
            now = current.get(gpu.id)
            if now is None or not now.takes(mode) or mib > now.free_mib:
                raise DoesNotFit(f"shared GPU {gpu.id} no longer has room")
        if len({gpu.id for gpu in placement.on}) != len(placement.on):
            raise LedgerError("one GPU is chosen twice")
        if placement.new + placement.whole > state.whole_free:
            raise DoesNotFit("no whole GPU is free any more")
        refused = refusal(state, request, placement)
        if refused is not None:
            raise DoesNotFit(refused.text)

    def _doubt(self, uid: str) -> None:
        pod = self.pod(uid)
        books = self._books[pod.node] if pod is not None else _Books()
        self._doubts.pod(uid, pod, books.recorded.get(uid), has_record=books.has_record)

    def _doubt_node(self, node: str) -> None:
        self._doubts.node(node, self.reservations(node), self.recorded(node))

    def _advance(self, uid: str, allowed: tuple[ShareState, ...], to: ShareState, attempt: str | None = None) -> None:
        pod = self.pod(uid)
        if pod is None:
            raise LedgerError(f"the pod with UID {uid} has ended")
        if pod.state not in allowed:
            raise LedgerError(_stands(pod))
        if pod.state is not to:
            self._books[pod.node].pods[uid] = pod._replace(state=to, attempt=attempt or pod.attempt)
            self._change(pod.node)

    def _remove(self, uid: str) -> None:
        node = self._where.pop(uid)
        del self._books[node].pods[uid]
        self._doubts.pods.discard(uid)
        self.regard_record(uid)
        self._change(node)
        self._sweep(node)

    def _drop_reservation(self, node: str, reservation_id: str) -> None:
        books = self._books.get(node)
        if books is not None and any(r.id == reservation_id for r in self._known_reservations(books)):
            books.reservations.pop(reservation_id, None)
            self._change_gpus(node)
            self._doubt_node(node)
            self._sweep(node)

    def _change(self, node: str) -> None:
        self._books[node].state = None
        self._touched(node)

    def _change_gpus(self, node: str) -> None:
        """The Node, its reservation pods or the GPUs of its record are not what they were."""
        books = self._books[node]
        books.by_record = books.counted = None
        self._change(node)

    def _index_record(self, node: str, left: Iterable[str], named: Iterable[str]) -> None:
        for uid in left:
            nodes = self._recorded.get(uid, set())
            nodes.discard(node)
            if not nodes:
                self._recorded.pop(uid, None)
        for uid in named:
            self._recorded.setdefault(uid, set()).add(node)

    def _change_recorded(self, uid: str) -> None:
        for node in self._recorded.get(uid, ()):
            self._change(node)

    def _sweep(self, node: str) -> None:
        books = self._books[node]
        held = books.pods or books.reservations or books.recorded or books.opened
        if books.node is None and not (held or books.barred):
            del self._books[node]


ANY_STATE = tuple(ShareState)
#: How many ends are remembered: far more than pods can end while a record still names them.
GONE = 200_000
REASON_UNKNOWN = "the node is not known to the ledger"


def check_node(state: NodeState, pods: Iterable[PodOnNode]) -> None:
    """The invariants of one node; raises AssertionError."""
    pods = tuple(pods)
    shares = [(pod.uid, share) for pod in pods for share in pod.shares]
    held = [(share.uid, gpu) for gpu in state.gpus for share in gpu.shares]
    assert sorted(uid for uid, _ in shares) == sorted(uid for uid, _ in held), (
        f"{state.name}: each share is on exactly one GPU"
    )
    devices = [gpu.uuid for gpu in state.gpus if gpu.uuid is not None]
    assert len(devices) == len(set(devices)) or any(pod.observed for pod in pods), (
        f"{state.name}: a device is in two places"
    )
    for gpu in state.gpus:
        assert gpu.used_mib == sum(share.mib for share in gpu.shares), f"{gpu.id}: used is not the sum"
        assert all(share.mib > 0 for share in gpu.shares), f"{gpu.id}: a share of nothing"
        assert gpu.used_mib <= gpu.memory_mib or any(share.observed for share in gpu.shares), (
            f"{gpu.id}: {gpu.used_mib} of {gpu.memory_mib} MiB given out"
        )
        assert gpu.free_mib >= 0, f"{gpu.id}: negative room"
        assert len({share.uid for share in gpu.shares}) == len(gpu.shares), f"{gpu.id}: a pod is on it twice"
    assert state.whole_free >= 0, f"{state.name}: negative whole GPUs"
    lost = any(gpu.state is GpuState.LOST for gpu in state.gpus)
    assert lost <= (state.closed is not None), f"{state.name}: a lost device leaves the node open"


def _stands(pod: PodOnNode) -> str:
    """In users' words: whoever is faster with a pod, kube-scheduler shows it."""
    how = "already bound" if pod.state is ShareState.CONFIRMED else "already being bound"
    return f"pod {pod.namespace}/{pod.name} is {how} to node {pod.node}"


def _by_record(books: _Books) -> tuple[Reservation, ...]:
    return tuple(by_record(shown, books.opened) for shown in books.reservations.values())


def _gpu_ids(pods: Iterable[PodOnNode]) -> set[str]:
    return {share.gpu_id for pod in pods for share in pod.shares}


def _same_holding(known: PodOnNode, seen: PodOnNode) -> bool:
    return known.node == seen.node and known.shares == seen.shares


def _shares(placement: Placement, new_ids: Sequence[str]) -> tuple[ShareOnGpu, ...]:
    ids = [(gpu.id, gpu.uuid) for gpu in placement.on] + [(gpu_id, None) for gpu_id in new_ids]
    return tuple(ShareOnGpu(gpu_id, uuid, mib) for (gpu_id, uuid), mib in zip(ids, placement.mib, strict=True))


def _reservation_resources() -> dict[str, int]:
    return {resource: need for resource, need in RESERVATION_NEEDS.items() if resource != names.PODS}
