"""The extended resources of a node that stand for NVIDIA devices, and what kind each is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extender.core.errors import InvalidQuantity
from extender.core.fields import Json, child
from extender.core.inventory.node_gpus import PASSTHROUGH, VGPU_HOST
from extender.core.names import GPU_RESOURCE, MIG_RESOURCE_PREFIX, NVIDIA_DOMAIN, SHARED_RESOURCE_SUFFIX
from extender.core.requests.quantity import parse_quantity

SHARED_GPU_RESOURCE: Final = GPU_RESOURCE + SHARED_RESOURCE_SUFFIX

# No node has that many; larger numbers would only overflow in arrays.
_MOST: Final = 10**9
# `GRID_T4-2Q`, `NVIDIA_A10-12Q`, `GRID_A100-1-5CME`: board, slices if any, GB and series.
_VGPU: Final = re.compile(r".+-[0-9]+[ABCQ](?:ME|GFX|NOGFX)*", re.ASCII)
# `GA102GL_A10`: the chip's code opens a name from pci.ids; a device that pci.ids does not know is its hex id.
_PASSTHROUGH: Final = re.compile(r"[A-Z]{2}[0-9]{2,3}[A-Z]*(?:_.*)?|(?:0x)?[0-9A-Fa-f]{4}", re.ASCII)
# Passed through beside the GPUs of an HGX board, under a name of the same form.
_SWITCH: Final = "NVSWITCH"


@dataclass(frozen=True, slots=True)
class Count:
    """Units of one resource; ``allocatable`` is never above ``capacity``."""

    capacity: int
    allocatable: int


NO_UNITS: Final = Count(0, 0)


@dataclass(frozen=True, slots=True)
class GpuResources:
    """The resources of one node, without those of capacity 0: a former name stays at 0 and proves nothing."""

    #: Of the device plugin for containers: GPUs and MIG slices, renamed ones too.
    plugin: Mapping[str, Count]
    #: All others in NVIDIA's domain; not all of them are GPUs (network cards live there too).
    others: Mapping[str, Count]
    #: A GPU resource has an amount that is no count.
    unreadable: bool = False


def gpu_resources(status: Json) -> GpuResources:
    """The resources in a node's ``status``."""
    capacity = child(status, "capacity")
    # As in the API server: a status without allocatable is one without anything held back.
    allocatable = child(status, "allocatable") if status.get("allocatable") is not None else capacity
    plugin: dict[str, Count] = {}
    others: dict[str, Count] = {}
    unreadable = False
    for name in sorted({key for key in (*capacity, *allocatable) if _is_nvidia(key)}):
        count = _count(capacity.get(name), allocatable.get(name))
        if count is None:
            unreadable = True
        elif count.capacity:
            (plugin if _is_plugin(name) else others)[name] = count
    return GpuResources(plugin, others, unreadable)


def vm_kind(resource: str) -> str | None:
    """The mode that a resource for virtual machines stands for; None if its name tells nothing."""
    name = resource.removeprefix(NVIDIA_DOMAIN)
    if _VGPU.fullmatch(name):
        return VGPU_HOST
    return PASSTHROUGH if _PASSTHROUGH.fullmatch(name) else None


def _is_nvidia(name: object) -> bool:
    return isinstance(name, str) and name.startswith(NVIDIA_DOMAIN) and _SWITCH not in name.upper()


def _is_plugin(name: str) -> bool:
    return name in (GPU_RESOURCE, SHARED_GPU_RESOURCE) or name.startswith(MIG_RESOURCE_PREFIX)


def _count(capacity: object, allocatable: object) -> Count | None:
    healthy = _amount(allocatable)
    # A hand-written node may state allocatable only, which is all that kube-scheduler reads.
    total = healthy if capacity is None else _amount(capacity)
    return None if total is None or healthy is None else Count(total, min(healthy, total))


def _amount(value: object) -> int | None:
    if value is None:
        return 0
    try:
        quantity = parse_quantity(value)
    except InvalidQuantity:
        return None
    whole = quantity.denominator == 1 and 0 <= quantity.numerator < _MOST
    return quantity.numerator if whole else None
