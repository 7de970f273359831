"""Step 3 of a bind: the pod's entries, judged on the version of the record that they are to replace."""

from collections.abc import Iterator
from itertools import combinations, permutations

from tests.model.config import Config
from tests.model.rules import entry, missing, tries, without_pod
from tests.model.state import (
    GONE,
    LOST,
    OPEN,
    OVERTAKE,
    UP,
    Binding,
    Gpu,
    Placement,
    Record,
    Worker,
    World,
    records,
    requests,
    swap,
)

#: In words, the record as it is to be or None, and the extender afterwards.
Change = tuple[str, Record | None, Worker]


def entries(config: Config, world: World, worker: Worker, record: Record) -> Iterator[Change]:
    """What an extender that has read the pod and the record may do next."""
    others = tries(record, worker.pod) - {*worker.dead, worker.attempt}
    if others and config.protocol.other_try_is_fenced:
        dead = tuple(sorted({*worker.dead, *others}))
        yield f"pod {worker.pod} has another try", None, worker._replace(step=OVERTAKE, dead=dead)
    elif worker.attempt and is_written(world, worker):
        yield f"try {worker.attempt} of pod {worker.pod} stands already", record, worker
    else:
        yield from _placed(config, world, worker, record)


def is_written(world: World, worker: Worker) -> bool:
    """Whether all that the try needs stands in the record."""
    if world.record is None:
        return False
    return entry(world.record, worker.pod, worker.attempt) == tuple(sorted(worker.placement))


def is_believed_up(config: Config, state: str) -> bool:
    """Whether a watch that may lag shows the reservation pod up."""
    return state == UP or (config.lag and state in (GONE, LOST))


def _placed(config: Config, world: World, worker: Worker, record: Record) -> Iterator[Change]:
    attempt = worker.attempt or _new_try(world, worker.pod)
    refused = True
    for placement in [worker.placement] if worker.placement else _placements(config, world, worker.pod):
        asking = worker._replace(placement=placement, attempt=attempt)
        changed = _taken(config, world, record, asking)
        if changed is not None:
            refused = False
            on = ", ".join(f"GPU {slot}" for slot, _ in placement)
            yield f"pod {asking.pod}, try {attempt}, is to be on {on}", changed, asking
    waits = worker.attempt and entry(record, worker.pod, worker.attempt)
    if refused and not waits:
        yield f"pod {worker.pod} does not fit", None, Worker()


def _placements(config: Config, world: World, pod: int) -> Iterator[Placement]:
    up = [(slot, r.device) for slot, r in enumerate(world.reservations) if is_believed_up(config, r.state)]
    # In one order, for one PUT has them all; one PUT for each device may come in any.
    orders = combinations if config.protocol.all_devices_at_once else permutations
    for chosen in orders(up, config.sizes[pod][1]):
        if len({device for _, device in chosen}) == len(chosen):
            yield chosen


def _taken(config: Config, world: World, record: Record, worker: Worker) -> Record | None:
    placement = worker.placement
    if not config.protocol.all_devices_at_once:
        placement = placement[: len(entry(record, worker.pod, worker.attempt)) + 1]
    left = without_pod(record, worker.pod)
    for slot, device in placement:
        gpu = _entered(config, world, left, slot, device)
        if gpu is None or not _has_room(config, world, record, gpu, worker.pod):
            return None
        shares = tuple(sorted((*gpu.shares, (worker.pod, worker.attempt))))
        left = swap(left, slot, gpu._replace(shares=shares))
    return left


def _entered(config: Config, world: World, record: Record, slot: int, device: int) -> Gpu | None:
    """The record's GPU, or one that enters it; None if the share may not go there."""
    gpu, rules = record[slot], config.protocol
    alive = world.reservations[slot] == (UP, device)
    if not (alive or config.lag):
        return None
    if gpu is None:
        twice = any(other and other.device == device for other in record)
        refused = (rules.entering_is_read and not alive) or (rules.device_occurs_once and twice)
        return None if refused else Gpu(device)
    if rules.id_is_one_device and gpu.device != device:
        return None
    return None if rules.closing_gains_nothing and gpu.state != OPEN else gpu


def _has_room(config: Config, world: World, record: Record, gpu: Gpu, pod: int) -> bool:
    used = sum(config.sizes[owner][0] for owner, _ in gpu.shares) + missing(config, world, record, gpu.device)
    return not config.protocol.room_is_judged or used + config.sizes[pod][0] <= config.card


def _new_try(world: World, pod: int) -> int:
    """The smallest number that nothing refers to."""
    used = {world.pods[pod].attempt}.union(*(tries(record, pod) for record in records(world)))
    for worker in world.workers:
        used |= {worker.attempt, *worker.dead} if worker.pod == pod else set()
    used |= {request.attempt for request in requests(world) if isinstance(request, Binding) and request.pod == pod}
    return next(number for number in range(1, 99) if number not in used)
