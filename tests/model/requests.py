"""What the API server does with a request when it comes to it."""

from tests.model.config import Config
from tests.model.state import (
    BOUND,
    CREATE,
    CURRENT,
    GONE,
    PENDING,
    STALE,
    UP,
    WAITING,
    Binding,
    Pod,
    Put,
    Request,
    Reservation,
    World,
    swap,
    with_pod,
    with_record,
)


def lands(config: Config, world: World, request: Request) -> bool:
    """Whether the server would carry it out now."""
    if isinstance(request, Put):
        if request.base == CREATE:
            return world.record is None
        return world.record is not None and (request.base == CURRENT or not config.protocol.put_has_version)
    if isinstance(request, Binding):
        versioned = config.protocol.binding_has_version
        return world.pods[request.pod].state == WAITING and (request.fresh or not versioned)
    state = world.reservations[request.slot].state
    return state == PENDING or (state == UP and not request.unreported)


def may_land(config: Config, world: World, request: Request) -> bool:
    """Whether the server may carry it out now or later."""
    if isinstance(request, Put):
        return request.base != STALE or not config.protocol.put_has_version
    return lands(config, world, request)


def carried_out(config: Config, world: World, request: Request) -> World:
    """The world once the server has dealt with the request."""
    world = world._replace(late=tuple(other for other in world.late if other != request))
    if not lands(config, world, request):
        return world
    if isinstance(request, Put):
        return with_record(world, request.content)
    if isinstance(request, Binding):
        return with_pod(world, request.pod, Pod(BOUND, request.placement, request.attempt))
    state, device = world.reservations[request.slot]
    gone = Reservation(GONE, device) if state == UP else Reservation()
    return world._replace(reservations=swap(world.reservations, request.slot, gone))


def words(request: Request) -> str:
    """The request, in a trace."""
    if isinstance(request, Put):
        return f"PUT: {_content(request)}"
    if isinstance(request, Binding):
        return f"Binding of pod {request.pod}, try {request.attempt}"
    return f"DELETE of reservation {request.slot}"


def _content(put: Put) -> str:
    shown = (
        f"GPU {slot} {gpu.state}, device {gpu.device}, shares {list(gpu.shares)}"
        for slot, gpu in enumerate(put.content)
        if gpu
    )
    return "; ".join(shown) or "no GPU"
