"""What a pod says that these tools do not look at: named, so that nobody is misled.

Rules that kube-scheduler would apply, and annotations that nobody reads but that look like ours.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from extender.core.fields import child, children
from extender.core.podreader import annotations_of
from extender.core.requests.dialects import POD_LEVEL

_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"

# Of what a misspelt annotation shares with the right one: one letter left out, two changed places, - written as _.
_ALIKE: Final = 0.85

# None at all, the one that admission makes the other of, and that one (``manifests/base``). Where no such pod is meant
# for our scheduler, nobody asks the extender.
_SCHEDULERS: Final = (None, "", "default-scheduler", "gpu-scheduler")

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
        f"scheduler {spec.get('schedulerName')}": spec.get("schedulerName") not in _SCHEDULERS,
    }
    return (*(name for name, asked in rules.items() if asked), *_misspelt(pod))


def _misspelt(pod: Mapping[str, Any]) -> Iterator[str]:
    """Also those with somebody's prefix: ours have none."""
    for key in sorted(key for key in annotations_of(pod) if isinstance(key, str) and key not in POD_LEVEL):
        for meant in get_close_matches(key.rpartition("/")[2], POD_LEVEL, 1, _ALIKE):
            yield f"annotation {key} (did you mean {meant}?)"


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
