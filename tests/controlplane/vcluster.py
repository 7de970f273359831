"""Pods as vCluster's syncer writes them into the host cluster, by what its releases 0.2x do; the syncer is not run.

Its scheduler is the host's unless said otherwise: the pod comes without a node.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from tests.builders import stable_uid

Json = dict[str, Any]
NAME: Final = "vc"
DOMAIN: Final = "vcluster.loft.sh"
_API: Final = "10.96.200.1"
#: Fields of the virtual pod that containers may ask for; in the host's pod they stand in annotations.
_FIELDS: Final = {
    "metadata.name": f"{DOMAIN}/name",
    "metadata.namespace": f"{DOMAIN}/namespace",
    "metadata.uid": f"{DOMAIN}/uid",
    "spec.serviceAccountName": f"{DOMAIN}/service-account-name",
}


def on_host(virtual: Mapping[str, Any], namespace: str = "default") -> Json:
    """What is created in the host's namespace for a pod of the virtual cluster."""
    metadata, spec = virtual["metadata"], virtual["spec"]
    name = host_name(metadata["name"], metadata["namespace"])
    labels = {**metadata.get("labels", {}), f"{DOMAIN}/managed-by": NAME, f"{DOMAIN}/namespace": metadata["namespace"]}
    labels[f"{DOMAIN}/ns-label-{NAME}-x-2d7ccd2d94"] = metadata["namespace"]
    annotations = metadata.get("annotations", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {**annotations, **_told(metadata, spec, name, namespace)},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": NAME, "uid": stable_uid("service")}],
        },
        "spec": {
            **spec,
            **{kind: [_container(found) for found in spec[kind]] for kind in _KINDS if kind in spec},
            "serviceAccountName": f"vc-workload-{NAME}",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": metadata["name"][:63],
            "hostAliases": [{"ip": _API, "hostnames": ["kubernetes", "kubernetes.default"]}],
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["10.96.200.10"], "searches": [f"{metadata['namespace']}.svc.cluster.local"]},
        },
    }


def host_name(name: str, namespace: str) -> str:
    """Cut where it is too long, with a digest that keeps it apart from others."""
    full = f"{name}-x-{namespace}-x-{NAME}"
    return full if len(full) <= 63 else f"{full[:52]}-{sha256(full.encode()).hexdigest()[:10]}"


_KINDS: Final = ("initContainers", "containers")


def _told(metadata: Json, spec: Json, name: str, namespace: str) -> dict[str, str]:
    """What the syncer notes down about the virtual pod."""
    own = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    found = {f"{DOMAIN}/object-{key}": value for key, value in own.items()}
    found |= {f"{DOMAIN}/{key}": value for key, value in own.items()}
    return found | {
        f"{DOMAIN}/object-kind": "/v1, Kind=Pod",
        f"{DOMAIN}/object-host-name": name,
        f"{DOMAIN}/object-host-namespace": namespace,
        f"{DOMAIN}/service-account-name": spec.get("serviceAccountName", "default"),
        f"{DOMAIN}/labels": "\n".join(f'{key}="{value}"' for key, value in sorted(metadata["labels"].items())),
        f"{DOMAIN}/managed-annotations": "\n".join(sorted(metadata.get("annotations", {}))),
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
    }


def _container(found: Json) -> Json:
    """The virtual API server's address comes first; fields of the virtual pod are taken from annotations."""
    service = [{"name": "KUBERNETES_SERVICE_HOST", "value": _API}, {"name": "KUBERNETES_SERVICE_PORT", "value": "443"}]
    return {**found, "env": [*service, *(_variable(entry) for entry in found.get("env", []))]}


def _variable(entry: Json) -> Json:
    path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
    if path not in _FIELDS:
        return entry
    return {**entry, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{_FIELDS[path]}']"}}}
