"""Why a node takes nothing now, or no shares ever: fixed keys, each with one sentence for users.

The sentences hold no numbers and no names: kube-scheduler retries in a hot loop when a text varies.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from extender.core.inventory.node_gpus import (
    DRA,
    INVALID,
    MIG_MIXED,
    MIG_SINGLE,
    MPS,
    PASSTHROUGH,
    TIME_SLICING,
    UNKNOWN,
    VGPU_HOST,
)

# Unusable: nothing is placed here now.
DELETING: Final = "Deleting"
NOT_READY: Final = "NotReady"
CORDONED: Final = "Cordoned"
MIG_RECONFIGURING: Final = "MigReconfiguring"
DRIVER_UPGRADING: Final = "DriverUpgrading"
VGPU_RECONFIGURING: Final = "VgpuReconfiguring"
GPU_STACK_PAUSED: Final = "GpuStackPaused"
NO_HEALTHY_GPU: Final = "NoHealthyGpu"

# Usable, but not by shares.
NO_GPU: Final = "NoGpu"
SHARING_DISABLED: Final = "SharingDisabled"
ENFORCEMENT_UNKNOWN: Final = "EnforcementUnknown"
MEMORY_UNKNOWN: Final = "MemoryUnknown"
MIG: Final = "Mig"
OF_MODE: Final[Mapping[str, str]] = MappingProxyType(
    {
        TIME_SLICING: "TimeSliced",
        MPS: "Mps",
        MIG_SINGLE: MIG,
        MIG_MIXED: MIG,
        VGPU_HOST: "VgpuHost",
        PASSTHROUGH: "Passthrough",
        DRA: "Dra",
        INVALID: "Invalid",
        UNKNOWN: "Unknown",
    }
)

REASON_TEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        DELETING: "node is being deleted",
        NOT_READY: "node is not ready",
        CORDONED: "node is cordoned",
        MIG_RECONFIGURING: "MIG is being reconfigured on this node",
        DRIVER_UPGRADING: "the GPU driver is being upgraded on this node",
        VGPU_RECONFIGURING: "vGPU is being reconfigured on this node",
        GPU_STACK_PAUSED: "the GPU software of this node is paused",
        NO_HEALTHY_GPU: "no healthy GPU: the device plugin is gone or every device failed",
        NO_GPU: "node has no GPU",
        SHARING_DISABLED: "an administrator keeps shares off this node",
        ENFORCEMENT_UNKNOWN: "the node's label gpu-extender.io/enforcement names no backend that is known",
        MEMORY_UNKNOWN: "GPU memory is unknown or differs between the node's GPUs",
        "TimeSliced": "GPUs are time-sliced by the device plugin",
        "Mps": "GPUs are shared with MPS by the device plugin",
        MIG: "GPUs are cut into MIG slices",
        "VgpuHost": "GPUs are cut into vGPUs for virtual machines",
        "Passthrough": "GPUs are passed through to virtual machines",
        "Dra": "GPUs are allocated through DRA",
        "Invalid": "the node's MIG layout is invalid for its MIG strategy",
        "Unknown": "how this node shares its GPUs is unknown",
    }
)
