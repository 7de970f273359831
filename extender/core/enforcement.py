"""What holds a container to its share: the annotations that the variables of each mechanism are taken from.

They are decided with the Binding, for only then is a fraction an amount of MiB. A container's place among those that
see the share is part of the key, since a key has no room for the longest names; the mutating admission policy counts
in the same order. For which backends a container is prepared is the cluster's choice, which of them counts is the
node's (docs/enforcement.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extender.core import names
from extender.core.requests import GpuRequest

#: In the container, where the mutating admission policy mounts it.
LIBRARY: Final = "/usr/local/vgpu/libvgpu.so"
#: Characters of an annotation's key behind its prefix, says the API.
_LONGEST_KEY: Final = 63


@dataclass(frozen=True, slots=True)
class PlacedDevice:
    """A device that the pod has a share of."""

    uuid: str
    #: The pod's share, and all that the device has; MiB.
    mib: int
    memory_mib: int


def limit_annotations(
    request: GpuRequest, devices: Sequence[PlacedDevice], backend: str | None = None
) -> dict[str, str]:
    """What the Binding writes for the mechanisms, for each container that sees the share.

    ``backend``: the node's; None: of all, for then the node has whichever the cluster's pods are prepared for.
    Where the pod's share is one container's and was not asked for in kai-gpu-fractioning's own words, these too.
    """
    written = {names.PRELOAD: LIBRARY} if backend in (None, names.HAMI_CORE) else {}
    for place, container in enumerate(request.containers):
        mib = [request.container_mib[place] if request.container_mib else device.mib for device in devices]
        written |= {f"{key}.{place}": value for key, value in _limits(mib, devices, backend).items()}
        if not request.container_mib and backend in (None, names.NRI):
            written |= for_container(container, names.MEMORY_LIMIT_SUFFIX, f"{min(mib)}Mi")
    return written


def for_container(container: str, suffix: str, value: str) -> dict[str, str]:
    """An annotation in kai-gpu-fractioning's words; none where the container's name leaves no room for them.

    A Binding with a longer key is stored all the same, and then no kubelet can write the pod's status.
    """
    key = f"{names.CONTAINER_PREFIX}{container}{suffix}"
    return {key: value} if len(key) <= len(names.NVIDIA_DOMAIN) + _LONGEST_KEY else {}


def _limits(mib: Sequence[int], devices: Sequence[PlacedDevice], backend: str | None) -> dict[str, str]:
    """``mib``: the container's part of each device."""
    pairs = list(zip(mib, devices, strict=True))
    limits: dict[str, str] = {}
    if backend in (None, names.HAMI_CORE):
        # HAMi-core knows one number for all devices, or one for each index; the smallest never allows too much.
        limits[names.HAMI_MEMORY_LIMIT] = f"{min(mib)}m"
    if backend in (None, names.MPS):
        limits[names.MPS_MEMORY_LIMIT] = ",".join(f"{device.uuid}={part}M" for part, device in pairs)
        # 0 would be refused by MPS, and a share is at least something.
        limits[names.MPS_THREADS] = str(max(1, min(100 * part // device.memory_mib for part, device in pairs)))
    return limits
