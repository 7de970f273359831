"""Whole GPUs that are short only because idle shared GPUs hold the cards."""

from collections.abc import Collection, Iterable, Mapping

from extender.core.ledger import Ledger
from extender.core.placement import Placement, fit
from extender.core.requests import GpuRequest


def nodes_to_empty(
    ledger: Ledger, idle: Mapping[str, Collection[str]], waiting: Iterable[GpuRequest]
) -> dict[str, GpuRequest]:
    """For each request for whole GPUs one node that would take it once its idle GPUs were closed, and does not now.

    ``idle``: node → UIDs of the reservation pods of its idle GPUs. Of several nodes, the one that gives up fewest.
    That another node has room already is no reason to wait: kube-scheduler has tried that one in vain.
    """
    chosen: dict[str, GpuRequest] = {}
    for request in waiting:
        if request.whole_gpus:
            nodes = [node for node in idle if node not in chosen and _would_fit(ledger, node, idle[node], request)]
            if nodes:
                chosen[min(nodes, key=lambda node: (len(idle[node]), node))] = request
    return chosen


def _would_fit(ledger: Ledger, node: str, reservations: Collection[str], request: GpuRequest) -> bool:
    now, then = ledger.state(node), ledger.without(node, reservations)
    if now is None or then is None or isinstance(fit(now, request), Placement):
        return False
    return isinstance(fit(then, request), Placement)
