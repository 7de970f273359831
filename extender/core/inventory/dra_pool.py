"""ResourceSlices of the driver gpu.nvidia.com: which are current, and the devices in them.

A pool is described by ``resourceSliceCount`` slices of one generation; the newest generation replaces all
older ones. As long as one of its slices is missing, nobody knows what the pool has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from extender.core.errors import InvalidQuantity
from extender.core.fields import Json, child, children, text
from extender.core.inventory.gpu_labels import MIB
from extender.core.requests.quantity import parse_quantity

DRIVER: Final = "gpu.nvidia.com"
GPU: Final = "gpu"
MIG: Final = "mig"
_TYPES: Final = (GPU, MIG, "vfio")
_PCI_BUS_ID: Final = "resource.kubernetes.io/pciBusID"


@dataclass(frozen=True, slots=True)
class Device:
    """One device that a claim may be given."""

    pool: str
    name: str
    #: ``gpu``, ``mig``, ``vfio`` (for virtual machines), or what a newer driver says.
    type: str | None
    product: str | None
    profile: str | None
    uuid: str | None
    memory_mib: int | None
    #: Whatever tells which GPU this is a view of: UUID, PCI address, counter set.
    gpu_keys: frozenset[str]
    #: Several claims may get it at once, each a part of its memory.
    divisible: bool
    #: It takes from counters that other devices take from too (dynamic MIG).
    candidate: bool
    healthy: bool

    @property
    def is_whole_gpu(self) -> bool:
        """Whether a claim for it gets a GPU of its own."""
        return self.type == GPU and not self.divisible

    @property
    def known_type(self) -> bool:
        """Whether its type is one that this code knows."""
        return self.type in _TYPES


def group_slices(slices: Iterable[Json]) -> dict[str, tuple[Json, ...]]:
    """Node name → its slices of NVIDIA's GPU driver, each once. Other drivers' slices are left out."""
    found: dict[str, dict[object, Json]] = {}
    for slice_ in slices:
        node = node_of(slice_)
        if node is not None:
            key = text(child(slice_, "metadata"), "name") or id(slice_)
            found.setdefault(node, {})[key] = slice_
    return {node: tuple(named.values()) for node, named in found.items()}


def node_of(slice_: Json) -> str | None:
    """The node of a slice of NVIDIA's GPU driver; None for any other slice."""
    spec = child(slice_, "spec")
    return text(spec, "nodeName") if spec.get("driver") == DRIVER else None


def current_devices(slices: Sequence[Json]) -> tuple[Device, ...] | None:
    """The devices in one node's slices; None as long as a pool is incomplete."""
    pools: dict[str, list[Json]] = {}
    for slice_ in slices:
        if node_of(slice_) is not None:
            spec = child(slice_, "spec")
            pools.setdefault(text(child(spec, "pool"), "name") or "", []).append(spec)
    devices: list[Device] = []
    for name, specs in pools.items():
        newest = _newest(specs)
        if newest is None:
            return None
        devices += [_device(name, device) for spec in newest for device in children(spec, "devices")]
    return tuple(devices)


def _newest(specs: list[Json]) -> list[Json] | None:
    generations = [_integer(child(spec, "pool").get("generation")) for spec in specs]
    # The API drops zero values from JSON; anything else that is no number may be newer than all others.
    known = [generation for generation in generations if generation is not None]
    if len(known) < len(generations):
        return None
    newest = [s for s, generation in zip(specs, known, strict=True) if generation == max(known)]
    counts = {_integer(child(spec, "pool").get("resourceSliceCount")) for spec in newest}
    return newest if counts == {len(newest)} else None


def _integer(value: object) -> int | None:
    if value is None:
        return 0
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _device(pool: str, raw: Json) -> Device:
    # Until v1beta1 attributes and capacity were one level deeper.
    body = child(raw, "basic") or raw
    attributes = child(body, "attributes")
    counters = {text(used, "counterSet") for used in children(body, "consumesCounters")} - {None}
    uuid, parent = _string(attributes, "uuid"), _string(attributes, "parentUUID")
    pci = _string(attributes, _PCI_BUS_ID)
    kind = _string(attributes, "type")
    gpu_uuid = parent if kind == MIG else uuid
    return Device(
        pool=pool,
        name=text(raw, "name") or "",
        type=kind,
        product=_string(attributes, "productName"),
        profile=_string(attributes, "profile"),
        uuid=uuid,
        memory_mib=_memory(child(body, "capacity")),
        gpu_keys=frozenset({*(key for key in (gpu_uuid, pci) if key), *(f"{pool}/{name}" for name in counters)}),
        divisible=bool(body.get("allowMultipleAllocations")),
        candidate=bool(counters),
        healthy=not any(t.get("effect") in ("NoSchedule", "NoExecute") for t in children(body, "taints")),
    )


def _string(attributes: Json, name: str) -> str | None:
    # A name without a domain is in the driver's.
    attribute = child(attributes, name) or child(attributes, f"{DRIVER}/{name}")
    return text(attribute, "string")


def _memory(capacity: Mapping[str, object]) -> int | None:
    for name in ("memory", f"{DRIVER}/memory"):
        value = capacity.get(name)
        quantity = value.get("value") if isinstance(value, Mapping) else value
        if quantity is not None:
            return _mib(quantity)
    return None


def _mib(quantity: object) -> int | None:
    try:
        return max(0, parse_quantity(quantity) // MIB) or None
    except InvalidQuantity:
        return None
