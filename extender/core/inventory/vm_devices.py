"""GPUs for virtual machines (KubeVirt): vGPU hosts and passthrough. No container can use these.

Such nodes run neither GPU feature discovery nor the device plugin for containers. The operator's label
tells them; without it (KubeVirt's plugin alone) the names of the resources do.
"""

from collections.abc import Mapping
from typing import Final

from extender.core.inventory.gpu_resources import Count, GpuResources, vm_kind
from extender.core.inventory.node_gpus import PASSTHROUGH, UNKNOWN, VGPU_HOST, Inventory

WORKLOAD_LABEL: Final = "nvidia.com/gpu.workload.config"
_LABELLED: Final = {"vm-vgpu": VGPU_HOST, "vm-passthrough": PASSTHROUGH}
_CONTAINER: Final = "container"


def read_vm_devices(labels: Mapping[str, str], resources: GpuResources) -> Inventory | None:
    """The GPUs of a node that serves virtual machines; None for any other node."""
    workload = labels.get(WORKLOAD_LABEL)
    labelled = _LABELLED.get(workload or "")
    kinds = _kinds(resources.others, workload, labelled)
    modes = [mode for mode in (VGPU_HOST, PASSTHROUGH) if mode == labelled or mode in kinds.values()]
    if not modes:
        return None
    counts = {**resources.others, **resources.plugin}
    vgpus = [name for name, kind in kinds.items() if kind == VGPU_HOST]
    units = {n: counts[n].allocatable for n in (*resources.plugin, *vgpus) if counts[n].allocatable}
    if labelled is None and any(count.allocatable for count in resources.plugin.values()):
        # Both kinds of plugin offer devices, and nothing says that these are different GPUs.
        return Inventory(mode=UNKNOWN, physical_gpus=None, units=units)
    physical = _physical(kinds, resources.others) if modes == [PASSTHROUGH] else None
    return Inventory(mode="+".join(modes), physical_gpus=physical, units=units)


def _kinds(others: Mapping[str, Count], workload: str | None, labelled: str | None) -> dict[str, str | None]:
    """Resource → vGPU, passthrough, or None for a name that tells nothing on a labelled node.

    An administrator may choose the names in KubeVirt; on a labelled vGPU host they can hardly mean
    anything else. Elsewhere such a name is some other device. Where containers are served now, what is not
    allocatable is left from before.
    """
    default = VGPU_HOST if labelled == VGPU_HOST else None
    return {
        name: vm_kind(name) or default
        for name, count in others.items()
        if labelled is not None or (vm_kind(name) and (workload != _CONTAINER or count.allocatable))
    }


def _physical(kinds: Mapping[str, str | None], others: Mapping[str, Count]) -> int | None:
    if None in kinds.values():
        return None
    return sum(others[name].capacity for name in kinds) or None
