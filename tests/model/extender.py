"""One extender, step by step (docs/binding.md); what it does upon an answer is in answers.py."""

from collections.abc import Iterator

from tests.model.answers import done, fenced, sending
from tests.model.config import Config
from tests.model.entries import Change, entries, is_written
from tests.model.jobs import jobs, replacement
from tests.model.remake import remake
from tests.model.rules import closed, repaired, tidy, with_bound, without, without_pod
from tests.model.state import (
    ABANDON,
    CLOSE,
    CURRENT,
    DROP,
    FENCE,
    IDLE,
    LOOK,
    LOSE,
    LOST,
    OVERTAKE,
    RECONCILE,
    RECORD,
    REPAIR,
    TIDY,
    WRITE,
    Put,
    Record,
    Worker,
    World,
    go,
    swap,
)

Step = tuple[str, World]


def steps(config: Config, world: World, index: int) -> Iterator[Step]:
    """What the extender may do next of its own accord."""
    worker = world.workers[index]
    if worker.step == IDLE:
        for label, begun in jobs(config, world):
            yield label, go(world, index, begun)
    elif worker.step == LOOK:
        after = sending(worker) if is_written(world, worker) else Worker()
        yield f"the record is read for pod {worker.pod}, try {worker.attempt}", go(world, index, after)
    elif worker.step in (FENCE, OVERTAKE, RECONCILE):
        yield fenced(config, world, index, worker)
    elif worker.request is None:
        yield from _write(config, world, index, worker)


# --- the record ---------------------------------------------------------------------------------------------


def _write(config: Config, world: World, index: int, worker: Worker) -> Iterator[Step]:
    """Read the record and what evidence there is, and send the PUT."""
    if world.record is not None:
        yield from _judged(config, world, index, worker._replace(unfenced=None), Put(world.record, CURRENT))
        return
    for label, after, made in remake(config, world, index, worker):
        if made is None:
            yield label, after
        else:
            yield from _judged(config, world, index, worker, made)


def _judged(config: Config, world: World, index: int, worker: Worker, read: Put) -> Iterator[Step]:
    """With all the evidence there is, and with none: a process that has just begun has seen no end."""
    known = tidy(config.protocol, world, read.content)
    for evidence in (known,) if known == read.content else (known, read.content):
        for label, changed, after in _changes(config, world, worker, evidence):
            early = worker.step == WRITE and not config.protocol.entry_before_binding
            if changed is None:
                yield label, go(world, index, after)
            elif changed == world.record or early:
                yield f"{label}: nothing to write", go(world, index, done(config, world, after))
            else:
                yield label, go(world, index, after._replace(request=Put(changed, read.base)))


def _changes(config: Config, world: World, worker: Worker, record: Record) -> Iterator[Change]:
    if worker.step == WRITE:
        yield from entries(config, world, worker, record)
        return
    label, changed = _change(config, world, worker, record)
    yield label, changed, worker if changed is not None else Worker()


def _change(config: Config, world: World, worker: Worker, record: Record) -> tuple[str, Record | None]:
    """In words, and the record as it is to be; None where it must not be so."""
    pod, slot = worker.pod, worker.slot
    if worker.step == ABANDON or (worker.step == DROP and config.protocol.try_is_compared and worker.attempt):
        label = f"pod {pod}, try {worker.attempt}, is to leave the record"
        return label, without(record, [(pod, worker.attempt)])
    if worker.step == DROP:
        return f"pod {pod} is to leave the record", without_pod(record, pod)
    if worker.step == RECORD:
        return f"pod {pod} is to be in the record, now that it is bound", with_bound(record, pod, world.pods[pod])
    if worker.step == CLOSE:
        return f"GPU {slot} is to be closing", _closed(config, world, record, slot)
    if worker.step == LOSE:
        gpu = record[slot]
        return f"GPU {slot} is to be lost", gpu and swap(record, slot, gpu._replace(state=LOST))
    if worker.step == REPAIR:
        return f"GPU {slot} is to be repaired", _repaired(world, record, slot)
    assert worker.step == TIDY
    return "the record is to be tidy", record


def _closed(config: Config, world: World, record: Record, slot: int) -> Record | None:
    if not config.protocol.closing_comes_first:
        return record
    return closed(config.protocol, record, slot, world.reservations[slot].device)


def _repaired(world: World, record: Record, slot: int) -> Record | None:
    by, gpu = replacement(world, record, slot), record[slot]
    return repaired(record, slot, by) if by is not None and gpu is not None and gpu.state == LOST else None
