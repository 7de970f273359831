"""Many states differ only in names, or in what can make no difference any more: one of them stands for all."""

from functools import cache

from tests.model.config import Config
from tests.model.requests import may_land
from tests.model.state import IDLE, STALE, Binding, Put, Record, Request, Worker, World, records, requests


def canonical(config: Config, world: World) -> World:
    """The one that stands for the state."""
    late = tuple(sorted((r for r in world.late if may_land(config, world, r)), key=order)) if world.late else ()
    workers = tuple(worker if worker.step == IDLE else _informed(config, worker) for worker in world.workers)
    if any(worker.dead for worker in workers):
        named = {share for record in records(world) for gpu in record if gpu for share in gpu.shares}
        workers = tuple(w._replace(dead=tuple(t for t in w.dead if (w.pod, t) in named)) for w in workers)
    if workers != world.workers or late != world.late:
        world = world._replace(workers=workers, late=late)
    return renumbered(world)


def _informed(config: Config, worker: Worker) -> Worker:
    """A PUT that has lost its race is as good as answered: 409."""
    request = worker.request
    if isinstance(request, Put) and request.base == STALE and config.protocol.put_has_version:
        return worker._replace(request=None, unfenced=None)
    return worker


@cache
def order(item: Worker | Request) -> str:
    """Extenders are alike, and so are requests on their way: which is which makes no other state."""
    return repr(item)


def renumbered(world: World) -> World:
    """The same state with extenders in one order, and each pod's tries numbered as they are met: names mean nothing."""
    workers = tuple(sorted(world.workers, key=order))
    if workers != world.workers:
        world = world._replace(workers=workers)
    names: list[dict[int, int]] = [{} for _ in world.pods]
    for pod, attempt in _tries(world):
        if attempt:
            names[pod].setdefault(attempt, len(names[pod]) + 1)
    if all(new == old for named in names for old, new in named.items()):
        return world
    return _renamed(world, {(pod, old): new for pod, named in enumerate(names) for old, new in named.items()})


def _tries(world: World) -> list[tuple[int, int]]:
    """Every (pod, try) that is named anywhere."""
    found = [share for record in records(world) for gpu in record if gpu for share in gpu.shares]
    found += [(number, pod.attempt) for number, pod in enumerate(world.pods)]
    found += [(request.pod, request.attempt) for request in requests(world) if isinstance(request, Binding)]
    return found + [(w.pod, attempt) for w in world.workers for attempt in (w.attempt, *w.dead)]


def _renamed(world: World, names: dict[tuple[int, int], int]) -> World:
    def content(record: Record) -> Record:
        return tuple(
            gpu and gpu._replace(shares=tuple(sorted((pod, names[pod, attempt]) for pod, attempt in gpu.shares)))
            for gpu in record
        )

    def sent(request: Request) -> Request:
        if isinstance(request, Put):
            return request._replace(content=content(request.content))
        if isinstance(request, Binding):
            return request._replace(attempt=names[request.pod, request.attempt])
        return request

    def stands(worker: Worker) -> Worker:
        return worker._replace(
            attempt=names.get((worker.pod, worker.attempt), 0),
            dead=tuple(sorted(names[worker.pod, attempt] for attempt in worker.dead)),
            request=worker.request and sent(worker.request),
        )

    return world._replace(
        pods=tuple(pod._replace(attempt=names.get((n, pod.attempt), 0)) for n, pod in enumerate(world.pods)),
        record=None if world.record is None else content(world.record),
        workers=tuple(sorted(map(stands, world.workers), key=order)),
        late=tuple(sorted(map(sent, world.late), key=order)),
    )
