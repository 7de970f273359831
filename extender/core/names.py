"""Every annotation, label, resource and namespace name, once."""

from typing import Final

# What users write: the pod-level dialect, as KAI-Scheduler's users do.
GPU_FRACTION: Final = "gpu-fraction"
GPU_MEMORY: Final = "gpu-memory"
NUM_DEVICES: Final = "gpu-fraction-num-devices"
CONTAINER_NAME: Final = "gpu-fraction-container-name"
# How to place this pod, where it should differ from the service's setting.
PLACEMENT_STRATEGY: Final = "gpu-placement-strategy"

# What users write: the per-container dialect of NVIDIA's kai-gpu-fractioning,
# ``nvidia.com/container.<name>.gpu-memory.request`` and so on.
CONTAINER_PREFIX: Final = "nvidia.com/container."
MEMORY_REQUEST_SUFFIX: Final = ".gpu-memory.request"
MEMORY_LIMIT_SUFFIX: Final = ".gpu-memory.limit"
COMPUTE_MODE_SUFFIX: Final = ".gpu-compute.mode"
# What we write for that runtime.
DEVICES_SUFFIX: Final = ".gpus.devices"

TIME_SLICING: Final = "time-slicing"
SM_SHARING: Final = "sm-sharing"
COMPUTE_MODES: Final = (TIME_SLICING, SM_SHARING)

# What we write and nobody else may.
PREFIX: Final = "gpu-extender.io/"
SHARED_GPUS: Final = PREFIX + "shared-gpus"
VISIBLE_DEVICES: Final = PREFIX + "visible-devices"
MEMORY_MIB: Final = PREFIX + "memory-mib"
TRY: Final = PREFIX + "try"
FENCE: Final = PREFIX + "fence"
# On a pod that waits: a write that makes kube-scheduler try it again.
POKE: Final = PREFIX + "poke"
# What the Binding writes for what enforces shares, each key with ".N" for the N-th container that sees the share.
HAMI_MEMORY_LIMIT: Final = PREFIX + "cuda-device-memory-limit"
MPS_MEMORY_LIMIT: Final = PREFIX + "cuda-mps-pinned-device-mem-limit"
MPS_THREADS: Final = PREFIX + "cuda-mps-active-thread-percentage"
# The library to preload; the same for all containers of a pod.
PRELOAD: Final = PREFIX + "ld-preload"
# What the agent writes on its reservation pod.
DEVICE: Final = PREFIX + "device"
DEVICE_MEMORY_MIB: Final = PREFIX + "device-memory-mib"
BOOT_ID: Final = PREFIX + "boot-id"
# What it says against that device; absent while there is nothing.
DEVICE_HEALTH: Final = PREFIX + "device-health"
# What we write on a reservation pod that we close before it has reported: why, in one word.
CLOSED_BECAUSE: Final = PREFIX + "closed-because"

# Kubernetes' own priority classes, above all that users may have: for what a node needs to run.
CRITICAL_PRIORITIES: Final = ("system-node-critical", "system-cluster-critical")

# What an administrator writes on a node.
GPU_MEMORY_MIB_LABEL: Final = PREFIX + "gpu-memory-mib"
SHARING_LABEL: Final = PREFIX + "sharing"
SHARING_ENABLED: Final = "enabled"
# What holds containers to their shares there; without it, whatever the pod is prepared for.
ENFORCEMENT_LABEL: Final = PREFIX + "enforcement"

# What we write on a node whose labels do not tell its GPUs' memory: what its devices tell.
REPORTED_MEMORY: Final = PREFIX + "reported-memory"

# What the mutating admission policy writes on a share pod, so that others of ours need not look at all pods.
SHARE_LABEL: Final = PREFIX + "share"

# What an administrator writes on a namespace: which pods the admission policies let in there.
PROFILE_LABEL: Final = PREFIX + "profile"
STRICT: Final = "strict"

NVIDIA_DOMAIN: Final = "nvidia.com/"
GPU_RESOURCE: Final = "nvidia.com/gpu"
SHARED_RESOURCE_SUFFIX: Final = ".shared"
MIG_RESOURCE_PREFIX: Final = "nvidia.com/mig-"

CPU: Final = "cpu"
MEMORY: Final = "memory"
PODS: Final = "pods"

RESERVATION_NAMESPACE: Final = "gpu-reservations"

UNENFORCED: Final = "none"
HAMI_CORE: Final = "hami-core"
MPS: Final = "mps"
NRI: Final = "nri"
BACKENDS: Final = (UNENFORCED, HAMI_CORE, MPS, NRI)

BINPACK: Final = "binpack"
SPREAD: Final = "spread"
FGD: Final = "fgd"
ADAPTIVE: Final = "adaptive"
STRATEGIES: Final = (BINPACK, SPREAD, FGD, ADAPTIVE)
DEFAULT_STRATEGY: Final = ADAPTIVE
