"""What an extender does upon an answer, and upon none."""

from tests.model.config import Config
from tests.model.entries import is_written
from tests.model.state import (
    ABANDON,
    BOUND,
    CLOSE,
    DELETE,
    DROP,
    DYING,
    FENCE,
    LOOK,
    OVERTAKE,
    RECONCILE,
    RECORD,
    SEND,
    WAITING,
    WRITE,
    Binding,
    Delete,
    Pod,
    Worker,
    World,
    go,
    with_pod,
)

Step = tuple[str, World]


def done(config: Config, world: World, worker: Worker) -> Worker:
    """The extender once its request has been carried out, or there was nothing to write."""
    if worker.step == WRITE:
        ready = is_written(world, worker) or not config.protocol.entry_before_binding
        return sending(worker) if ready else worker._replace(request=None)
    if worker.step == SEND and not config.protocol.entry_before_binding:
        return worker._replace(step=RECORD)
    if worker.step == CLOSE:
        return Worker(DELETE, request=Delete(worker.slot, unreported=False))
    return Worker()


def sending(worker: Worker) -> Worker:
    binding = Binding(worker.pod, worker.placement, worker.attempt, worker.fresh)
    return Worker(SEND, worker.pod, attempt=worker.attempt, request=binding)


def silence(config: Config, worker: Worker) -> Worker:
    """The extender where no answer comes."""
    if worker.step == WRITE:
        return worker._replace(step=LOOK, request=None) if config.protocol.silent_put_is_read else sending(worker)
    return worker._replace(step=FENCE, request=None) if worker.step == SEND else Worker()


def conflict(config: Config, world: World, worker: Worker) -> Worker:
    """The extender once its Binding was answered 409 and it has read the pod."""
    pod = world.pods[worker.pod]
    if not config.protocol.conflict_is_read:
        return worker._replace(step=ABANDON, request=None)
    if pod.state == WAITING:
        return Worker(WRITE, worker.pod, dead=(worker.attempt,), fresh=True)
    return _outcome(pod, worker)


def _outcome(pod: Pod, worker: Worker) -> Worker:
    """The pod does not wait any more."""
    ours = pod.state in (BOUND, DYING) and pod.attempt == worker.attempt
    return Worker() if ours else worker._replace(step=ABANDON, request=None)


def fenced(config: Config, world: World, index: int, worker: Worker) -> Step:
    """The fence lands and is answered; one that fails changes nothing, and is tried again."""
    pod, rules = world.pods[worker.pod], config.protocol
    asked = {FENCE: rules.silence_is_fenced, RECONCILE: rules.dropping_is_fenced}.get(worker.step, True)
    if pod.state == WAITING and asked and not pod.fenced:
        world = with_pod(world, worker.pod, pod._replace(fenced=not rules.fence_is_new))
    return f"pod {worker.pod} is fenced: it is {pod.state}", go(world, index, _after_fence(config, pod, worker))


def _after_fence(config: Config, pod: Pod, worker: Worker) -> Worker:
    if worker.step == FENCE and pod.state != WAITING:
        return _outcome(pod, worker)
    if pod.state != WAITING:
        return Worker()
    if worker.step != OVERTAKE:
        return worker._replace(step=DROP if worker.step == RECONCILE else ABANDON)
    if config.protocol.try_has_one_version and worker.attempt:
        return Worker(WRITE, worker.pod, dead=(*worker.dead, worker.attempt), fresh=True)
    return worker._replace(step=WRITE, fresh=True)
