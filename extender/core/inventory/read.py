"""From a Node (and its ResourceSlices) to the GPUs that it has and how it shares them.

What is read, in the order in which it decides: DRA slices, devices for virtual machines, then device plugin
and feature-discovery labels, then what devices have reported. Nothing is derived from a product's name, and no input
raises: what cannot be read is unknown, and what is unknown takes no shares.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from extender.core.fields import Json, child, strings
from extender.core.inventory.device_plugin import read_device_plugin
from extender.core.inventory.dra import read_dra
from extender.core.inventory.dra_pool import node_of
from extender.core.inventory.gpu_labels import device_labels, number
from extender.core.inventory.gpu_resources import GpuResources, gpu_resources
from extender.core.inventory.node_gpus import DRA, INVALID, NONE, PASSTHROUGH, UNKNOWN, VGPU_HOST, Inventory
from extender.core.inventory.node_state import unusable
from extender.core.inventory.refusals import (
    ENFORCEMENT_UNKNOWN,
    MEMORY_UNKNOWN,
    NO_GPU,
    NO_HEALTHY_GPU,
    OF_MODE,
    SHARING_DISABLED,
)
from extender.core.inventory.reported import read_reported
from extender.core.inventory.vm_devices import read_vm_devices
from extender.core.names import (
    BACKENDS,
    ENFORCEMENT_LABEL,
    GPU_MEMORY_MIB_LABEL,
    GPU_RESOURCE,
    SHARING_ENABLED,
    SHARING_LABEL,
)

# Modes in which the device plugin's counts do not say whether a GPU is healthy.
_NOT_BY_PLUGIN: Final = (DRA, INVALID, UNKNOWN, VGPU_HOST, PASSTHROUGH)
_DRA_LABEL: Final = "nvidia.com/gpu.deploy.dra-driver"
_PRESENT: Final = "nvidia.com/gpu.present"
# Set by node feature discovery: `pci-10de.present`, `pci-0302_10de.present`, ...; 10de is NVIDIA.
_PCI_PREFIX: Final = "feature.node.kubernetes.io/pci-"
_PCI_NVIDIA: Final = "10de.present"


def read_node(node: Mapping[str, Any], slices: Sequence[Mapping[str, Any]] = ()) -> Inventory:
    """The inventory of one node. Pure; never raises.

    ``slices`` are the node's ResourceSlices (``group_slices``). A node that is known by its slices only is
    read with an empty ``node``.
    """
    labels = strings(child(node, "metadata", "labels"))
    resources = gpu_resources(child(node, "status"))
    own_slices = tuple(slice_ for slice_ in slices if node_of(slice_) is not None)
    inventory = _gpus(labels, resources, own_slices)
    inventory = _with_memory(inventory, node, labels)
    why = unusable(node, labels) or _without_healthy(inventory, resources)
    if why is not None:
        inventory = replace(inventory, unusable=why, whole_gpus=0)
    enforcement = labels.get(ENFORCEMENT_LABEL)
    inventory = replace(inventory, enforcement=enforcement if enforcement in BACKENDS else None)
    return replace(inventory, share_refusal=_share_refusal(inventory, labels))


def _gpus(labels: Mapping[str, str], resources: GpuResources, slices: Sequence[Mapping[str, Any]]) -> Inventory:
    if slices or (labels.get(_DRA_LABEL) == "true" and not resources.plugin):
        inventory = _dra(labels, resources, slices)
        if inventory.physical_gpus != 0 or not resources.plugin:
            return inventory
    if resources.unreadable:
        return Inventory(mode=UNKNOWN, physical_gpus=None)
    for_vms = read_vm_devices(labels, resources)
    if for_vms is not None:
        return for_vms
    if resources.plugin or device_labels(labels, GPU_RESOURCE).described:
        vouched = bool(number(labels.get(GPU_MEMORY_MIB_LABEL))) or labels.get(SHARING_LABEL) == SHARING_ENABLED
        return read_device_plugin(labels, resources.plugin, vouched=vouched)
    return Inventory(mode=UNKNOWN, physical_gpus=None) if _has_hardware(labels) else Inventory()


def _dra(labels: Mapping[str, str], resources: GpuResources, slices: Sequence[Mapping[str, Any]]) -> Inventory:
    inventory = read_dra(slices)
    if not slices:
        return replace(inventory, product=device_labels(labels, GPU_RESOURCE).product)
    if not resources.plugin:
        return inventory
    # Two parties give out the same GPUs and do not ask each other: no unit of either is exclusive.
    units = {name: count.allocatable for name, count in resources.plugin.items() if count.allocatable}
    return replace(inventory, whole_gpus=0, units=units)


def _has_hardware(labels: Mapping[str, str]) -> bool:
    """Whether labels show a GPU that nothing offers yet: its driver is being installed, for one."""
    return labels.get(_PRESENT) == "true" or any(
        key.startswith(_PCI_PREFIX) and key.endswith(_PCI_NVIDIA) and value == "true" for key, value in labels.items()
    )


def _with_memory(inventory: Inventory, node: Json, labels: Mapping[str, str]) -> Inventory:
    """What the administrator says where the labels do not; of two numbers the smaller, for a typo must not give out
    memory that a card has not; where his cannot be read, nobody's counts. Where nobody says, what the devices tell."""
    if inventory.physical_gpus == 0:
        return replace(inventory, memory_mib=None)
    stated = labels.get(GPU_MEMORY_MIB_LABEL)
    if stated is not None:
        return replace(inventory, memory_mib=min(number(stated) or 0, inventory.memory_mib or sys.maxsize) or None)
    if inventory.memory_mib is not None or inventory.whole_resource is None:
        return inventory
    reported = read_reported(node)
    sizes = reported.mib.values() if reported is not None else ()
    return replace(inventory, memory_mib=min(sizes, default=None), reported=reported)


def _without_healthy(inventory: Inventory, resources: GpuResources) -> str | None:
    if inventory.mode.split("+")[0] in _NOT_BY_PLUGIN or inventory.physical_gpus == 0:
        return None
    healthy = any(count.allocatable for count in resources.plugin.values())
    return None if healthy else NO_HEALTHY_GPU


def _share_refusal(inventory: Inventory, labels: Mapping[str, str]) -> str | None:
    """Why no share may land here. What an administrator can change comes after what nobody can."""
    if inventory.physical_gpus == 0 and inventory.mode == NONE:
        return NO_GPU
    if inventory.unusable is not None:
        return inventory.unusable
    # A typing error must not share what somebody meant to keep.
    if labels.get(SHARING_LABEL, SHARING_ENABLED) != SHARING_ENABLED:
        return SHARING_DISABLED
    if inventory.enforcement is None and ENFORCEMENT_LABEL in labels:
        return ENFORCEMENT_UNKNOWN
    if inventory.mode == DRA or inventory.whole_gpus == 0:
        return inventory.share_refusal or OF_MODE.get(inventory.mode.split("+")[0], NO_HEALTHY_GPU)
    return MEMORY_UNKNOWN if inventory.memory_mib is None else None
