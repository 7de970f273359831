"""When the API server judges by the admission policies that are stored: it takes them up together, once a second."""

import json
import secrets
from typing import Any

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import PATIENCE, wait_for

Json = dict[str, Any]
_GROUP = "admissionregistration.k8s.io/v1"


def wait_until_in_force(plane: ControlPlane) -> None:
    """Returns once it judges by all policies and bindings as they are stored now, without those that are deleted.

    Raises AssertionError after PATIENCE. The API server makes what it judges by from what its watches of policies and
    of bindings have shown, all at once. A watch keeps the order: where a policy and its binding that were written last
    are in force, everything before them is.
    """
    name = f"last-{secrets.token_hex(4)}"
    markers = _markers(name, _mutates(plane))
    plane.kubectl("create", "-f", "-", stdin=_listed(markers))
    metadata = {"name": name, "labels": {"marker": name}}
    marked = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    create = ("create", "--dry-run=server", "-f", "-")
    wait_for(
        lambda: f"{name} is in force" in plane.kubectl(*create, stdin=marked, check=False),
        PATIENCE,
        lambda: f"not in force: {plane.kubectl(*create, stdin=marked, check=False)}",
    )
    plane.kubectl("delete", "-f", "-", stdin=_listed(markers))


def _mutates(plane: ControlPlane) -> bool:
    """Whether that API server has MutatingAdmissionPolicy."""
    return "mutatingadmissionpolicies" in plane.kubectl("get", "--raw", f"/apis/{_GROUP}")


def _listed(objects: list[Json]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _markers(name: str, mutates: bool) -> list[Json]:
    """They refuse a ConfigMap that has the label ``marker`` with that name; the mutating one must have seen it too."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    matching = {"resourceRules": [rule], "objectSelector": {"matchLabels": {"marker": name}}}
    refusal = {"expression": "!('seen' in object.metadata.labels)" if mutates else "false"}
    refusal["message"] = f"{name} is in force"
    found = [
        _object("ValidatingAdmissionPolicy", name, {"matchConstraints": matching, "validations": [refusal]}),
        _object("ValidatingAdmissionPolicyBinding", name, {"policyName": name, "validationActions": ["Deny"]}),
    ]
    if mutates:
        patch = "[JSONPatch{op: 'add', path: '/metadata/labels/seen', value: 'yes'}]"
        mutation = {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}
        policy = {"matchConstraints": matching, "mutations": [mutation], "reinvocationPolicy": "Never"}
        found += [
            _object("MutatingAdmissionPolicy", name, policy),
            _object("MutatingAdmissionPolicyBinding", name, {"policyName": name}),
        ]
    return found


def _object(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": _GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}
