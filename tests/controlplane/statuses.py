"""What a kubelet writes into the status of pods and nodes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.controlplane.gpu_node import Admitted, GpuNode, Rejection

Json = dict[str, Any]


def running(admitted: Admitted, address: str) -> Json:
    """All containers run, or none can start."""
    now = _now()
    state: Json = {"running": {"startedAt": now}}
    if not admitted.running:
        state = {"waiting": {"reason": "CreateContainerError", "message": "unknown device"}}
    return {
        "phase": "Running" if admitted.running or admitted.restarts else "Pending",
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": _conditions(admitted.running),
        "containerStatuses": _containers(admitted, state),
    }


def succeeded(admitted: Admitted) -> Json:
    """All containers have ended well."""
    state = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": _now()}}
    return {
        "phase": "Succeeded",
        "conditions": _conditions(False),
        "containerStatuses": _containers(admitted, state),
    }


def stopped(admitted: Admitted) -> Json:
    """All containers were ended: what the kubelet says before it deletes the pod."""
    state = {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": _now()}}
    return {"phase": "Failed", "conditions": _conditions(False), "containerStatuses": _containers(admitted, state)}


def failed(rejection: Rejection) -> Json:
    """Not admitted: that is final."""
    return {
        "phase": "Failed",
        "reason": rejection.reason,
        "message": f"Pod was rejected: {rejection.message}",
        "containerStatuses": [],
    }


def of_node(node: GpuNode) -> Json:
    """What changes of a node: its boot and what can be allocated."""
    allocatable = {resource: str(count) for resource, count in node.allocatable().items()}
    return {"allocatable": allocatable, "nodeInfo": {"bootID": node.boot_id}}


def _conditions(ready: bool) -> list[Json]:
    states = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    return [
        {"type": kind, "status": "True" if state else "False", "lastTransitionTime": _now()}
        for kind, state in states.items()
    ]


def _containers(admitted: Admitted, state: Mapping[str, Any]) -> list[Json]:
    runs = "running" in state
    return [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": runs,
            "started": runs,
            "restartCount": admitted.restarts,
            "state": state,
        }
        for container in admitted.pod["spec"]["containers"]
    ]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
