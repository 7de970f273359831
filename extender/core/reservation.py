"""The reservation pod: its name and its manifest.

It asks the device plugin for one whole GPU and thereby takes it off the market; who it is for is the ledger's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from extender.core import names
from extender.core.placement import RESERVATION_NEEDS

#: While a user's share runs on the device, a deletion by somebody else must not free it: the agent ignores SIGTERM.
GRACE_SECONDS: Final = 7 * 24 * 3600
PRIORITY_CLASS: Final = "gpu-reservation"
SERVICE_ACCOUNT: Final = "gpu-reservation"
#: The ConfigMap that owns all reservation pods.
OWNER: Final = "reservations"
#: The image's user and group.
NOBODY: Final = 65532


def reservation_name(node_uid: str, pod_uid: str, device_index: int, attempt: int | str) -> str:
    """A name that is never used twice: ``attempt`` differs each time the same pod opens the same GPU again."""
    identity = f"{node_uid}\0{pod_uid}\0{device_index}\0{attempt}"
    return "share-" + blake2b(identity.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Template:
    """How reservation pods are made in this cluster."""

    #: The scheduler of those that are opened for no pod.
    scheduler: str
    image: str
    #: For clusters whose container runtime injects a GPU's driver only under a class of NVIDIA's runtime.
    runtime_class: str | None = None
    #: Name and UID of the ConfigMap in the reservations' namespace that only uninstall deletes; never the Node, whose
    #: deletion would end reservations under running shares.
    owner: tuple[str, str] | None = None


def reservation_pod(
    name: str, node: str, gpu_resource: str, template: Template, scheduler: str | None = None
) -> dict[str, Any]:
    """The manifest: unbound, for exactly that node, so that kube-scheduler accounts it like any other pod.

    ``scheduler``: the opener's, for one account of both, and because no other is known to run; the template's where
    there is no opener.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": names.RESERVATION_NAMESPACE,
        "labels": {"app.kubernetes.io/name": "gpu-extender", "app.kubernetes.io/component": "reservation"},
    }
    if template.owner is not None:
        metadata["ownerReferences"] = [_owned_by(*template.owner)]
    spec: dict[str, Any] = {
        "schedulerName": scheduler or template.scheduler,
        "priorityClassName": PRIORITY_CLASS,
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "affinity": _only_on(node),
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_agent_container(template.image, gpu_resource)],
    }
    if template.runtime_class is not None:
        spec["runtimeClassName"] = template.runtime_class
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _agent_container(image: str, gpu_resource: str) -> dict[str, Any]:
    resources = {**_room(), gpu_resource: "1"}
    return {
        "name": "agent",
        "image": image,
        "args": ["agent"],
        "env": [
            # NVML is all that the agent needs of the driver. NVIDIA_VISIBLE_DEVICES must not be set here: a pod that
            # sets it beside its request can see other GPUs too, and then nobody knows which one it holds.
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
            *(
                {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
                for variable, field in (("POD_NAMESPACE", "namespace"), ("POD_NAME", "name"), ("POD_UID", "uid"))
            ),
        ],
        "resources": {"requests": resources, "limits": resources},
        # No read-only root file system: CDI's hooks write the driver's links and the loader's cache into it before
        # the container starts, and the start fails where they can't (kserve #5711, nvidia-container-toolkit #2026).
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _owned_by(name: str, uid: str) -> dict[str, Any]:
    # A controller, for kubectl drain refuses pods that have none.
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": True}


def _room() -> Mapping[str, str]:
    return {
        names.CPU: f"{RESERVATION_NEEDS[names.CPU]}m",
        names.MEMORY: f"{RESERVATION_NEEDS[names.MEMORY] // 1024**2}Mi",
    }


def _only_on(node: str) -> dict[str, Any]:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
