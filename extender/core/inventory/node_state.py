"""Why nothing can be placed on a node now, from its conditions, taints and labels.

Only what is said counts: a hand-written node without conditions is taken for ready.
"""

from collections.abc import Mapping
from typing import Final

from extender.core.fields import Json, child, children, text
from extender.core.inventory.refusals import (
    CORDONED,
    DELETING,
    DRIVER_UPGRADING,
    GPU_STACK_PAUSED,
    MIG_RECONFIGURING,
    NOT_READY,
    VGPU_RECONFIGURING,
)

_TAINTS: Final = {
    "node.kubernetes.io/not-ready": NOT_READY,
    "node.kubernetes.io/unreachable": NOT_READY,
    "node.kubernetes.io/out-of-service": NOT_READY,
    "node.kubernetes.io/unschedulable": CORDONED,
}
_MIG_STATE: Final = "nvidia.com/mig.config.state"
_VGPU_STATE: Final = "nvidia.com/vgpu.config.state"
# After "failed" the GPU software runs again, with whatever slices there are: believe the capacity.
_CHANGING: Final = ("pending", "rebooting")
_UPGRADE_STATE: Final = "nvidia.com/gpu-driver-upgrade-state"
# "upgrade-required" waits for its turn, which may take days. A failed upgrade leaves no working driver.
_NOT_UPGRADING: Final = ("", "unknown", "upgrade-required", "upgrade-done")
_DEPLOY_PREFIX: Final = "nvidia.com/gpu.deploy."
_PAUSED: Final = "paused-for-"


def unusable(node: Json, labels: Mapping[str, str]) -> str | None:
    """A key of ``REASON_TEXT``, or None where the node takes pods. What stops every pod speaks first."""
    if child(node, "metadata").get("deletionTimestamp"):
        return DELETING
    reasons = {_TAINTS.get(text(t, "key") or "") for t in _effective_taints(node)}
    if NOT_READY in reasons or _is_not_ready(node):
        return NOT_READY
    if CORDONED in reasons or child(node, "spec").get("unschedulable"):
        return CORDONED
    return _changing(labels)


def _is_not_ready(node: Json) -> bool:
    conditions = children(child(node, "status"), "conditions")
    return any(c.get("type") == "Ready" and c.get("status") != "True" for c in conditions)


def _effective_taints(node: Json) -> list[Json]:
    taints = children(child(node, "spec"), "taints")
    return [taint for taint in taints if taint.get("effect") != "PreferNoSchedule"]


def _changing(labels: Mapping[str, str]) -> str | None:
    paused = {v for k, v in labels.items() if k.startswith(_DEPLOY_PREFIX) and v.startswith(_PAUSED)}
    if labels.get(_MIG_STATE) in _CHANGING or any("mig" in value for value in paused):
        return MIG_RECONFIGURING
    if labels.get(_UPGRADE_STATE, "") not in _NOT_UPGRADING or any("driver" in value for value in paused):
        return DRIVER_UPGRADING
    if labels.get(_VGPU_STATE) in _CHANGING or any("vgpu" in value for value in paused):
        return VGPU_RECONFIGURING
    return GPU_STACK_PAUSED if paused else None
