"""A record that is missing: fence every share pod that waits, then make it from what is bound."""

from collections.abc import Iterator

from tests.model.config import Config
from tests.model.rules import with_bound
from tests.model.state import BOUND, CREATE, DYING, WAITING, Put, Record, Worker, World, go, with_pod

#: In words and the world after it, or the record that is to be created.
Remade = tuple[str, World, Put | None]


def remake(config: Config, world: World, index: int, worker: Worker) -> Iterator[Remade]:
    """What an extender does that has found no record."""
    bound = [number for number, pod in enumerate(world.pods) if pod.state in (BOUND, DYING)]
    if worker.unfenced is None and bound and config.protocol.lost_record_is_fenced:
        waiting = [number for number, pod in enumerate(world.pods) if pod.state == WAITING]
        for seen in _seen(config, waiting):
            planned = go(world, index, worker._replace(unfenced=tuple(seen)))
            yield f"the record is missing, {seen} wait", planned, None
    elif worker.unfenced:
        yield _fence(world, index, worker)
    else:
        for seen in _seen(config, bound if config.protocol.lost_record_is_remade else []):
            yield "", world, Put(_made_of(world, seen), CREATE)


def _seen(config: Config, pods: list[int]) -> Iterator[list[int]]:
    """The pods, and where only a watch shows them also those without any one of them."""
    yield pods
    if not config.protocol.lost_record_is_listed:
        for unseen in pods:
            yield [number for number in pods if number != unseen]


def _fence(world: World, index: int, worker: Worker) -> Remade:
    number, *left = worker.unfenced or ()
    world = go(world, index, worker._replace(unfenced=tuple(left)))
    if world.pods[number].state == WAITING:
        world = with_pod(world, number, world.pods[number])
    return f"pod {number} is fenced for the record", world, None


def _made_of(world: World, bound: list[int]) -> Record:
    record: Record = (None,) * len(world.reservations)
    for number in bound:
        record = with_bound(record, number, world.pods[number])
    return record
