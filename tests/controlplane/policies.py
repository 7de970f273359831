"""The admission policies in tests: a control plane that has them, and requests that only ask what would happen."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from extender.core import names
from extender.core.enforcement import LIBRARY
from tests.builders import PodBuilder
from tests.controlplane.client import Answer, Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.in_force import wait_until_in_force
from tests.controlplane.process import PATIENCE, eventually, wait_for
from tests.controlplane.users import User
from tests.manifests import BASE

Json = dict[str, Any]
Pod = Mapping[str, Any]

_DENIAL: Final = re.compile(r"denied request: (.*)", re.DOTALL)
#: What an administrator decides.
SETTINGS: Final = "/api/v1/namespaces/gpu-extender/configmaps/gpu-extender-admission"
CONTAINER: Final = {"name": "main", "image": "registry.example.com/main:1"}
#: What HAMi-core takes for "as if it were not set"; each stands on every container that sees a share under it.
HARMLESS: Final = {
    "CUDA_DISABLE_CONTROL": "false",
    "CUDA_OVERSUBSCRIBE": "false",
    "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/tmp/cudevshr.cache",
    "CUDA_REDIRECT": LIBRARY,
}
#: Requests under way at once.
_AT_ONCE: Final = 32


#: A share pod as share-pods-mutating.yaml makes it, or, where that is missing, its user.
COMPLETE: Final = {
    "metadata": {"name": "probe", "annotations": {names.GPU_MEMORY: "1"}},
    "spec": {
        "schedulerName": "gpu-scheduler",
        "containers": [
            {
                **CONTAINER,
                "env": [
                    {
                        "name": "NVIDIA_VISIBLE_DEVICES",
                        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{names.VISIBLE_DEVICES}']"}},
                    }
                ],
            }
        ],
    },
}


def install(plane: ControlPlane, folder: Path = BASE) -> None:
    """Everything that these manifests have; returns once all policies are in force, and the settings are read."""
    plane.kubectl("apply", "--server-side", "-k", str(folder))
    wait_until_in_force(plane)
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod", **COMPLETE})
    create = ("create", "--dry-run=server", "-f", "-")
    wait_for(
        lambda: "created" in plane.kubectl(*create, stdin=pod, check=False),
        PATIENCE,
        lambda: plane.kubectl(*create, stdin=pod, check=False),
    )


SUBRESOURCES: Final = ("status", "ephemeralcontainers", "resize", "binding", "eviction")
#: More than the role "edit" gives: whatever the API has for a pod, everywhere.
EVERYTHING_ON_PODS: Final = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "everything-on-pods"},
    "rules": [
        {"apiGroups": [""], "resources": ["pods", "bindings", "configmaps"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": [f"pods/{sub}" for sub in SUBRESOURCES], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    ],
}


def grant_everything_on_pods(plane: ControlPlane, *users: User) -> None:
    """Rights in RBAC that leave only the policies between these users and any pod."""
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(EVERYTHING_ON_PODS))
    for user in users:
        plane.grant(user, "everything-on-pods")


async def refused(request: Awaitable[object]) -> str:
    """The sentence with which a policy refuses the request; fails where nothing or something else does."""
    with pytest.raises(Answer, match="ValidatingAdmissionPolicy") as caught:
        await request
    assert caught.value.status in (403, 422)
    return denial(caught.value)


def what_if(namespace: str = "default") -> str:
    """Where a pod is created without being created."""
    return f"/api/v1/namespaces/{namespace}/pods?dryRun=All"


async def created(client: Client, pod: PodBuilder, namespace: str = "default") -> Json:
    """The pod as it would be stored."""
    built = pod.build()
    kept = {key: built["metadata"][key] for key in ("name", "annotations")}
    return await client.post(what_if(namespace), {"metadata": kept, "spec": built["spec"]})


def environment(pod: Mapping[str, Any], container: str) -> dict[str, str]:
    """Variable → its value, or the field that it comes from."""
    spec = pod["spec"]
    (found,) = (c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == container)
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in found.get("env", [])
    }


def denial(answer: Answer) -> str:
    """The sentence of the policy that refused, without the API server's words around it; else the whole message."""
    message = str(json.loads(str(answer).partition(": ")[2])["message"])
    found = _DENIAL.search(message)
    return found[1] if found else message


async def verdicts(client: Client, pods: Iterable[Pod]) -> list[str | None]:
    """What becomes of each pod if it is created: the sentence that refuses it, or None."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def verdict(pod: Pod) -> str | None:
        async with slots:
            return await refusal(client, pod)

    return await asyncio.gather(*map(verdict, pods))


async def refusal(client: Client, pod: Pod) -> str | None:
    """The sentence that refuses the pod at its creation, or None."""
    kept = {key: pod["metadata"][key] for key in ("name", "labels", "annotations") if key in pod["metadata"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": pod["spec"]}
    try:
        await client.post(what_if(pod["metadata"].get("namespace", "default")), body)
    except Answer as answer:
        return denial(answer)
    return None


@asynccontextmanager
async def decided(admin: Client, settings: Mapping[str, str]) -> AsyncIterator[None]:
    """These settings of the administrator's are in force meanwhile."""
    before = (await admin.get(SETTINGS))["data"]
    await _decide(admin, {**before, **settings})
    try:
        yield
    finally:
        await _decide(admin, before)


@asynccontextmanager
async def undecided(admin: Client) -> AsyncIterator[None]:
    """There are no settings meanwhile, as the API server has seen."""
    kept = await admin.get(SETTINGS)
    await admin.delete(SETTINGS)
    try:
        await eventually(lambda: _completes(admin, False), lambda: "share pods are completed without the settings")
        yield
    finally:
        metadata = {"name": kept["metadata"]["name"]}
        await admin.post(SETTINGS.rpartition("/")[0], {"metadata": metadata, "data": kept["data"]})
        await eventually(lambda: _completes(admin, True), lambda: "share pods are refused with the settings")


async def _completes(admin: Client, expected: bool) -> bool:
    """Whether that is so: a share pod that names no scheduler is created."""
    pod = {"metadata": {"name": "probe", "annotations": {names.GPU_MEMORY: "1"}}, "spec": {"containers": [CONTAINER]}}
    return (await refusal(admin, pod) is None) is expected


async def _decide(admin: Client, settings: Mapping[str, str]) -> None:
    """Returns once the API server's own watch has seen them: a scheduler's name that nobody has had shows it."""
    version = (await admin.get(SETTINGS))["metadata"]["resourceVersion"]
    for name in (f"probe-{version}", settings.get("scheduler-name", "gpu-scheduler")):
        await admin.patch(SETTINGS, {"data": {**settings, "scheduler-name": name}})
        await _until_scheduled_by(admin, name)


async def _until_scheduled_by(admin: Client, name: str) -> None:
    pod = {"metadata": {"name": "probe", "annotations": {names.GPU_MEMORY: "1"}}, "spec": {"containers": [CONTAINER]}}

    async def scheduled() -> bool:
        try:
            return bool((await admin.post(what_if(), pod))["spec"]["schedulerName"] == name)
        except Answer:
            return False  # two policies have seen two versions

    await eventually(scheduled, lambda: f"the settings with scheduler-name {name} are not in force")
