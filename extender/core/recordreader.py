"""From a node record to what the ledger counts: room that is written down, for pods bound or not."""

from collections.abc import Sequence

from extender.core.record import CLOSING, LOST, NodeRecord
from extender.core.values import PodOnNode, Reservation, ShareOnGpu, ShareState


def recorded_pods(node: str, record: NodeRecord) -> list[PodOnNode]:
    """One holder for each pod in the record."""
    devices = {opened.gpu_id: opened.device for opened, _ in record.opened()}
    holders: dict[str, PodOnNode] = {}
    for entry in record.entries():
        namespace, _, name = entry.pod.partition("/")
        known = holders.get(entry.pod_uid)
        holders[entry.pod_uid] = PodOnNode(
            uid=entry.pod_uid,
            namespace=namespace,
            name=name,
            node=node,
            resources={},
            shares=(*(known.shares if known else ()), ShareOnGpu(entry.gpu_id, devices[entry.gpu_id], entry.mib)),
            compute_mode=entry.compute_mode,
            state=ShareState.RECORDED,
            observed=True,
            attempt=entry.attempt,
            grace=entry.grace,
        )
    return list(holders.values())


def recorded_gpus(node: str, record: NodeRecord) -> Sequence[Reservation]:
    """The record's GPUs as their reservation pods reported them."""
    return [
        Reservation(
            id=opened.gpu_id,
            node=node,
            uid=opened.reservation,
            device=opened.device,
            memory_mib=opened.mib,
            closing=state == CLOSING,
            lost=state == LOST,
        )
        for opened, state in record.opened()
    ]


def unreadable(node: str, why: str) -> PodOnNode:
    """A holder of nothing that closes the node."""
    return PodOnNode(f"record-of-{node}", "", "", node, {}, state=ShareState.RECORDED, undecodable=why)
