"""What goes wrong: requests, processes, and people who do what they may."""

from collections.abc import Iterator

from tests.model.answers import silence
from tests.model.config import Config
from tests.model.requests import words
from tests.model.rules import tries, without_pod
from tests.model.state import (
    ABANDON,
    BOUND,
    DYING,
    ELSEWHERE,
    GONE,
    IDLE,
    LOST,
    SEND,
    UP,
    WAITING,
    WRITE,
    Pod,
    Reservation,
    Worker,
    World,
    go,
    swap,
    with_pod,
    with_record,
)

Step = tuple[str, World]


def mishaps(config: Config, world: World) -> Iterator[Step]:
    """Every one that the model has, at this moment."""
    for index, worker in enumerate(world.workers):
        yield from _of_extender(config, world, index, worker)
    for index, pod in enumerate(world.pods):
        yield from _of_pod(config, world, index, pod)
    if "steal" in config.kinds:
        for slot, (state, device) in enumerate(world.reservations):
            if state == UP:
                lost = swap(world.reservations, slot, Reservation(LOST, device))
                yield f"somebody deletes reservation {slot}", world._replace(reservations=lost)
    yield from _of_record(config, world)


def _of_extender(config: Config, world: World, index: int, worker: Worker) -> Iterator[Step]:
    if "kill" in config.kinds and (worker.request is not None or worker.step not in (IDLE, WRITE)):
        yield f"an extender dies at {worker.step}", go(_later(world, worker), index, Worker())
    if worker.request is None:
        return
    if "timeout" in config.kinds:
        yield f"no answer to {words(worker.request)}", go(_later(world, worker), index, silence(config, worker))
    if "repeat" in config.kinds:
        yield f"sent twice: {words(worker.request)}", _later(world, worker)
    if "refuse" in config.kinds and worker.step == SEND:
        refused = worker._replace(step=ABANDON, request=None)
        yield f"forbidden: {words(worker.request)}", go(world, index, refused)


def _later(world: World, worker: Worker) -> World:
    """Nobody waits for the answer of the extender's request, or not of this copy."""
    if worker.request is None or worker.request in world.late:
        return world
    return world._replace(late=(*world.late, worker.request))


def _of_pod(config: Config, world: World, index: int, pod: Pod) -> Iterator[Step]:
    if "delete" in config.kinds and pod.state == BOUND:
        yield f"a user deletes pod {index}", with_pod(world, index, pod._replace(state=DYING))
    if pod.state != WAITING:
        return
    if "delete" in config.kinds:
        yield f"a user deletes pod {index}", with_pod(world, index, Pod(GONE))
    if "write" in config.kinds:
        yield f"somebody writes to pod {index}", with_pod(world, index, pod)
    if "elsewhere" in config.kinds:
        yield f"pod {index} is bound to another node", with_pod(world, index, Pod(ELSEWHERE))


def _of_record(config: Config, world: World) -> Iterator[Step]:
    if world.record is None:
        return
    if _is_deleted(config, world):
        yield "somebody deletes the record", with_record(world, None)._replace(deleted=True)
    for index, pod in enumerate(world.pods):
        if "edit-record" in config.kinds and pod.state == BOUND and tries(world.record, index):
            edited = with_record(world, without_pod(world.record, index))
            yield f"somebody takes pod {index} out of the record", edited


def _is_deleted(config: Config, world: World) -> bool:
    in_use = any(pod.state in (BOUND, DYING) for pod in world.pods)
    allowed = "delete-unused-record" in config.kinds or ("delete-record" in config.kinds and in_use)
    return allowed and (not world.deleted or "delete-record-again" in config.kinds)
