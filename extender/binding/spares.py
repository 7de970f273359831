"""GPUs that are opened ahead of demand, so that a bind need not wait for a reservation pod to start."""

from collections.abc import Callable

from extender.binding.api import Pod
from extender.binding.reservations import Reservations
from extender.core.ledger import Ledger
from extender.core.placement import RESERVATION_NEEDS
from extender.core.values import NodeState, Reservation


class Spares:
    """``number``: how many idle GPUs each node that takes shares keeps open."""

    def __init__(
        self, ledger: Ledger, *, reservations: Reservations, observe: Callable[[Pod], None], number: int
    ) -> None:
        self._ledger = ledger
        self._reservations = reservations
        self._observe = observe
        self._number = number

    def kept(self, node: str) -> set[str]:
        """Ids of the idle GPUs that stay open."""
        idle = [r for r in self._reservations.idle(node) if not (r.ended or r.closing or r.problem)]
        return {reservation.id for reservation in sorted(idle, key=_reported_first)[: self._number]}

    async def once(self) -> None:
        """Open what is missing, one GPU for each node. Raises ApiError."""
        for state in list(self._ledger.snapshot()) if self._number else ():
            if _takes_shares(state) and may_open(state) and len(self.kept(state.name)) < self._number:
                pod = await self._reservations.search(state.name, "spare")
                if pod is not None:
                    self._observe(pod)


def _reported_first(reservation: Reservation) -> tuple[bool, str]:
    return reservation.device is None, reservation.id


def _takes_shares(state: NodeState) -> bool:
    return state.inventory.share_refusal is None and state.inventory.memory_mib is not None


def may_open(state: NodeState) -> bool:
    """Whether a GPU is free there, and room for its reservation pod."""
    given_out = state.closed is None and not state.barred and state.whole_free > 0
    return given_out and all(state.free.get(resource, 0) >= need for resource, need in RESERVATION_NEEDS.items())
