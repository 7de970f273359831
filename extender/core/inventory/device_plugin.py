"""GPUs that NVIDIA's device plugin offers to containers.

``nvidia.com/gpu: 8`` may be eight GPUs, replicas of two, or MIG slices of one: the labels decide. It is
eight whole GPUs only if everything agrees that each unit is a GPU of its own. Contradictions make the
mode ``unknown``, never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from extender.core.inventory import mig
from extender.core.inventory.gpu_labels import DeviceLabels, device_labels, number
from extender.core.inventory.gpu_resources import NO_UNITS, SHARED_GPU_RESOURCE, Count
from extender.core.inventory.node_gpus import (
    INVALID,
    MIG_MIXED,
    MIG_SINGLE,
    MPS,
    NONE,
    TIME_SLICING,
    UNKNOWN,
    Inventory,
    Slice,
)
from extender.core.inventory.refusals import MIG
from extender.core.names import GPU_RESOURCE

_MIG_STRATEGY: Final = "nvidia.com/mig.strategy"
# Written with the strategy `single` and valid slices only.
_SLICE_ATTRIBUTE: Final = "nvidia.com/gpu.slices.gi"
_COMPUTE_MAJOR: Final = "nvidia.com/gpu.compute.major"
_DRIVER: Final = ("nvidia.com/cuda.driver-version.full", "nvidia.com/cuda.driver-version.major")


def read_device_plugin(labels: Mapping[str, str], plugin: Mapping[str, Count], *, vouched: bool) -> Inventory:
    """The GPUs of a node by its labels and device-plugin resources.

    ``vouched``: an administrator has said that units are whole GPUs where nobody else describes them.
    """
    return _Plugin.of(labels, plugin, vouched).inventory()


@dataclass(frozen=True, slots=True)
class _Plugin:
    gpu: DeviceLabels
    #: Units of GPUs (with the strategy ``single``: slices) under the name in force.
    units: Count
    sharing: str
    #: Both names of the GPU resource are live, which no configuration makes.
    doubled: bool
    single: bool
    mixed: bool
    profiles: tuple[mig.Profile, ...]
    labels: Mapping[str, str]
    plugin: Mapping[str, Count]

    @classmethod
    def of(cls, labels: Mapping[str, str], plugin: Mapping[str, Count], vouched: bool) -> "_Plugin":
        gpu = device_labels(labels, GPU_RESOURCE)
        gpu = replace(gpu, described=gpu.described or vouched)
        plain, shared = (plugin.get(name, NO_UNITS) for name in (GPU_RESOURCE, SHARED_GPU_RESOURCE))
        # For some minutes after a change the former name keeps its capacity, with nothing allocatable.
        renamed = shared.capacity > 0 and (shared.allocatable > 0 or plain.allocatable == 0)
        profiles = mig.profiles(labels, plugin)
        # The strategy alone proves nothing: the operator labels nodes without MIG too.
        cut = gpu.replicas == 0 or mig.is_labelled(labels)
        return cls(
            gpu=gpu,
            units=shared if renamed else plain,
            sharing=gpu.sharing(renamed),
            doubled=shared.allocatable > 0 and plain.allocatable > 0,
            single=gpu.mig or _SLICE_ATTRIBUTE in labels,
            mixed=bool(profiles) or (labels.get(_MIG_STRATEGY) == "mixed" and cut),
            profiles=profiles,
            labels=labels,
            plugin=plugin,
        )

    def inventory(self) -> Inventory:
        if self.gpu.invalid:
            return Inventory(self.gpu.product, INVALID, physical_gpus=None)
        exclusive = self.exclusive
        several = self.several_models
        return Inventory(
            product=None if several else self.gpu.product,
            mode=self.mode,
            physical_gpus=self.physical,
            whole_gpus=self.units.allocatable if exclusive else 0,
            memory_mib=None if several or self.single or _by_vfio(self.labels) else self.gpu.memory_mib,
            units={
                name: count.allocatable
                for name, count in self.plugin.items()
                if count.allocatable and not (exclusive and name == GPU_RESOURCE)
            },
            slices=self.slices,
            whole_resource=GPU_RESOURCE if exclusive and self.units.capacity else None,
            share_refusal=MIG if self.cut_but_whole else None,
        )

    @property
    def mode(self) -> str:
        if self.contradictory:
            return UNKNOWN
        shared = {self.sharing, *(profile.sharing for profile in self.profiles)}
        parts = [MIG_SINGLE] if self.single else [MIG_MIXED] if self.mixed else []
        parts += [sharing for sharing in (TIME_SLICING, MPS) if sharing in shared]
        return "+".join(parts) or NONE

    @property
    def contradictory(self) -> bool:
        """Whether nothing consistent can be said. Without labels a MIG resource still speaks for itself."""
        unclear = self.sharing == UNKNOWN and (self.gpu.described or not self.mixed)
        return unclear or self.doubled or (self.single and self.mixed) or self.cut_but_whole

    @property
    def cut_but_whole(self) -> bool:
        """MIG mode is on, but the plugin (strategy ``none``) offers the GPUs as if they were whole.

        A container gets some slice of such a GPU: a unit is neither the GPU nor a known part of it.
        """
        return self.gpu.replicas == 0 and not self.mixed

    @property
    def exclusive(self) -> bool:
        """Whether each unit is proven to be one whole GPU."""
        return self.sharing == NONE and self.gpu.replicas in (None, 1) and not self.single

    @property
    def several_models(self) -> bool:
        """Whether the labels, which describe one model, leave out GPUs of the node.

        ``count`` includes the GPUs that are cut (strategy ``mixed``), so then whole ones must be fewer.
        """
        per_device = self.gpu.units_per_device(self.sharing)
        if self.mixed and self.gpu.replicas == 0:
            return self.units.allocatable > 0
        if self.gpu.count is None or per_device is None or not self.units.capacity:
            return False
        labelled = self.gpu.count * per_device
        return self.units.capacity > labelled or (bool(self.profiles) and self.units.capacity == labelled)

    @property
    def physical(self) -> int | None:
        if self.single or self.gpu.garbled or not self.gpu.described:
            return None
        offered = self.gpu.devices(self.units.capacity, self.sharing)
        if self.several_models:
            return None if self.mixed else offered
        # The plugin may offer fewer than GFD sees: GPUs that are cut, or none while it is away.
        known = [count for count in (offered, self.gpu.count) if count is not None]
        return max(known) if known and (any(known) or self.gpu.count is not None) else None

    @property
    def slices(self) -> Mapping[str, Slice]:
        if self.contradictory:
            return {}
        found = mig.slices(self.profiles, self.labels)
        if self.single and self.units.capacity:
            counted = mig.slice_of(self.gpu, self.units.capacity, self.sharing)
            if counted is not None:
                memory_mib = None if self.several_models else counted.memory_mib
                found[GPU_RESOURCE] = Slice(counted.count, memory_mib)
        return found


def _by_vfio(labels: Mapping[str, str]) -> bool:
    """Whether GFD looked at PCI only: its "memory" is then the size of an address window, in bytes."""
    driverless = any(labels.get(key, "").startswith("unknown") for key in _DRIVER)
    major = labels.get(_COMPUTE_MAJOR)
    return driverless or (major is not None and major.startswith("-") and number(major[1:]) is not None)
