"""The ledger against what the API shows, and what the API shows against itself: one difference per line."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extender.core import names
from extender.core.accounting import holds_device
from extender.core.ledger import Ledger
from extender.core.podreader import (
    annotations_of,
    is_in_reservations,
    is_reservation,
    namespaced_name,
    node_of,
    pod_on_node,
    uid_of,
)
from extender.core.remembered import by_device
from extender.core.requests import GpuRequest
from extender.core.values import GpuState, NodeState, PodOnNode, SharedGpu, ShareOnGpu

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be."""

    #: A constant for the metric.
    kind: str
    #: What it is about: a node, ``namespace/pod`` or a shared GPU's id.
    object: str
    text: str

    def as_json(self) -> dict[str, str]:
        """As ``/check`` shows it."""
        return {"kind": self.kind, "object": self.object, "text": self.text}


def differences(ledger: Ledger, pods: Collection[Object]) -> list[Difference]:
    """All of them, in the order pods, then nodes."""
    return [found for step in steps(ledger, lambda: pods, lambda pod: pod) for found in step]


def steps(
    ledger: Ledger, pods: Callable[[], Iterable[Object]], now: Callable[[Object], Object | None]
) -> Iterator[Sequence[Difference]]:
    """The same, one object at a time: between two steps ledger and pods may change together.

    ``now``: the pod of that name as it stands at this moment, or None.
    """
    for listed in pods():
        pod = now(listed)
        yield () if pod is None or is_reservation(pod) else tuple(of_pod(ledger, pod))
    yield tuple(_redundant(ledger, pods()))
    for state in ledger.snapshot():
        yield tuple(of_node(ledger, state))


# --- ledger against API -----------------------------------------------------------------------------------


def of_pod(ledger: Ledger, pod: Object) -> Iterator[Difference]:
    """Of a user's pod."""
    where = "/".join(namespaced_name(pod))
    if is_in_reservations(pod) and annotations_of(pod).get(names.DEVICE):
        yield Difference("forged", where, "reports a device but asks for none")
    shown = pod_on_node(pod)
    if shown is None:
        if node_of(pod) is None and annotations_of(pod).get(names.SHARED_GPUS):
            yield Difference("forged", where, "has placement annotations but is bound to no node")
        return
    held = ledger.pod(shown.uid)
    if held is None:
        yield Difference("missed", where, f"is bound to {shown.node} but not in the ledger")
    elif (held.node, held.shares) != (shown.node, shown.shares):
        text = f"holds {_listed(shown.shares)} by the API, {_listed(held.shares)} by the ledger"
        yield Difference("different", where, text)
    state = ledger.state(shown.node)
    if state is None:
        yield Difference("unknown-node", where, f"is bound to {shown.node}, which does not exist")
    if shown.undecodable is not None:
        yield Difference("unreadable", where, shown.undecodable)
    else:
        yield from _against_record(ledger, where, shown, state)
    bound_with = bool(held and held.shares) or ledger.entry(shown.node, shown.uid) is not None
    yield from _against_request(where, pod, shown, state, bound_with=bound_with)


def _against_record(ledger: Ledger, where: str, shown: PodOnNode, state: NodeState | None) -> Iterator[Difference]:
    entry = ledger.entry(shown.node, shown.uid)
    if entry is None and not (shown.shares and _belongs_there(ledger, shown, state)):
        return
    written = entry.shares if entry is not None else ()
    if by_device(written) != by_device(shown.shares):
        text = f"holds {_listed(shown.shares)} by the API, {_listed(written)} by the node record"
        yield Difference("record", where, text)


def _belongs_there(ledger: Ledger, shown: PodOnNode, state: NodeState | None) -> bool:
    """Whether the record should name the pod: what exceeds its GPU, or has none, stays out."""
    if state is None or not ledger.has_record(shown.node) or any(e.undecodable for e in ledger.recorded(shown.node)):
        return False
    gpus = {gpu.uuid: gpu for gpu in state.gpus if gpu.state is GpuState.READY and gpu.used_mib <= gpu.memory_mib}
    return all(share.uuid in gpus for share in shown.shares)


