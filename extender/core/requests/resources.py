"""What kube-scheduler counts for a pod: CPU, memory and extended resources, as integers."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from extender.core.errors import InvalidQuantity
from extender.core.names import CPU, MEMORY, NVIDIA_DOMAIN
from extender.core.requests.pod import Json, PodSpec, child, is_sidecar, read_spec
from extender.core.requests.quantity import LARGEST, parse_quantity, rounded_up
from extender.core.requests.quote import plain, quote


def requested(pod: object) -> dict[str, int]:
    """Resource → amount: CPU in thousandths, everything else in base units, rounded up, at most 2^63-1.

    Slots (``pods``) are not among them. Raises ``InvalidQuantity``, naming container, resource and value, for
    what is negative or unreadable and for a part of an indivisible GPU resource; ``InputError`` for a pod of
    another shape than the API's.
    """
    return requested_by(read_spec(pod))


def requested_by(spec: PodSpec) -> dict[str, int]:
    """``requested``, of a pod whose spec has been read."""
    total = peak(spec, _asked_by_container)
    if spec.resources:
        _override(total, spec.resources)
    _add(total, _read("the pod's overhead", spec.overhead))
    # The ledger's arrays are 64 bits wide; a sum past that must stay "more than any node has".
    return {name: min(amount, LARGEST) for name, amount in total.items()}


def peak(spec: PodSpec, amounts: Callable[[Json], Mapping[str, int]]) -> dict[str, int]:
    """The most that a pod uses at any time, where each container uses ``amounts(container)``.

    Sidecars run beside everything that starts after them; other init containers run one at a time, before the
    ordinary containers.
    """
    running: dict[str, int] = {}
    for container in spec.containers:
        _add(running, amounts(container))
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for container in spec.init_containers:
        own = amounts(container)
        if is_sidecar(container):
            _add(running, own)
            _add(sidecars, own)
        else:
            beside = dict(sidecars)
            _add(beside, own)
            _raise_to(highest, beside)
    _raise_to(running, highest)
    return running


def _asked_by_container(container: Json) -> dict[str, int]:
    listed = child(container, "resources")
    if not listed:
        return {}
    who = f"container {plain(container.get('name'))}"
    amounts = _read(who, child(listed, "limits"))
    for name, amount in _read(who, child(listed, "requests")).items():
        # Extended resources cannot be overcommitted, so the API server keeps both equal; where it did not
        # look, the larger one is the safe reading.
        amounts[name] = max(amount, amounts.get(name, 0)) if "/" in name else amount
    return amounts


def _override(total: dict[str, int], resources: Json) -> None:
    """Apply ``spec.resources``: what the pod asks for as a whole goes before the sum of its containers."""
    requests = _read("the pod as a whole", child(resources, "requests"))
    limits = _read("the pod as a whole", child(resources, "limits"))
    total.update({name: amount for name, amount in requests.items() if _is_pod_level(name)})
    for name, amount in limits.items():
        # A limit stands in for the request only where no container asks for this resource either.
        if _is_pod_level(name):
            total.setdefault(name, amount)


def _is_pod_level(name: str) -> bool:
    return name in (CPU, MEMORY) or name.startswith("hugepages-")


def _read(who: str, quantities: Json) -> dict[str, int]:
    # A null is as good as absent, to Kubernetes too.
    return {name: _amount(who, name, value) for name, value in quantities.items() if value is not None}


def _amount(who: str, name: object, value: object) -> int:
    if not isinstance(name, str):
        raise InvalidQuantity(f"{who} asks for {quote(name)}, which is not the name of a resource")
    try:
        if isinstance(value, str) and len(name) + len(value) <= _CACHED_LENGTH:
            return _count_short(name, value)
        return _count(name, value)
    except InvalidQuantity as error:
        raise InvalidQuantity(f"{who} asks for {plain(name)}: {error}") from error


def _count(name: str, value: object) -> int:
    quantity = parse_quantity(value)
    if quantity.numerator < 0:
        raise InvalidQuantity(f"{quote(value)} is negative")
    if name == CPU:
        return rounded_up(quantity, 1000)
    if quantity.denominator != 1 and name.startswith(NVIDIA_DOMAIN):
        raise InvalidQuantity(f"{quote(value)} is not a whole number")
    return rounded_up(quantity)


# A cluster repeats the same few pairs of name and amount in thousands of pods.
_count_short: Final = lru_cache(maxsize=4096)(_count)
_CACHED_LENGTH: Final = 80


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: dict[str, int], least: Mapping[str, int]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, 0), amount)
