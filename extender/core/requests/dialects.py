"""What a pod's annotations ask for, in both dialects: each one read by itself.

How they go together is ``rules``. The sentences of both are part of the contract with admission, and must not
vary for one pod.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final, NamedTuple

from extender.core.errors import InputError, InvalidQuantity
from extender.core.names import (
    COMPUTE_MODE_SUFFIX,
    CONTAINER_NAME,
    CONTAINER_PREFIX,
    GPU_FRACTION,
    GPU_MEMORY,
    MEMORY_LIMIT_SUFFIX,
    MEMORY_REQUEST_SUFFIX,
    NUM_DEVICES,
    PLACEMENT_STRATEGY,
    SHARED_GPUS,
    STRATEGIES,
)
from extender.core.requests.pod import Json
from extender.core.requests.quantity import parse_quantity
from extender.core.requests.quote import plain, quote

MIB: Final = 2**20
_LONGEST_MEMORY: Final = 63
_LONG_EXPONENT: Final = re.compile(r"[eE][+-]?[0-9]{4}")


class Said(NamedTuple):
    """One annotation as the user wrote it; its value is text unless it is refused for that."""

    key: str
    value: str

    def but(self, rule: str) -> InputError:
        """The refusal: one sentence of annotation, value and rule."""
        return InputError(f"annotation {plain(self.key)} is {quote(self.value)} but {rule}")


class Wish(NamedTuple):
    """The annotations that concern us, each of the right form, none yet compared with another."""

    #: The fixed keys (``gpu-fraction`` and so on) that are there.
    pod_level: Mapping[str, Said]
    #: Container → annotation, in the order of the keys, for each kind of the per-container dialect.
    requests: Mapping[str, Said]
    limits: Mapping[str, Said]
    modes: Mapping[str, Said]

    #: What asks for a share, in either dialect; where there is none, the pod asks for no share.
    sizes: tuple[Said, ...]

    def limit_bytes(self, container: str) -> Fraction:
        """What the per-container dialect gives a container: its limit, or else its request, or nothing."""
        said = self.limits.get(container) or self.requests.get(container)
        return parse_quantity(said.value) if said else Fraction(0)


def ours(annotations: Json) -> Json:
    """Those that say what the pod asks for."""
    found = {key: value for key, value in annotations.items() if isinstance(key, str) and _is_ours(key)}
    if SHARED_GPUS in annotations and (GPU_FRACTION in found or GPU_MEMORY in found):
        # The pod is bound: what it has in the other dialect is what the Binding has written for the container runtime.
        return {key: value for key, value in found.items() if not key.endswith(MEMORY_LIMIT_SUFFIX)}
    return found


def read(ours: Json) -> Wish | None:
    """The wish, or None without any annotation of ours; ``InputError`` for the first one not of its form."""
    if not ours:
        return None
    pod_level = {key: _formed(key, ours[key], form) for key, form in _FORMS.items() if key in ours}
    rest = [(key, ours[key]) for key in sorted(ours) if key not in _FORMS]
    requests, limits, modes = (_by_container(rest, suffix, form) for suffix, form in _CONTAINER_FORMS.items())
    fixed = [pod_level[key] for key in (GPU_FRACTION, GPU_MEMORY) if key in pod_level]
    return Wish(pod_level, requests, limits, modes, (*fixed, *sorted((*requests.values(), *limits.values()))))


class Form(NamedTuple):
    """What a value must look like, to the program and to people."""

    accepts: Callable[[str], bool]
    rule: str


def _is_ours(key: str) -> bool:
    return key in _FORMS or key.startswith(CONTAINER_PREFIX)


def _by_container(annotations: list[tuple[str, object]], suffix: str, form: Form) -> dict[str, Said]:
    return {
        # Where prefix and suffix overlap the name is empty too: no container has it.
        key[len(CONTAINER_PREFIX) : -len(suffix)]: _formed(key, value, form)
        for key, value in annotations
        if key.endswith(suffix)
    }


def _formed(key: str, value: object, form: Form) -> Said:
    said = Said(key, value)  # type: ignore[arg-type]  # checked in the next line; a refusal quotes anything
    if not isinstance(value, str):
        raise said.but("must be text")
    if form.accepts(value):
        return said
    raise said.but(f"must be {form.rule}")


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _is_memory(text: str) -> bool:
    # The API server, which judges the same text in a policy, writes a long exponent out digit by digit.
    if len(text) > _LONGEST_MEMORY or _LONG_EXPONENT.search(text):
        return False
    try:
        return parse_quantity(text) >= MIB
    except InvalidQuantity:
        return False


_TEXT: Final = Form(lambda _: True, "text")
_MEMORY: Final = Form(_is_memory, "a quantity of at least 1Mi, such as 4Gi")

# A digit other than 0 somewhere is what makes a number of these forms positive.
_FORMS: Final = {
    GPU_FRACTION: Form(
        _matches(r"0?\.(?=[0-9]*[1-9])[0-9]{1,18}"),
        "a fraction above 0 and below 1 with at most 18 digits, such as 0.5",
    ),
    GPU_MEMORY: Form(_matches(r"(?=[0-9]*[1-9])[0-9]{1,9}"), "a whole number of MiB from 1 to 999999999, such as 4096"),
    NUM_DEVICES: Form(_matches(r"(?=[0-9]*[1-9])[0-9]{1,3}"), "a whole number from 1 to 999"),
    CONTAINER_NAME: _TEXT,
    PLACEMENT_STRATEGY: Form(STRATEGIES.__contains__, f"one of {', '.join(STRATEGIES)}"),
}
#: The annotations that speak for the whole pod.
POD_LEVEL: Final = tuple(_FORMS)
_CONTAINER_FORMS: Final = {
    MEMORY_REQUEST_SUFFIX: _MEMORY,
    MEMORY_LIMIT_SUFFIX: _MEMORY,
    COMPUTE_MODE_SUFFIX: _TEXT,
}
