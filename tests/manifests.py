"""The manifests as ``kubectl kustomize`` puts them together."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.controlplane.build import controlplane_binary

Manifest = Mapping[str, Any]

MANIFESTS: Final = Path(__file__).parent.parent / "manifests"
BASE: Final = MANIFESTS / "base"
OVERLAYS: Final = sorted(folder for folder in (MANIFESTS / "overlays").iterdir())


@cache
def rendered(folder: Path) -> str:
    """The YAML documents."""
    command = [str(controlplane_binary()), "kubectl", "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def objects(folder: Path = BASE) -> Sequence[Manifest]:
    """The same, parsed."""
    return list(yaml.safe_load_all(rendered(folder)))


def of_kind(kind: str, folder: Path = BASE) -> list[Manifest]:
    """All of one kind."""
    return [found for found in objects(folder) if found["kind"] == kind]


def one(kind: str, name: str, namespace: str | None = None, folder: Path = BASE) -> Manifest:
    """That one; configMapGenerator's hash does not count as part of a name."""
    candidates = [found for found in of_kind(kind, folder) if found["metadata"].get("namespace") == namespace]
    (found,) = (found for found in candidates if found["metadata"]["name"] in (name, _hashed(found, name)))
    return found


def _hashed(manifest: Manifest, name: str) -> str | None:
    full = str(manifest["metadata"]["name"])
    return full if full.startswith(f"{name}-") and len(full) == len(name) + 11 else None


def scheduler_configuration(folder: Path = BASE) -> dict[str, Any]:
    """What kube-scheduler reads."""
    content = one("ConfigMap", "gpu-scheduler-config", "gpu-extender", folder)["data"]["scheduler.yaml"]
    configuration: dict[str, Any] = yaml.safe_load(content)
    return configuration


def container(name: str, folder: Path = BASE) -> Manifest:
    """That container of the Deployment."""
    spec = one("Deployment", "gpu-extender", "gpu-extender", folder)["spec"]["template"]["spec"]
    (found,) = (found for found in spec["containers"] if found["name"] == name)
    return dict(found)


def rights(account: str, namespace: str) -> Iterator[tuple[str | None, str, str, str | None]]:
    """What a service account may do by our own roles: namespace (None: everywhere), verb, resource, object name."""
    for binding in (*of_kind("RoleBinding"), *of_kind("ClusterRoleBinding")):
        subjects = [(subject["namespace"], subject["name"]) for subject in binding["subjects"]]
        if (namespace, account) in subjects:
            yield from _granted(binding)


def _granted(binding: Manifest) -> Iterator[tuple[str | None, str, str, str | None]]:
    where, reference = binding["metadata"].get("namespace"), binding["roleRef"]
    for role in of_kind(reference["kind"]):
        if (role["metadata"]["name"], role["metadata"].get("namespace")) == (reference["name"], where):
            for rule in role["rules"]:
                for verb in rule["verbs"]:
                    for resource in rule["resources"]:
                        for name in rule.get("resourceNames", [None]):
                            yield where, verb, resource, name
