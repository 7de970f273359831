"""The reservation pod: its name and its manifest.

It asks the device plugin for one whole GPU and thereby takes it off the market; who it is for is the ledger's business.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from extender.core import names
from extender.core.placement import RESERVATION_NEEDS

#: While a user's share runs on the device, a deletion by somebody else must not free it: the agent ignores SIGTERM.
GRACE_SECONDS: Final = 7 * 24 * 3600
PRIORITY_CLASS: Final = "gpu-reservation"


def reservation_name(node_uid: str, pod_uid: str, device_index: int, attempt: int) -> str:
    """A name that is never used twice: ``attempt`` differs each time the same pod opens the same GPU again."""
    identity = f"{node_uid}\0{pod_uid}\0{device_index}\0{attempt}"
    return "share-" + blake2b(identity.encode(), digest_size=8).hexdigest()


def reservation_pod(name: str, node: str, gpu_resource: str, scheduler: str, image: str) -> dict[str, Any]:
    """The manifest: unbound, for exactly that node, so that kube-scheduler accounts it like any other pod."""
    resources = {**_room(), gpu_resource: "1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": names.RESERVATION_NAMESPACE,
            "labels": {
                "app.kubernetes.io/name": "gpu-extender",
                "app.kubernetes.io/component": "reservation",
            },
        },
        "spec": {
            "schedulerName": scheduler,
            "priorityClassName": PRIORITY_CLASS,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "affinity": _only_on(node),
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "agent",
                    "image": image,
                    "args": ["agent"],
                    "resources": {"requests": resources, "limits": resources},
                }
            ],
        },
    }


def _room() -> Mapping[str, str]:
    return {
        names.CPU: f"{RESERVATION_NEEDS[names.CPU]}m",
        names.MEMORY: f"{RESERVATION_NEEDS[names.MEMORY] // 1024**2}Mi",
    }


def _only_on(node: str) -> dict[str, Any]:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
