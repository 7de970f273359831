"""GPUs that are allocated through DRA (ResourceClaims), from a node's ResourceSlices.

One GPU may be listed several times: as itself, as every MIG slice that could be cut from it (dynamic MIG),
as a device for virtual machines. So memory is never summed, and GPUs are counted by what devices have in
common: UUID, PCI address or counter set.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from extender.core.fields import Json, child, children, text
from extender.core.inventory.dra_pool import DRIVER, GPU, MIG, Device, current_devices, group_slices
from extender.core.inventory.node_gpus import DRA, Inventory, Slice
from extender.core.names import MIG_RESOURCE_PREFIX

T = TypeVar("T")

__all__ = ["dra_held", "group_slices", "read_dra"]


def read_dra(slices: Sequence[Json]) -> Inventory:
    """The GPUs in one node's slices. Without slices, or with an incomplete pool, only the mode is known."""
    devices = current_devices(slices)
    if devices is None or not slices:
        return Inventory(mode=DRA, physical_gpus=None)
    gpus = _apart(devices)
    physical = _physical(devices)
    whole = sum(device.is_whole_gpu and device.healthy for device in devices)
    return Inventory(
        product=_common(gpu.product for gpu in gpus),
        mode=DRA,
        physical_gpus=physical,
        whole_gpus=whole if physical is None else min(whole, physical),
        memory_mib=_memory(gpus),
        slices=_slices(devices),
    )


def dra_held(claims: Iterable[Json], slices: Mapping[str, Sequence[Json]]) -> dict[str, int]:
    """Node name → whole GPUs that ResourceClaims hold; nodes with none are left out.

    ``slices`` is what ``group_slices`` returns. Not counted: devices that several claims may share, MIG
    slices, administrative access (it holds nothing), and devices of pools that are incomplete.
    """
    allocated = {device for claim in claims for device in _allocated(claim)}
    # A device may be listed in one pool only once; two claims on it are still one GPU.
    held = {node: len(_whole(own) & allocated) for node, own in slices.items()}
    return {node: count for node, count in held.items() if count}


def dra_holders(claims: Iterable[Json], slices: Mapping[str, Sequence[Json]]) -> dict[str, int]:
    """Node name → pods that use the whole GPUs that ``dra_held`` counts; nodes with none are left out."""
    holders: dict[str, set[str]] = {node: set() for node in slices}
    for claim in claims:
        allocated = set(_allocated(claim))
        for node, own in slices.items():
            if _whole(own) & allocated:
                users = children(child(claim, "status"), "reservedFor")
                holders[node] |= {uid for user in users if (uid := text(user, "uid")) is not None}
    return {node: len(uids) for node, uids in holders.items() if uids}


def _whole(slices: Sequence[Json]) -> set[tuple[str, str]]:
    return {(device.pool, device.name) for device in current_devices(slices) or () if device.is_whole_gpu}


def _allocated(claim: Json) -> list[tuple[str, str]]:
    results = children(child(claim, "status", "allocation", "devices"), "results")
    return [
        (text(result, "pool") or "", text(result, "device") or "")
        for result in results
        if result.get("driver") == DRIVER and not result.get("adminAccess")
    ]


def _physical(devices: Iterable[Device]) -> int | None:
    """How many GPUs the devices are views of; None where one cannot be told to be a GPU of its own."""
    gpus: list[frozenset[str]] = []
    for device in devices:
        if not device.known_type or (not device.gpu_keys and device.type != GPU):
            return None
        keys = device.gpu_keys or frozenset({f"{device.pool}/{device.name}"})
        same = [gpu for gpu in gpus if gpu & keys]
        gpus = [gpu for gpu in gpus if not gpu & keys] + [keys.union(*same)]
    return len(gpus)


def _apart(devices: Sequence[Device]) -> list[Device]:
    """The GPUs, and whatever is not just another view of one of them: slices of a GPU that is cut."""
    wholes = [device for device in devices if device.type == GPU]
    seen = frozenset[str]().union(*(whole.gpu_keys for whole in wholes))
    return wholes + [device for device in devices if device.type != GPU and not device.gpu_keys & seen]


def _memory(gpus: Sequence[Device]) -> int | None:
    """Of one whole GPU, where all have the same. Of a GPU that is cut only the product is known."""
    wholes = [gpu for gpu in gpus if gpu.type == GPU]
    if {gpu.product for gpu in gpus} - {whole.product for whole in wholes}:
        return None
    return _common(device.memory_mib for device in wholes)


def _slices(devices: Iterable[Device]) -> dict[str, Slice]:
    """MIG slices that exist, named as the device plugin would; what could be cut is not counted."""
    by_profile: dict[str, list[Device]] = {}
    for device in devices:
        if device.type == MIG and device.profile and device.uuid and not device.candidate:
            # As in the names of the device plugin's resources.
            resource = MIG_RESOURCE_PREFIX + device.profile.replace("+", ".")
            by_profile.setdefault(resource, []).append(device)
    return {
        resource: Slice(len(same), _common(device.memory_mib for device in same))
        for resource, same in sorted(by_profile.items())
    }


def _common(values: Iterable[T | None]) -> T | None:
    """The one value that all have, else None."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
