"""One state of the model: what the API holds, where each extender stands, and which requests are on their way.

Versions are not counted. Whoever holds a version only asks whether it is still the current one, so each holder has that
as a flag, which the next write takes away. Numbers of tries and slots of reservation pods are used again once nothing
refers to them, so there are finitely many states.
"""

from typing import NamedTuple, TypeAlias, TypeVar

# A user's pod.
WAITING, BOUND, DYING, GONE, ELSEWHERE = "waiting", "bound", "dying", "gone", "elsewhere"
# A reservation pod: LOST was deleted by others, GONE by us.
ABSENT, PENDING, UP, LOST = "absent", "pending", "up", "lost"
# A GPU in the record, besides LOST.
OPEN, CLOSING = "open", "closing"
# What an extender is doing.
IDLE = "idle"
RECORD = "record"
WRITE, LOOK, OVERTAKE, SEND, FENCE, ABANDON = "write", "look", "overtake", "send", "fence", "abandon"
CLOSE, DELETE = "close", "delete"
RECONCILE, DROP, TIDY, LOSE, REPAIR = "reconcile", "drop", "tidy", "lose", "repair"
# What a PUT of the record rests on: the version that stands, an older one, or that there is none.
CURRENT, STALE, CREATE = "current", "stale", "create"

#: Slot of the reservation pod and device, for each GPU of a pod.
Placement: TypeAlias = tuple[tuple[int, int], ...]


class Pod(NamedTuple):
    """A user's pod in the API."""

    state: str = WAITING
    placement: Placement = ()
    attempt: int = 0
    #: Only where the fence's value is the same each time: it has been written once.
    fenced: bool = False


class Reservation(NamedTuple):
    """A reservation pod in the API; the device is remembered once it has been reported."""

    state: str = ABSENT
    device: int = -1


class Gpu(NamedTuple):
    """A GPU in the record: device, state, and (pod, try) of each share."""

    device: int
    state: str = OPEN
    shares: tuple[tuple[int, int], ...] = ()


Record: TypeAlias = tuple[Gpu | None, ...]


class Put(NamedTuple):
    """A PUT or POST of the record."""

    content: Record
    base: str


class Binding(NamedTuple):
    """A POST of a Binding; ``fresh``: the pod is still at the version that it carries."""

    pod: int
    placement: Placement
    attempt: int
    fresh: bool


class Delete(NamedTuple):
    """A DELETE of a reservation pod; ``unreported``: only if it still has no device."""

    slot: int
    unreported: bool
    kind: str = "delete"


Request: TypeAlias = Put | Binding | Delete


class Worker(NamedTuple):
    """One extender process and the one thing that it is doing."""

    step: str = IDLE
    pod: int = -1
    placement: Placement = ()
    attempt: int = 0
    #: Tries of the pod whose Bindings are known to be dead.
    dead: tuple[int, ...] = ()
    #: The pod is still at the version that this extender knows.
    fresh: bool = False
    slot: int = -1
    request: Request | None = None
    #: While the record is missing: pods that it has yet to fence; None: not begun.
    unfenced: tuple[int, ...] | None = None


class World(NamedTuple):
    """Everything."""

    pods: tuple[Pod, ...]
    reservations: tuple[Reservation, ...]
    #: None: somebody has deleted it, or nobody has made it yet.
    record: Record | None
    workers: tuple[Worker, ...]
    #: Requests whose senders have given up or died: they land at any time, or never.
    late: tuple[Request, ...]
    #: How much may still go wrong.
    mishaps: int
    #: Somebody has deleted the record once.
    deleted: bool = False


def swap(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    """The tuple with another item at that place."""
    return (*items[:index], item, *items[index + 1 :])


def go(world: World, index: int, worker: Worker) -> World:
    """The world with that extender standing there."""
    return world._replace(workers=swap(world.workers, index, worker))


def with_pod(world: World, index: int, pod: Pod) -> World:
    """The world after a write to that pod: whoever knows an older version has a stale one now."""
    workers = tuple(
        worker._replace(fresh=worker.fresh and worker.pod != index, request=_aged(worker.request, index))
        for worker in world.workers
    )
    late = tuple(_aged(request, index) for request in world.late)
    return world._replace(pods=swap(world.pods, index, pod), workers=workers, late=late)


def with_record(world: World, record: Record | None) -> World:
    """The world after a write of the record."""
    workers = tuple(
        worker._replace(request=_outdated(worker.request)) if isinstance(worker.request, Put) else worker
        for worker in world.workers
    )
    late = tuple(_outdated(request) if isinstance(request, Put) else request for request in world.late)
    return world._replace(record=record, workers=workers, late=late)


_Maybe = TypeVar("_Maybe", bound="Request | None")


def _aged(request: _Maybe, pod: int) -> _Maybe:
    if isinstance(request, Binding) and request.pod == pod:
        return request._replace(fresh=False)
    return request


def _outdated(put: Put) -> Put:
    return put._replace(base=STALE) if put.base == CURRENT else put


def requests(world: World) -> list[Request]:
    """Everything that is on its way, whether or not somebody waits for the answer."""
    return [*(worker.request for worker in world.workers if worker.request is not None), *world.late]


def records(world: World) -> list[Record]:
    """The record, and what it may become."""
    puts = [request.content for request in requests(world) if isinstance(request, Put)]
    return puts if world.record is None else [world.record, *puts]
