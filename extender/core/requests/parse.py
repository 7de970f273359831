"""From a pod to what it asks for, or to the one sentence that refuses it.

The only parser: filter, bind, explain, the simulator and the embedded cluster all use it, and the admission
policies agree with it by test. No input makes it raise.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from cachetools import LRUCache

from extender.core.errors import InputError
from extender.core.names import (
    CPU,
    GPU_FRACTION,
    GPU_MEMORY,
    GPU_RESOURCE,
    MEMORY,
    NUM_DEVICES,
    NVIDIA_DOMAIN,
    PLACEMENT_STRATEGY,
    TIME_SLICING,
)
from extender.core.requests import dialects, rules
from extender.core.requests.dialects import Wish
from extender.core.requests.pod import Json, PodSpec, annotations, container_names, is_sidecar, read_spec
from extender.core.requests.prepared import prepared
from extender.core.requests.quantity import rounded_up
from extender.core.requests.resources import peak, requested_by

# The key under which a container's part of the share is added up.
_MIB: Final = "mib"


@dataclass(frozen=True, slots=True)
class InvalidRequest:
    """A refusal: nobody can grant what the pod asks for."""

    #: Names annotation (or container and resource), value and rule; the same at every try.
    sentence: str


@dataclass(frozen=True, slots=True)
class Share:
    """A part of one GPU, on each of ``devices`` different GPUs."""

    #: Above 0 and below 1. Exactly one of ``fraction`` and ``memory_mib`` is given.
    fraction: Fraction | None = None
    #: MiB on each device, at least 1.
    memory_mib: int | None = None
    devices: int = 1
    #: Pods of different modes never meet on one GPU.
    compute_mode: str = TIME_SLICING

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.memory_mib is None):
            raise ValueError("a share has either a fraction or an amount of memory")

    def mib_of(self, gpu_memory_mib: int) -> int:
        """MiB on each device, where a GPU has ``gpu_memory_mib``; rounded down: the parts fit the whole."""
        if self.fraction is None:
            assert self.memory_mib is not None
            return self.memory_mib
        return max(1, self.fraction.numerator * gpu_memory_mib // self.fraction.denominator)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What a pod asks for, by the rules that kube-scheduler and the annotations follow."""

    share: Share | None
    #: Resource → amount as kube-scheduler counts it, CPU in thousandths; see ``resources.requested``.
    resources: Mapping[str, int] = field(hash=False)
    #: The resources of NVIDIA's domain among them, sorted by name, every count above 0.
    gpus: tuple[tuple[str, int], ...] = ()
    #: Containers that see the share, init containers first; empty without a share.
    containers: tuple[str, ...] = ()
    #: The pod's own placement strategy; None leaves it to the service's setting.
    strategy: str | None = None
    #: MiB of each of ``containers`` on each device, in the per-container dialect; empty in the pod-level one.
    container_mib: tuple[int, ...] = ()
    #: The backends for which all of ``containers`` are prepared; see ``prepared``.
    backends: frozenset[str] = frozenset()
    #: Whether the pod has one of Kubernetes' critical priorities.
    is_critical: bool = False

    @classmethod
    def from_pod(cls, pod: object) -> "GpuRequest | InvalidRequest":
        """Read a pod as in Kubernetes' JSON; whatever it is, the answer is a request or a refusal."""
        try:
            return _read(Asked(dialects.ours(annotations(pod)), read_spec(pod)))
        except InputError as error:
            return InvalidRequest(str(error))

    @property
    def asks_for_gpu(self) -> bool:
        """Whether the pod has to do with GPUs at all."""
        return self.share is not None or bool(self.gpus)

    @property
    def whole_gpus(self) -> int:
        """Units of ``nvidia.com/gpu``: whole GPUs, where the node does not share them itself."""
        return self.resources.get(GPU_RESOURCE, 0)

    @property
    def cpu_milli(self) -> int:
        """CPU in thousandths of a core."""
        return self.resources.get(CPU, 0)

    @property
    def memory_bytes(self) -> int:
        """Main memory, not the GPU's."""
        return self.resources.get(MEMORY, 0)

    @property
    def shape(self) -> Hashable:
        """Equal for requests that placement treats alike, whatever their containers are called."""
        room = (self.cpu_milli, self.memory_bytes)
        return (self.share, self.gpus, *room, self.strategy, self.backends, self.is_critical)


