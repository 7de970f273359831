"""The real controllers, each with the account that it has in a cluster, under the policies.

Who writes a template writes pods: what a user may not create, a controller does not create for him. What every cluster
relies on, they still do, also in the namespace of reservation pods.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import pytest

from extender.core import names
from extender.core.reservation import Template, reservation_pod
from tests.builders import make_node
from tests.controlplane.client import Answer, Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import eventually
from tests.controlplane.users import EXTENDER, TENANT

Json = dict[str, Any]
CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "pod-garbage-collector-controller",
    "garbage-collector-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-token-controller",
)
RESERVATIONS: Final = names.RESERVATION_NAMESPACE
#: A node that does not exist any more.
GONE: Final = "gone"


@pytest.fixture(scope="module", autouse=True)
def controllers(granted: ControlPlane) -> Iterator[None]:
    """They run; the tenant has the rights of the role "edit" everywhere. One reservation pod's node is gone: pod
    garbage collection takes its time."""
    granted.grant(TENANT, "system:aggregate-to-edit")
    lost = reservation("share-lost")
    lost["spec"]["nodeName"] = GONE
    granted.kubectl("create", "-f", "-", stdin=json.dumps(lost), user=EXTENDER)
    running = granted.start_controllers(*CONTROLLERS)
    yield
    running.stop()


@pytest.fixture
async def extender(granted: ControlPlane) -> AsyncIterator[Client]:
    async with Client(granted, EXTENDER) as client:
        yield client


def reservation(name: str) -> Json:
    return reservation_pod(name, "node-1", names.GPU_RESOURCE, Template("gpu-scheduler", "gpu-extender:0.1.0"))


def deployment(name: str, annotations: Mapping[str, str], spec: Json) -> tuple[str, Json]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels, "annotations": dict(annotations)}, "spec": spec}
    return "apps/v1", {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": pod}}


def job(name: str, annotations: Mapping[str, str], spec: Json) -> tuple[str, Json]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels, "annotations": dict(annotations)}, "spec": {**spec, "restartPolicy": "Never"}}
    return "batch/v1", {"metadata": {"name": name}, "spec": {"template": pod}}


PLAIN: Final = {"containers": [{"name": "main", "image": "x"}]}
KINDS: Final = {"deployments": deployment, "jobs": job}


async def submit(
    user: Client, kind: str, name: str, annotations: Mapping[str, str] | None = None, spec: Json = PLAIN
) -> None:
    """In ``default``, or with the spec of a reservation pod where those are."""
    group, body = KINDS[kind](name, annotations or {}, spec)
    namespace = "default" if spec is PLAIN else RESERVATIONS
    await user.post(f"/apis/{group}/namespaces/{namespace}/{kind}", body)


async def pods_of(admin: Client, name: str, namespace: str = "default") -> list[Json]:
    return list((await admin.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app={name}"))["items"])


async def refusal_of(admin: Client, name: str, namespace: str = "default") -> str:
    """Why its controller could create no pod: what ``kubectl describe`` tells."""
    told: list[str] = []

    async def refused() -> bool:
        events = (await admin.get(f"/api/v1/namespaces/{namespace}/events"))["items"]
        told[:] = [
            event["message"]
            for event in events
            if event["reason"] == "FailedCreate" and event["involvedObject"]["name"].startswith(name)
        ]
        return told != []

    await eventually(refused, lambda: f"no event says that {name} has no pod")
    return told[0]


# --- in a user's name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_no_controller_makes_a_pod_with_a_placement(tenant: Client, admin: Client, kind: str) -> None:
    name = f"forged-{kind}"
    await submit(tenant, kind, name, {names.VISIBLE_DEVICES: "GPU-1"})
    sentence = f"annotation {names.VISIBLE_DEVICES} is written by the GPU extender only"
    assert sentence in await refusal_of(admin, name)
    assert await pods_of(admin, name) == []
    # The same without it: the pod was refused for the annotation and for nothing else.
    await submit(tenant, kind, f"honest-{kind}")
    await eventually(lambda: has_pods(admin, f"honest-{kind}"), lambda: "the honest one has no pod either")


async def has_pods(admin: Client, name: str) -> bool:
    return await pods_of(admin, name) != []


async def test_the_deployment_tells_why_it_has_no_pod(tenant: Client, admin: Client) -> None:
    await submit(tenant, "deployments", "told", {names.MEMORY_MIB: "1"})
    messages: list[str] = []

    async def failed() -> bool:
        found = await admin.get("/apis/apps/v1/namespaces/default/deployments/told")
        conditions = found.get("status", {}).get("conditions", ())
        messages[:] = [condition["message"] for condition in conditions if condition["type"] == "ReplicaFailure"]
        return messages != []

    await eventually(failed, lambda: "the Deployment says nothing")
    assert f"annotation {names.MEMORY_MIB} is written by the GPU extender only" in messages[0]


@pytest.mark.parametrize("kind", KINDS)
async def test_no_controller_makes_a_reservation_pod(tenant: Client, admin: Client, kind: str) -> None:
    """To the letter as the extender makes them, so that nothing else can be against it."""
    name = f"forged-{kind}"
    await submit(tenant, kind, name, spec=reservation("any")["spec"])
    assert "reservation pods are created by the GPU extender only" in await refusal_of(admin, name, RESERVATIONS)
    assert await pods_of(admin, name, RESERVATIONS) == []


# --- what every cluster relies on ---------------------------------------------------------------------------


@pytest.fixture
async def node(admin: Client) -> AsyncIterator[str]:
    await admin.create_node(make_node("node-1").gpus(2, mib=1000).build())
    yield "node-1"
    await admin.delete("/api/v1/nodes/node-1")


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_the_garbage_collector_does_what_the_deletion_of_an_owner_asks_for(
    admin: Client, extender: Client, node: str, propagation: str
) -> None:
    """A bound pod only is asked to end, for its kubelet has to end it first."""
    owners = f"/api/v1/namespaces/{RESERVATIONS}/configmaps"
    owner = (await extender.post(owners, {"metadata": {"name": f"owner-{propagation.lower()}"}}))["metadata"]
    pods: list[Json] = []
    for state in ("waiting", "bound"):
        manifest = reservation(f"share-{state}-{propagation.lower()}")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
        manifest["metadata"]["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
        pods.append(await extender.post(f"/api/v1/namespaces/{RESERVATIONS}/pods", manifest))
    waiting, bound = pods
    await extender.bind(bound, node)
    await admin.delete(f"{owners}/{owner['name']}", {"propagationPolicy": propagation})

    async def is_done() -> bool:
        found = await fetched(admin, path_of(bound))
        if propagation == "Orphan":
            left = await fetched(admin, path_of(waiting))
            return "ownerReferences" not in found["metadata"] and "ownerReferences" not in left["metadata"]
        return "deletionTimestamp" in found["metadata"] and await fetched(admin, path_of(waiting)) == {}

    await eventually(is_done, lambda: "the garbage collector has not done it")
    for pod in pods:
        if await fetched(admin, path_of(pod)):
            await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})

    async def owner_is_gone() -> bool:
        return await fetched(admin, f"{owners}/{owner['name']}") == {}

    await eventually(owner_is_gone, lambda: "the owner is left")


async def fetched(admin: Client, path: str) -> Json:
    """Empty where it is gone."""
    try:
        return await admin.get(path)
    except Answer as answer:
        if answer.status != 404:
            raise
        return {}


async def test_the_authority_of_the_cluster_is_published_to_reservation_pods(admin: Client) -> None:
    """As a ConfigMap, in the namespace of the node records; kubelets mount it beside the agent's token."""
    path = f"/api/v1/namespaces/{RESERVATIONS}/configmaps/kube-root-ca.crt"

    async def is_there() -> bool:
        return "ca.crt" in (await fetched(admin, path)).get("data", {})

    await eventually(is_there, lambda: "no kube-root-ca.crt")


async def test_the_schedulers_token_is_filled_in(admin: Client) -> None:
    """The manifests' Secret, which kube-scheduler's container mounts."""
    path = "/api/v1/namespaces/gpu-extender/secrets/gpu-scheduler-token"

    async def is_filled() -> bool:
        return "token" in (await fetched(admin, path)).get("data", {})

    await eventually(is_filled, lambda: "no token in it")


@pytest.mark.timeout(300)  # A node may come back for 40 s, and pod garbage collection looks every 20 s.
async def test_pod_garbage_collection_ends_the_reservation_pods_of_a_node_that_is_gone(
    granted: ControlPlane, admin: Client
) -> None:
    granted.kubectl("wait", "--for=delete", "pod/share-lost", f"--namespace={RESERVATIONS}", "--timeout=150s")
