"""One node, its extenders and its users: a Model (explorer.py)."""

from collections.abc import Iterator

from tests.model.answers import conflict, done
from tests.model.canonical import canonical
from tests.model.config import Config
from tests.model.extender import steps
from tests.model.mishaps import mishaps
from tests.model.requests import carried_out, lands, words
from tests.model.state import (
    ABSENT,
    DYING,
    GONE,
    LOST,
    PENDING,
    UP,
    WAITING,
    Binding,
    Delete,
    Pod,
    Put,
    Request,
    Reservation,
    Worker,
    World,
    go,
    records,
    requests,
    swap,
    with_pod,
)

Step = tuple[str, World, bool]


class Cluster:
    """What may happen, and what must never be so."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def initial(self) -> World:
        """Nobody does anything yet."""
        config = self._config
        waiting = (Pod(),) * (len(config.sizes) - len(config.bound))
        idle = (Worker(),) * config.extenders
        return World((*config.bound, *waiting), config.reservations, config.record, idle, (), config.mishaps)

    def steps(self, world: World) -> Iterator[Step]:
        """See Model."""
        for label, after, mishap in self._all(world):
            yield label, canonical(self._config, after), mishap

    def _all(self, world: World) -> Iterator[Step]:
        for index, worker in enumerate(world.workers):
            if index and worker == world.workers[index - 1]:
                continue  # Two that stand at the same place: what one does the other could do.
            for label, after in steps(self._config, world, index):
                yield label, after, False
            if worker.request is not None:
                yield self._answered(world, index, worker, worker.request)
        for request in world.late:
            yield f"late: {words(request)}", carried_out(self._config, world, request), True
        yield from self._pods(world)
        if world.mishaps:
            for label, after in mishaps(self._config, world._replace(mishaps=world.mishaps - 1)):
                yield label, after, True

    def _answered(self, world: World, index: int, worker: Worker, request: Request) -> Step:
        """The server carries the request out, or refuses, and the extender hears it."""
        if not lands(self._config, world, request):
            return f"refused: {words(request)}", go(world, index, self._refused(world, worker, request)), False
        after = carried_out(self._config, go(world, index, worker._replace(request=None)), request)
        return words(request), go(after, index, done(self._config, after, after.workers[index])), False

    def _refused(self, world: World, worker: Worker, request: Request) -> Worker:
        if isinstance(request, Put):
            return worker._replace(request=None, unfenced=None)
        return conflict(self._config, world, worker) if isinstance(request, Binding) else Worker()

    # --- pods of users and of reservations --------------------------------------------------------------------

    def _pods(self, world: World) -> Iterator[Step]:
        for index, pod in enumerate(world.pods):
            if pod.state == DYING:
                yield f"pod {index} is gone", with_pod(world, index, Pod(GONE)), False
        held = {r.device for r in world.reservations if r.state == UP}
        for slot, reservation in enumerate(world.reservations):
            if reservation.state == PENDING:
                for device in sorted(set(range(self._config.devices)) - held):
                    after = swap(world.reservations, slot, Reservation(UP, device))
                    yield f"reservation {slot} reports device {device}", world._replace(reservations=after), False
        if "open" in self._config.jobs and any(pod.state == WAITING for pod in world.pods):
            yield from self._opened(world)

    def _opened(self, world: World) -> Iterator[Step]:
        free = [slot for slot, r in enumerate(world.reservations) if r.state == ABSENT or self._is_free(world, slot)]
        for slot in free[:1]:
            # Its DELETE carries a UID, and never meets another pod.
            late = tuple(r for r in world.late if not (isinstance(r, Delete) and r.slot == slot))
            created = swap(world.reservations, slot, Reservation(PENDING))
            yield f"reservation {slot} is created", world._replace(reservations=created, late=late), False

    def _is_free(self, world: World, slot: int) -> bool:
        """Whether the name of a reservation pod that is gone may stand for a new one: nothing refers to it."""
        if world.reservations[slot].state not in (GONE, LOST):
            return False
        return not self._config.protocol.names_are_new or slot not in _named(world)

    # --- what must never be so --------------------------------------------------------------------------------

    def broken(self, world: World) -> str | None:
        """See Model."""
        for device, mib in enumerate(self._used(world)):
            if mib > self._config.card:
                return f"{mib} of {self._config.card} MiB of device {device} are given out"
            held = any(r.state in (UP, LOST) and r.device == device for r in world.reservations)
            if mib and not held:
                return f"a pod runs on device {device}, which nobody reserves"
        return None

    def is_settled(self, world: World) -> bool:
        """See Model: no pod waits, or no room is left for any that does."""
        free = [self._config.card - mib for mib in self._used(world)]
        waiting = [self._config.sizes[index] for index, pod in enumerate(world.pods) if pod.state == WAITING]
        return not any(sum(room >= mib for room in free) >= number for mib, number in waiting)

    def _used(self, world: World) -> list[int]:
        """MiB of each device that pods run on, by the pods alone."""
        used = [0] * self._config.devices
        for pod, (mib, _) in zip(world.pods, self._config.sizes, strict=True):
            for _, device in pod.placement:
                used[device] += mib
        return used


def _named(world: World) -> set[int]:
    """Slots that anything refers to."""
    placed = [pod.placement for pod in world.pods] + [worker.placement for worker in world.workers]
    placed += [request.placement for request in requests(world) if isinstance(request, Binding)]
    named = {slot for placement in placed for slot, _ in placement}
    named |= {slot for record in records(world) for slot, gpu in enumerate(record) if gpu}
    named |= {request.slot for request in requests(world) if isinstance(request, Delete)}
    return named | {worker.slot for worker in world.workers}