def _against_request(
    where: str, pod: Object, shown: PodOnNode, state: NodeState | None, *, bound_with: bool
) -> Iterator[Difference]:
    request = GpuRequest.from_pod(pod)
    if not isinstance(request, GpuRequest) or shown.undecodable is not None:
        return
    share = request.share
    if share is None:
        if shown.shares:
            yield Difference("unasked", where, f"holds {_listed(shown.shares)} but asks for no share")
    elif not (shown.shares or bound_with):
        yield Difference("bypassed", where, "asks for a share but was bound without one")
    elif shown.shares and len(shown.shares) != share.devices:
        yield Difference("size", where, f"asks for {share.devices} devices, holds {len(shown.shares)}")
    elif shown.shares and state is not None:
        memory = {gpu.id: gpu.memory_mib for gpu in state.gpus}
        for on in shown.shares:
            asked = share.mib_of(memory.get(on.gpu_id) or state.inventory.memory_mib or 0)
            if on.mib != asked:
                yield Difference("size", where, f"asks for {asked} MiB on {on.gpu_id}, holds {on.mib} MiB")


def _redundant(ledger: Ledger, pods: Iterable[Object]) -> Iterator[Difference]:
    bound = {uid_of(pod) for pod in pods if node_of(pod) is not None}
    for state in ledger.snapshot():
        for pod in ledger.pods(state.name):
            if pod.uid not in bound:
                where = f"{pod.namespace}/{pod.name}"
                yield Difference("redundant", where, f"is in the ledger on {pod.node} ({pod.state}) but not bound")


# --- the API against itself -------------------------------------------------------------------------------


def of_node(ledger: Ledger, state: NodeState) -> Iterator[Difference]:
    """Of a node, its reservation pods and its record."""
    for gpu in state.gpus:
        yield from _gpu(gpu)
    for entry in ledger.recorded(state.name):
        if entry.undecodable is not None:
            yield Difference("unreadable", state.name, entry.undecodable)
    reservations = [r for r in ledger.reservations(state.name) if holds_device(r, state.node)]
    devices = Counter(r.device for r in reservations if r.device is not None)
    for device, count in devices.items():
        if count > 1:
            yield Difference("device-twice", state.name, f"{count} reservation pods report device {device}")
    for reservation in reservations:
        if reservation.undecodable is not None:
            yield Difference("unreadable", reservation.id, reservation.undecodable)
    lost = sum(gpu.state is GpuState.LOST for gpu in state.gpus)
    taken = state.whole_held + len(state.gpus) - lost
    has = state.inventory.whole_gpus
    if taken > has and state.inventory.unusable is None:
        text = f"{state.whole_held} whole GPUs and {len(state.gpus) - lost} shared GPUs are held, it has {has}"
        yield Difference("overcommitted", state.name, text)


def _gpu(gpu: SharedGpu) -> Iterator[Difference]:
    if gpu.state is GpuState.LOST:
        pods = ", ".join(f"{share.namespace}/{share.pod}" for share in gpu.shares)
        yield Difference("lost", gpu.id, f"no reservation pod holds device {gpu.uuid}, used by {pods}")
    if gpu.used_mib > gpu.memory_mib:
        yield Difference("overcommitted", gpu.id, f"shares add up to {gpu.used_mib} of {gpu.memory_mib} MiB")
    if not gpu.usable:
        yield Difference("unusable", gpu.id, "its report is in doubt, or pods of different compute mode are on it")


def _listed(shares: Sequence[ShareOnGpu]) -> str:
    return ", ".join(f"{share.mib} MiB on {share.gpu_id} ({share.uuid})" for share in shares) or "no share"
