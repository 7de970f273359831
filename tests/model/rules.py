"""What a record may become, as extender/core/record.py has it, and what is evidence."""

from collections.abc import Iterable

from tests.model.config import Config
from tests.model.protocol import Protocol
from tests.model.state import (
    BOUND,
    CLOSING,
    DYING,
    ELSEWHERE,
    GONE,
    LOST,
    OPEN,
    WAITING,
    Gpu,
    Placement,
    Pod,
    Record,
    Reservation,
    World,
    swap,
)


def tries(record: Record, pod: int) -> set[int]:
    """The tries of that pod's entries."""
    return {attempt for gpu in record if gpu for owner, attempt in gpu.shares if owner == pod}


def entry(record: Record, pod: int, attempt: int) -> Placement:
    """Where that try stands."""
    return tuple((slot, gpu.device) for slot, gpu in enumerate(record) if gpu and (pod, attempt) in gpu.shares)


def without(record: Record, gone: Iterable[tuple[int, int]]) -> Record:
    """Leave out these (pod, try)."""
    left = set(gone)
    return tuple(gpu and gpu._replace(shares=tuple(s for s in gpu.shares if s not in left)) for gpu in record)


def without_pod(record: Record, pod: int) -> Record:
    """Leave out every entry of the pod."""
    return without(record, [(pod, attempt) for attempt in tries(record, pod)])


def is_dead(protocol: Protocol, pod: Pod) -> bool:
    """Whether the pod's entries hold nothing any more, as an extender that has seen everything knows."""
    if pod.state in (GONE, ELSEWHERE):
        return True
    if pod.state == WAITING:
        return not protocol.gone_is_shown
    if pod.state == DYING and not protocol.end_is_shown:
        return True
    return not protocol.bound_stays


def tidy(protocol: Protocol, world: World, record: Record) -> Record:
    """Leave out entries that hold nothing, and GPUs whose reservation pods are gone."""
    dead = [s for gpu in record if gpu for s in gpu.shares if is_dead(protocol, world.pods[s[0]])]
    left = without(record, dead)
    return tuple(
        None if gpu and _has_left(protocol, gpu, reservation) else gpu
        for gpu, reservation in zip(left, world.reservations, strict=True)
    )


def _has_left(protocol: Protocol, gpu: Gpu, reservation: Reservation) -> bool:
    ended = reservation.state in (GONE, LOST) and not gpu.shares
    return ended and (gpu.state == CLOSING or protocol.idle_loss_leaves)


def missing(config: Config, world: World, record: Record, device: int) -> int:
    """MiB of a device that bound pods hold without standing in the record; a watch that lags has shown none of them."""
    if config.lag or not config.protocol.missing_pods_count:
        return 0
    return sum(
        config.sizes[index][0]
        for index, pod in enumerate(world.pods)
        if pod.state in (BOUND, DYING) and not tries(record, index) and device in dict(pod.placement).values()
    )


def closed(protocol: Protocol, record: Record, slot: int, device: int) -> Record | None:
    """The GPU takes no share any more; None where it must stay open."""
    gpu = record[slot]
    if any(other and other.device == device for at, other in enumerate(record) if at != slot):
        return None if protocol.held_elsewhere_stays else record
    if gpu is None and not protocol.unrecorded_is_closed:
        return record
    if gpu is not None and gpu.shares:
        return None
    return swap(record, slot, Gpu(device if gpu is None else gpu.device, CLOSING))


def with_bound(record: Record, number: int, pod: Pod) -> Record:
    """The record with what a bound pod holds, whatever else there is."""
    for slot, device in pod.placement:
        gpu = record[slot] or Gpu(device)
        record = swap(record, slot, gpu._replace(shares=tuple(sorted((*gpu.shares, (number, pod.attempt))))))
    return record


def repaired(record: Record, lost: int, by: int) -> Record:
    """The GPU in slot ``by`` takes the place of the lost one, shares and all."""
    gpu = record[lost]
    assert gpu is not None
    return swap(swap(record, lost, None), by, Gpu(gpu.device, OPEN, gpu.shares))
