"""MIG slices with the strategy ``mixed``: one resource per profile, ``nvidia.com/mig-1g.10gb``.

Labels never take the ``.shared`` of a renamed resource: they describe the profile. Sizes come from labels
only; a profile's name rounds them, and the same name means different sizes on different boards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extender.core.inventory.gpu_labels import DeviceLabels, device_labels, number
from extender.core.inventory.gpu_resources import NO_UNITS, Count
from extender.core.inventory.node_gpus import NONE, UNKNOWN, Slice
from extender.core.names import MIG_RESOURCE_PREFIX, SHARED_RESOURCE_SUFFIX

_COUNT: Final = ".count"


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile that the device plugin offers on a node."""

    #: The resource before any renaming; also the prefix of the labels.
    resource: str
    labels: DeviceLabels
    #: Capacity in units: slices, or replicas of them.
    units: int
    sharing: str


def profiles(labels: Mapping[str, str], plugin: Mapping[str, Count]) -> tuple[Profile, ...]:
    """The profiles that a node offers, without stale ones."""
    resources = sorted({n.removesuffix(SHARED_RESOURCE_SUFFIX) for n in plugin if n.startswith(MIG_RESOURCE_PREFIX)})
    found = (_profile(resource, labels, plugin) for resource in resources)
    return tuple(profile for profile in found if profile is not None)


def is_labelled(labels: Mapping[str, str]) -> bool:
    """Whether labels show any slice: also of profiles that the device plugin does not offer."""
    return any(
        key.startswith(MIG_RESOURCE_PREFIX) and key.endswith(_COUNT) and number(count) for key, count in labels.items()
    )


def slice_of(labels: DeviceLabels, units: int, sharing: str) -> Slice | None:
    """The slices behind ``units``; None where the labels do not tell them from replicas."""
    count = labels.devices(units, sharing) or labels.count
    return Slice(count, labels.memory_mib) if count else None


def slices(offered: tuple[Profile, ...], labels: Mapping[str, str]) -> dict[str, Slice]:
    """The slices of every profile, by its resource before any renaming."""
    resources = {profile.resource for profile in offered}
    found: dict[str, Slice] = {}
    for profile in offered:
        counted = slice_of(profile.labels, profile.units, profile.sharing)
        if counted is not None:
            memory_mib = _memory(profile, counted, labels, resources)
            found[profile.resource] = Slice(counted.count, memory_mib)
    return found


def _profile(resource: str, labels: Mapping[str, str], plugin: Mapping[str, Count]) -> Profile | None:
    own = device_labels(labels, resource)
    plain = plugin.get(resource, NO_UNITS)
    shared = plugin.get(resource + SHARED_RESOURCE_SUFFIX, NO_UNITS)
    # For some minutes after a change the former name keeps its capacity, with nothing allocatable.
    renamed = shared.capacity > 0 and (shared.allocatable > 0 or plain.allocatable == 0)
    units = shared if renamed else plain
    if units.allocatable == 0 and not own.described and device_labels(labels, "nvidia.com/gpu").described:
        return None
    sharing = own.sharing(renamed)
    if sharing == UNKNOWN and not own.described and not renamed:
        # No feature discovery. A slice is never handed out as a GPU here, so an unproven count does no harm.
        sharing = NONE
    return Profile(resource, own, units.capacity, sharing)


def _memory(profile: Profile, counted: Slice, labels: Mapping[str, str], resources: set[str]) -> int | None:
    """The slices' memory, if the labels cover all of them.

    They do not where two models of GPU take turns in writing the same labels. Device plugins before 0.20
    count ``1g.10gb+me`` among ``1g.10gb``, which is labelled as a profile of its own.
    """
    if profile.labels.count is None:
        return counted.memory_mib
    merged = [
        device_labels(labels, key.removesuffix(_COUNT))
        for key in labels
        if key.endswith(_COUNT)
        and key.startswith((profile.resource + ".", profile.resource + "-"))
        and key != profile.resource + _COUNT
        and key.removesuffix(_COUNT) not in resources
    ]
    described = [profile.labels, *merged]
    sizes = {kind.memory_mib for kind in described if kind.count}
    covered = sum(kind.count or 0 for kind in described) >= counted.count
    return sizes.pop() if covered and len(sizes) == 1 else None
