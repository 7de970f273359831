"""What an extender begins when it has nothing to do."""

from collections.abc import Iterator

from tests.model.config import Config
from tests.model.entries import is_believed_up
from tests.model.rules import is_dead, tidy
from tests.model.state import (
    CLOSE,
    DELETE,
    LOSE,
    LOST,
    OPEN,
    PENDING,
    RECONCILE,
    REPAIR,
    TIDY,
    UP,
    WAITING,
    WRITE,
    Delete,
    Record,
    Worker,
    World,
)

#: In words, and the extender afterwards.
Begun = tuple[str, Worker]


def jobs(config: Config, world: World) -> Iterator[Begun]:
    """Everything that may be begun now."""
    for number, pod in enumerate(world.pods):
        if pod.state == WAITING:
            yield f"a bind of pod {number} reads it", Worker(WRITE, number, fresh=True)
    if "close" in config.jobs:
        yield from _closing(config, world)
    if world.record is None:
        return
    if "reconcile" in config.jobs:
        yield from _reconciling(config, world, world.record)
    if "repair" in config.jobs:
        yield from _repairing(world, world.record)
    if tidy(config.protocol, world, world.record) != world.record:
        yield "an extender tidies the record", Worker(TIDY)


def _closing(config: Config, world: World) -> Iterator[Begun]:
    for slot, (state, _) in enumerate(world.reservations):
        idle = not (world.record and (gpu := world.record[slot]) and gpu.shares)
        if state == PENDING:
            request = Delete(slot, unreported=config.protocol.unreported_is_checked)
            yield f"a close of GPU {slot}, which has not reported", Worker(DELETE, request=request)
        elif is_believed_up(config, state) and (idle or config.lag):
            yield f"a close of GPU {slot} begins", Worker(CLOSE, slot=slot)


def _reconciling(config: Config, world: World, record: Record) -> Iterator[Begun]:
    if not config.protocol.fence_follows_reading:
        for number, pod in enumerate(world.pods):
            if pod.state == WAITING:
                yield f"the reconciler takes up pod {number}", Worker(RECONCILE, number)
        return
    for pod_number, attempt in sorted({share for gpu in record if gpu for share in gpu.shares}):
        if not is_dead(config.protocol, world.pods[pod_number]):
            label = f"the reconciler reads the entry of pod {pod_number}, try {attempt}"
            yield label, Worker(RECONCILE, pod_number, attempt=attempt)


def _repairing(world: World, record: Record) -> Iterator[Begun]:
    for slot, gpu in enumerate(record):
        if gpu is None or world.reservations[slot].state != LOST:
            continue
        if gpu.state == OPEN and gpu.shares:
            yield f"GPU {slot} is found lost", Worker(LOSE, slot=slot)
        if gpu.state == LOST and replacement(world, record, slot) is not None:
            yield f"a repair of GPU {slot} begins", Worker(REPAIR, slot=slot)


def replacement(world: World, record: Record, lost: int) -> int | None:
    """The slot of a reservation pod that holds the lost device and is not in the record."""
    device = world.reservations[lost].device
    return next((at for at, r in enumerate(world.reservations) if r == (UP, device) and record[at] is None), None)
