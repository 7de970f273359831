"""Reservation pods that nobody needs, or that will never be of use: closed, and their nodes told apart.

An idle GPU is closed some time after its creation or its last share, at once when whole GPUs are short. A reservation
pod that the kubelet has refused, or that does not report in time, is closed whoever waits for it; so is one for which
kube-scheduler finds no device, as when two schedulers have opened the last one. One that somebody else has deleted is
closed as soon as it is empty.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extender.binding.api import Pod
from extender.binding.notice import Kind, Notice, Tell
from extender.binding.reservations import Reservations
from extender.binding.spares import Spares
from extender.core.accounting import RESERVATION_LOST, holds_device
from extender.core.ages import Ages
from extender.core.ledger import Ledger
from extender.core.requests import GpuRequest
from extender.core.short import nodes_to_empty
from extender.core.values import NEVER_REPORTED, NOT_NEEDED, UNSCHEDULABLE, Reservation


@dataclass(frozen=True, slots=True)
class Limits:
    """When a reservation pod has had its time, in seconds."""

    #: An idle GPU, after its creation or last share.
    idle: float
    #: One that has not reported.
    report: float
    #: One for which kube-scheduler finds no device: more than a bind may take, for its opener may wait for it.
    unplaced: float


class Upkeep:
    """Closes reservation pods."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        ledger: Ledger,
        *,
        reservations: Reservations,
        tell: Tell,
        waiting: Callable[[], Iterable[Pod]],
        limits: Limits,
        spares: Spares,
    ) -> None:
        self._ledger = ledger
        self._reservations = reservations
        self._tell = tell
        #: Pods that kube-scheduler has tried to place and could not.
        self._waiting = waiting
        self._limits = limits
        self._spares = spares
        self._idle: Ages[str] = Ages()
        self._silent: Ages[str] = Ages()
        self._unplaced: Ages[str] = Ages()
        #: Nodes whose idle GPUs are to be closed at once.
        self._urgent: set[str] = set()
        #: Ids of the reservation pods whose failure was told.
        self._told: set[str] = set()

    def close_idle_now(self, node: str) -> None:
        """With the next pass all idle GPUs of that node are closed."""
        self._urgent.add(node)

    async def once(self, now: float) -> bool:
        """Look at every reservation pod. Whether GPUs may be opened ahead of demand: no pod waits for whole ones."""
        nodes = self._ledger.shared_nodes()
        known = {r.id: r for node in nodes for r in self._ledger.reservations(node) if r.uid}
        self._told &= known.keys()
        silent = self._silent.see((r.id for r in known.values() if r.device is None), now)
        unplaced = self._unplaced.see((r.id for r in known.values() if r.unschedulable), now)
        idle = {node: self._reservations.idle(node) for node in nodes}
        idle_for = self._idle.see((r.id for on_node in idle.values() for r in on_node), now)
        short = self._empty_where_short(idle)
        urgent, self._urgent = self._urgent, set()
        for reservation in known.values():
            if reservation not in self._ledger.reservations(reservation.node):
                continue  # It has changed while others were waited for: the next pass looks at it.
            surplus = unplaced.get(reservation.id, 0.0) >= self._limits.unplaced and not self._is_held(reservation)
            # Still, after all that was waited for since.
            is_idle = reservation.id in idle_for and reservation in self._reservations.idle(reservation.node)
            if silent.get(reservation.id, 0.0) >= self._limits.report or reservation.failure:
                await self._close_failed(reservation, NEVER_REPORTED)
            elif surplus and not is_idle:
                await self._close_failed(reservation, UNSCHEDULABLE)
            elif is_idle:
                late = reservation.device is not None and idle_for.get(reservation.id, 0.0) >= self._limits.idle
                late = late and reservation.id not in self._spares.kept(reservation.node)
                unneeded = (late or reservation.node in urgent) and not self._is_held(reservation)
                if unneeded or surplus or reservation.closing or not self._holds_device(reservation):
                    await self._close_idle(reservation)
            elif reservation.closed_because is not None and self._is_in_use(reservation):
                # The word of a close came too late, and whoever sent it is dead or knows nothing of it.
                await self._reservations.take_back(reservation)
        return not short

    def _empty_where_short(self, idle: dict[str, list[Reservation]]) -> bool:
        """Whether any pod waits for whole GPUs."""
        free = {node: [r.uid or "" for r in on_node if not self._is_held(r)] for node, on_node in idle.items()}
        requests = (GpuRequest.from_pod(pod) for pod in self._waiting())
        wanted = [request for request in requests if isinstance(request, GpuRequest) and request.whole_gpus]
        self._urgent.update(nodes_to_empty(self._ledger, {node: on for node, on in free.items() if on}, wanted))
        return bool(wanted)

    def _is_in_use(self, reservation: Reservation) -> bool:
        """By the node record: it refuses to let a GPU be closed that has shares."""
        entries = self._ledger.recorded(reservation.node)
        return any(share.gpu_id == reservation.id for entry in entries for share in entry.shares)

    def _holds_device(self, reservation: Reservation) -> bool:
        state = self._ledger.state(reservation.node)
        return state is not None and holds_device(reservation, state.node)

    def _is_held(self, reservation: Reservation) -> bool:
        """On a node that looks for a lost device, what was found to be another one must not be found again."""
        state = self._ledger.state(reservation.node)
        return state is not None and state.closed == RESERVATION_LOST and not reservation.ended

    async def _close_failed(self, reservation: Reservation, why: str) -> None:
        why = reservation.failure or why
        if reservation.id not in self._told:
            self._told.add(reservation.id)
            text = f"a reservation pod on the node has failed: {reservation.why or why}"
            self._tell(Notice(Kind.RESERVATION_FAILED, reservation.node, text, reservation.id))
        await self._reservations.close(reservation, why)

    async def _close_idle(self, reservation: Reservation) -> None:
        if await self._reservations.close(reservation, NOT_NEEDED):
            self._tell(Notice(Kind.GPU_CLOSED, reservation.node, "an idle shared GPU was closed", reservation.id))
