"""How the annotations of a pod go together: the rules that refuse it, in the order in which they speak."""

from typing import NamedTuple

from extender.core.names import (
    COMPUTE_MODES,
    CONTAINER_NAME,
    GPU_FRACTION,
    GPU_MEMORY,
    NUM_DEVICES,
    TIME_SLICING,
)
from extender.core.requests.dialects import Said, Wish
from extender.core.requests.quantity import parse_quantity
from extender.core.requests.quote import plain, quote


class Containers(NamedTuple):
    """The names in a pod's spec, in its order."""

    #: Init containers first.
    all: tuple[str, ...]
    #: The ordinary ones alone.
    app: tuple[str, ...]


def compute_mode(wish: Wish, container: str) -> str:
    """The compute mode of a container that has a share."""
    said = wish.modes.get(container)
    return said.value if said else TIME_SLICING


def check(wish: Wish, containers: Containers, gpus: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """The containers that see the share, init containers first; empty where the wish asks for no share.

    ``gpus``: the GPU resources of which the pod asks for more than none. Raises ``InputError`` with the
    sentence of the first rule that is broken.
    """
    if wish.sizes:
        return _check_share(wish, containers, gpus)
    for said in (*_present(wish, NUM_DEVICES, CONTAINER_NAME), *wish.modes.values()):
        raise said.but("the pod asks for no GPU share")
    return ()


def _check_share(wish: Wish, containers: Containers, gpus: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    shared = _sharing(wish, containers)
    _refuse_two_sizes(wish)
    _refuse_modes_without_share(wish, containers, shared)
    _refuse_unknown_containers(wish, containers, shared)
    if gpus:
        raise wish.sizes[0].but(f"must not stand together with the GPU resource {plain(gpus[0][0])}")
    _refuse_modes(wish, shared)
    _refuse_requests_above_limits(wish)
    return shared


def _sharing(wish: Wish, containers: Containers) -> tuple[str, ...]:
    if wish.requests or wish.limits:
        named = wish.requests.keys() | wish.limits.keys()
    elif CONTAINER_NAME in wish.pod_level:
        named = {wish.pod_level[CONTAINER_NAME].value}
    else:
        named = set(containers.app[:1])
    return tuple(dict.fromkeys(name for name in containers.all if name in named))


def _refuse_two_sizes(wish: Wish) -> None:
    first, *more = wish.sizes
    for other in more:
        # Request and limit of the per-container dialect belong together.
        if first.key in (GPU_FRACTION, GPU_MEMORY):
            raise other.but(f"must not stand together with {first.key}")


def _refuse_modes_without_share(wish: Wish, containers: Containers, shared: tuple[str, ...]) -> None:
    for container, said in wish.modes.items():
        # Without any container that sees the share, the name of that one is what is wrong: the next rule.
        if shared and container in containers.all and container not in shared:
            raise said.but("that container has no GPU share")


def _refuse_unknown_containers(wish: Wish, containers: Containers, shared: tuple[str, ...]) -> None:
    for said in _present(wish, CONTAINER_NAME):
        if said.value not in containers.all:
            raise said.but("the pod has no such container")
    for kind in (wish.requests, wish.limits, wish.modes):
        for container, said in kind.items():
            if container not in containers.all:
                raise said.but("the pod has no such container")
    for said in _present(wish, CONTAINER_NAME):
        if said.value not in shared:
            raise said.but("no annotation gives GPU memory to that container")
    if not shared:
        raise wish.sizes[0].but("the pod has no container")


def _refuse_modes(wish: Wish, shared: tuple[str, ...]) -> None:
    for said in wish.modes.values():
        if said.value not in COMPUTE_MODES:
            raise said.but(f"must be one of {', '.join(COMPUTE_MODES)}")
    if len({compute_mode(wish, container) for container in shared}) > 1:
        odd = next(said for said in wish.modes.values() if said.value != TIME_SLICING)
        raise odd.but("all containers of a pod that share a GPU must have the same compute mode")


def _refuse_requests_above_limits(wish: Wish) -> None:
    for container, request in wish.requests.items():
        limit = wish.limits.get(container, request)
        if parse_quantity(request.value) > parse_quantity(limit.value):
            raise request.but(f"must not be above the limit {quote(limit.value)}")


def _present(wish: Wish, *keys: str) -> list[Said]:
    return [wish.pod_level[key] for key in keys if key in wish.pod_level]
