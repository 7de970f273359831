"""What counts where the API contradicts what it said before, or where pods and the node record contradict each other.

Admission should prevent it; the account does not rely on that. A container keeps the environment that it was started
with, and may start again at any time, so whatever a pod was shown with may be in use until the pod ends. Of two that
differ the larger share counts and the smaller GPU; nothing new is placed on a GPU whose report is in doubt.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from extender.core.values import PodOnNode, Reservation, ShareOnGpu

REPORT_CHANGED = "its report is not the one that it made first"
DISPUTED = "another reservation pod names its device"
REPORT_NOT_RECORDED = "its report is not the one that the node record has"


def still_held(known: PodOnNode, shown: PodOnNode) -> PodOnNode:
    """A bound pod that is shown again: what it was bound with counts on until it ends, besides what it says now."""
    if not known.shares:
        return shown
    shares = joined(known.shares, shown.shares)
    return shown._replace(
        shares=shares,
        compute_mode=known.compute_mode,
        attempt=known.attempt or shown.attempt,
        unserved=False,
        changed=by_device(shares) != by_device(shown.shares),
    )


def joined(first: tuple[ShareOnGpu, ...], second: tuple[ShareOnGpu, ...]) -> tuple[ShareOnGpu, ...]:
    """Of each device the larger share, in the order of ``first``."""
    if first == second:
        return first
    larger = {share.uuid or share.gpu_id: share for share in first}
    for share in second:
        device = share.uuid or share.gpu_id
        before = larger.get(device)
        if before is None or before.mib < share.mib:
            larger[device] = share
    return tuple(larger.values())


def by_device(shares: Iterable[ShareOnGpu]) -> dict[str | None, int]:
    """MiB of each device."""
    return {share.uuid: share.mib for share in shares}


def first_report(known: Reservation, shown: Reservation, opened: Iterable[Reservation]) -> Reservation:
    """A reservation pod that is shown again: an agent reports its device once, and shares were counted against that.

    Of the same device less memory is believed where the node record, ``opened``, says the same: the first report that
    this process has seen was not the first one.
    """
    if known.uid != shown.uid or known.device is None or known.memory_mib is None:
        return shown
    recorded = {(gpu.id, gpu.device, gpu.memory_mib) for gpu in opened}
    is_recorded = (shown.id, shown.device, shown.memory_mib) in recorded
    if known.device == shown.device and known.memory_mib == shown.memory_mib:
        return shown
    if is_recorded and known.device == shown.device and (shown.memory_mib or 0) < known.memory_mib:
        return shown
    return replace(shown, device=known.device, memory_mib=known.memory_mib, undecodable=REPORT_CHANGED)


def by_record(reservation: Reservation, opened: Iterable[Reservation]) -> Reservation:
    """The reservation pod as the node record knows it. A GPU that the record calls lost may be anybody's."""
    known = next((gpu for gpu in opened if gpu.id == reservation.id and not gpu.lost), None)
    foreign = known is not None and reservation.uid not in (None, known.uid)
    if foreign != reservation.foreign:
        reservation = replace(reservation, foreign=foreign)
    if known is None or foreign or reservation.uid is None:
        return reservation
    closing = reservation.closing or known.closing
    reported = (reservation.device, reservation.memory_mib)
    if reported == (known.device, known.memory_mib):
        return replace(reservation, closing=closing) if closing != reservation.closing else reservation
    sizes = [size for size in (reservation.memory_mib, known.memory_mib) if size is not None]
    return replace(
        reservation,
        device=known.device,
        memory_mib=min(sizes, default=None),
        closing=closing,
        undecodable=reservation.undecodable or REPORT_NOT_RECORDED,
    )


def in_dispute(shown: Collection[Reservation], recorded: Collection[Reservation]) -> set[str]:
    """Ids that name a device which another id names, too, but for the one of which pod and record say the same.

    ``shown``: reservation pods by their reports; ``recorded``: GPUs of the node record.
    """
    named: defaultdict[str, set[str]] = defaultdict(set)
    for each in (*shown, *recorded):
        if each.device is not None:
            named[each.device].add(each.id)
    agreed = {(each.id, each.device) for each in shown} & {(each.id, each.device) for each in recorded}
    return {id_ for device, ids in named.items() if len(ids) > 1 for id_ in ids if (id_, device) not in agreed}


def doubted(reservation: Reservation) -> Reservation:
    """One that is in dispute: it takes no new share."""
    return replace(reservation, undecodable=reservation.undecodable or DISPUTED)