class Asked(NamedTuple):
    """All of a pod that says what it asks for."""

    #: Ours alone.
    annotations: Json
    spec: PodSpec

    def text(self) -> str:
        """Equal for pods that ask for the same, as those of one Deployment do; empty where it cannot be written."""
        spec = self.spec
        containers = [(c.get("name"), c.get("resources")) for c in spec.containers]
        before = [(c.get("name"), c.get("resources"), is_sidecar(c)) for c in spec.init_containers]
        try:
            return repr((self.annotations, containers, before, spec.resources, spec.overhead))
        except (ValueError, RecursionError):  # a number or a nesting beyond what Python prints
            return ""


def _read(asked: Asked) -> GpuRequest:
    """Each text is parsed once, as long as it is remembered."""
    text = asked.text()
    known = _known.get(text)
    if known is None:
        known = _parse(asked)
        if 0 < len(text) <= _CACHED_LENGTH:
            _known[text] = known
    # Not part of the text: variables are many, and these few are quickly found.
    backends = prepared(asked.spec.init_containers + asked.spec.containers, known.containers) if known.share else None
    if backends or asked.spec.is_critical:
        return replace(known, backends=backends or frozenset(), is_critical=asked.spec.is_critical)
    return known


def _parse(asked: Asked) -> GpuRequest:
    wish = dialects.read(asked.annotations)
    spec = asked.spec
    resources = requested_by(spec)
    gpus = tuple(
        sorted([(name, count) for name, count in resources.items() if count and name.startswith(NVIDIA_DOMAIN)])
    )
    if wish is None:
        return GpuRequest(None, resources, gpus)
    app = container_names(spec.containers)
    names = rules.Containers(container_names(spec.init_containers) + app, app)
    shared = rules.check(wish, names, gpus)
    strategy = wish.pod_level.get(PLACEMENT_STRATEGY)
    share = _share(wish, spec, rules.compute_mode(wish, shared[0])) if shared else None
    parts = _parts(wish, shared) if share and (wish.requests or wish.limits) else ()
    return GpuRequest(share, resources, gpus, shared, strategy.value if strategy else None, parts)


def _share(wish: Wish, spec: PodSpec, compute_mode: str) -> Share:
    devices = int(wish.pod_level[NUM_DEVICES].value) if NUM_DEVICES in wish.pod_level else 1
    if GPU_FRACTION in wish.pod_level:
        return Share(_fraction(wish.pod_level[GPU_FRACTION].value), None, devices, compute_mode)
    if GPU_MEMORY in wish.pod_level:
        return Share(None, int(wish.pod_level[GPU_MEMORY].value), devices, compute_mode)
    mib = peak(spec, lambda container: _container_mib(wish, container))[_MIB]
    return Share(None, mib, devices, compute_mode)


def _container_mib(wish: Wish, container: Json) -> dict[str, int]:
    name = container.get("name")
    return {_MIB: _parts(wish, (name,))[0] if isinstance(name, str) else 0}


def _parts(wish: Wish, containers: tuple[str, ...]) -> tuple[int, ...]:
    return tuple([rounded_up(wish.limit_bytes(name) / dialects.MIB) for name in containers])


# Few different texts are in use, and each takes longer to read than the rest of the pod.
_fraction: Final = lru_cache(maxsize=1024)(Fraction)
# What was asked, word for word → the request.
_known: Final[LRUCache[str, GpuRequest]] = LRUCache(maxsize=1024)
_CACHED_LENGTH: Final = 4096
