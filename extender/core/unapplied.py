"""Rules of a pod that kube-scheduler would apply and these tools do not: named, so that nobody is misled."""

from collections.abc import Mapping
from typing import Any, Final

from extender.core.fields import child, children

_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"

# Volumes that can tie a pod to some nodes, or of which a node takes only so many.
_TYING_VOLUMES: Final = (
    "persistentVolumeClaim", "ephemeral", "csi", "iscsi", "rbd",
    "awsElasticBlockStore", "azureDisk", "cinder", "gcePersistentDisk",
)  # fmt: skip


def unapplied_rules(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """Their names, in a fixed order. Never raises."""
    spec = child(pod, "spec")
    affinity = child(spec, "affinity")
    rules = {
        "preferred node affinity": child(affinity, "nodeAffinity").get(_PREFERRED),
        "pod affinity": affinity.get("podAffinity"),
        "pod anti-affinity": affinity.get("podAntiAffinity"),
        "topology spread constraints": spec.get("topologySpreadConstraints"),
        "volumes": _has_tying_volume(spec),
        "host ports": _has_host_port(spec),
        "resource claims": spec.get("resourceClaims"),
        # Its overhead and node selector come at admission, which a file of manifests has not passed.
        "runtime class": spec.get("runtimeClassName") and not spec.get("overhead"),
        "gang scheduling": spec.get("workloadRef") or spec.get("schedulingGroup"),
    }
    return tuple(name for name, asked in rules.items() if asked)


def _has_tying_volume(spec: Mapping[str, Any]) -> bool:
    return any(volume.get(kind) is not None for volume in children(spec, "volumes") for kind in _TYING_VOLUMES)


def _has_host_port(spec: Mapping[str, Any]) -> bool:
    """Where the pod is in the host's network, the API server makes every port a host port."""
    ports = [
        port
        for containers in ("containers", "initContainers")
        for container in children(spec, containers)
        for port in children(container, "ports")
    ]
    return any(port.get("hostPort") for port in ports) or bool(spec.get("hostNetwork") and ports)
