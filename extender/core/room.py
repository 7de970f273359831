"""Whether a node offers something that it did not offer before."""

from itertools import zip_longest

from extender.core.accounting import RESERVATION_LOST
from extender.core.names import COMPUTE_MODES
from extender.core.values import NodeState


def has_more(before: NodeState | None, now: NodeState) -> bool:
    """Whether a request may fit now that did not fit before.

    Taking room is no reason, nor is taking a whole GPU into use for shares: what is left of it needs no reservation
    pod any more, but a Binding follows, and kube-scheduler tries everybody again after that.
    """
    if before is None or before.inventory != now.inventory:
        return True
    if now.closed == RESERVATION_LOST:
        return False
    # Closed for another reason, it takes pods that ask for no GPU again.
    if before.closed not in (None, now.closed) or now.whole_free > before.whole_free or before.barred > now.barred:
        return True
    if any(amount > before.free.get(resource, 0) for resource, amount in now.free.items()):
        return True
    return any(
        room > earlier
        for mode in COMPUTE_MODES
        for room, earlier in zip_longest(_rooms(now, mode), _rooms(before, mode), fillvalue=0)
    )


def _rooms(state: NodeState, mode: str) -> list[int]:
    """MiB free on each GPU that takes shares of that mode, the largest first; which GPU is which does not matter."""
    shared = [gpu.free_mib for gpu in state.gpus if gpu.takes(mode)]
    return sorted([*shared, *[state.inventory.memory_mib or 0] * state.whole_free], reverse=True)
