"""The namespace of reservation pods and node records: who may do what there, each account by name."""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from extender.core import names, reservation
from extender.core.record import record_name
from extender.core.reservation import Template, reservation_pod
from tests.builders import make_node
from tests.controlplane.client import Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import refused
from tests.controlplane.real_agent import token_for
from tests.controlplane.users import (
    EXTENDER,
    GARBAGE_COLLECTOR,
    KUBELET,
    NAMESPACE_CONTROLLER,
    POD_GC,
    SCHEDULER,
    TENANT,
    User,
)

Json = dict[str, Any]
BASE: Final = f"/api/v1/namespaces/{names.RESERVATION_NAMESPACE}"
PODS: Final = f"{BASE}/pods"
REPORT: Final = {names.DEVICE: "GPU-1", names.DEVICE_MEMORY_MIB: "81559", names.BOOT_ID: "b-1"}
RUNNING: Final = {"status": {"phase": "Running"}}
RESTRICTED: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
DEBUGGER: Final = {"name": "debug", "image": "x", "securityContext": RESTRICTED}
NOW: Final = {"gracePeriodSeconds": 0}
CHANGED: Final = "reservation pods are changed by the GPU extender only; the agent in one reports its own device, once"
STATUS: Final = "the status of reservation pods is written by the system's own accounts, and nothing beside it"


@pytest.fixture(scope="module")
def granted(granted: ControlPlane) -> ControlPlane:
    granted.grant(KUBELET, "system:node")
    granted.grant(TENANT, "system:aggregate-to-edit")  # Secrets too
    return granted


@pytest.fixture
async def extender(granted: ControlPlane) -> AsyncIterator[Client]:
    async with Client(granted, EXTENDER) as client:
        yield client


def manifest(name: str) -> Json:
    return reservation_pod(name, "node-1", "nvidia.com/gpu", Template("gpu-scheduler", "gpu-extender:0.1.0"))


async def bound_reservation(admin: Client, extender: Client, name: str) -> Json:
    if not (await admin.get("/api/v1/nodes"))["items"]:
        await admin.create_node(make_node("node-1").gpus(2, mib=1000).build())
    pod = await extender.post(PODS, manifest(name))
    await extender.bind(pod, "node-1")
    return pod


@pytest.fixture
async def pod(admin: Client, extender: Client) -> AsyncIterator[Json]:
    """A reservation pod on node-1, as the extender makes it."""
    pod = await bound_reservation(admin, extender, "share-1")
    yield pod
    if "share-1" in [found["metadata"]["name"] for found in (await admin.get(PODS))["items"]]:
        await admin.delete(path_of(pod), NOW)


# --- an ordinary user with every right ----------------------------------------------------------------------


async def test_he_creates_none(tenant: Client) -> None:
    sentence = "reservation pods are created by the GPU extender only"
    assert await refused(tenant.post(PODS, manifest("share-9"))) == sentence


async def test_he_changes_none(tenant: Client, pod: Json) -> None:
    path = path_of(pod)
    for metadata in ({"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, {"finalizers": ["a.b/c"]}):
        assert await refused(tenant.patch(path, {"metadata": metadata})) == CHANGED
    assert await refused(tenant.patch(path, {"spec": {"activeDeadlineSeconds": 1}})) == CHANGED
    strategic = "application/strategic-merge-patch+json"
    image = {"spec": {"containers": [{"name": "agent", "image": "mine"}]}}
    assert await refused(tenant.send("PATCH", path, image, strategic)) == CHANGED
    resize = {
        "spec": {"containers": [{"name": "agent", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}]}
    }
    assert await refused(tenant.send("PATCH", f"{path}/resize", resize, strategic)) == CHANGED
    debug = {"spec": {"ephemeralContainers": [DEBUGGER]}}
    assert await refused(tenant.send("PATCH", f"{path}/ephemeralcontainers", debug, strategic)) == CHANGED


async def test_he_replaces_none(tenant: Client, pod: Json) -> None:
    """PUT of the whole pod, by every resource that takes one; each brings a change that it would have written."""
    container = {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}
    changes: dict[str, tuple[Json, str]] = {
        "": ({"metadata": {"labels": {"a": "b"}}}, CHANGED),
        "/status": (RUNNING, STATUS),
        "/resize": ({"spec": {"containers": [container]}}, CHANGED),
        "/ephemeralcontainers": ({"spec": {"ephemeralContainers": [DEBUGGER]}}, CHANGED),
    }
    for resource, (change, sentence) in changes.items():
        whole = merged(await tenant.get(path_of(pod)), change)
        assert await refused(tenant.send("PUT", path_of(pod) + resource, whole)) == sentence


def merged(old: Any, new: Any) -> Any:
    """Lists are merged by place."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return [merged(old[i] if i < len(old) else None, new[i]) for i in range(len(new))] + old[len(new) :]
    return new


async def test_he_says_nothing_in_the_agents_name(tenant: Client, pod: Json) -> None:
    for resource in ("", "/status"):
        sentence = await refused(tenant.patch(path_of(pod) + resource, {"metadata": {"annotations": dict(REPORT)}}))
        assert sentence in (CHANGED, STATUS, f"annotation {min(REPORT)} is written by the GPU extender only")


async def test_he_does_not_declare_it_ended(tenant: Client, pod: Json) -> None:
    """A reservation pod that is Failed frees its device in every account."""
    assert await refused(tenant.patch(f"{path_of(pod)}/status", {"status": {"phase": "Failed"}})) == STATUS


async def test_he_ends_none(tenant: Client, pod: Json) -> None:
    sentence = (
        "reservation pods hold devices that other pods run on: they are ended by the GPU extender, "
        "or by who may drain nodes"
    )
    assert await refused(tenant.delete(path_of(pod), NOW)) == sentence
    assert await refused(tenant.delete(PODS)) == sentence
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "share-1"}}
    assert await refused(tenant.post(f"{path_of(pod)}/eviction", eviction)) == sentence


async def test_he_binds_none(tenant: Client, extender: Client, admin: Client) -> None:
    pod = await extender.post(PODS, manifest("share-2"))
    sentence = "reservation pods are bound by the GPU extender only"
    assert await refused(tenant.bind(pod, "node-2")) == sentence
    legacy = {"metadata": {"name": "share-2", "uid": pod["metadata"]["uid"]}, "target": {"name": "node-2"}}
    assert await refused(tenant.post(f"{BASE}/bindings", legacy)) == sentence
    assert "nodeName" not in (await admin.get(path_of(pod)))["spec"]
    await admin.delete(path_of(pod), NOW)


async def test_he_writes_no_node_record_and_deletes_no_owner(tenant: Client, extender: Client, admin: Client) -> None:
    sentence = "node records are written by the GPU extender only"
    record = {"metadata": {"name": record_name("node-1")}, "data": {"record": "v: 1"}}
    path = f"{BASE}/configmaps"
    assert await refused(tenant.post(path, record)) == sentence
    await extender.post(path, record)
    assert await refused(tenant.patch(f"{path}/{record_name('node-1')}", {"data": {"record": ""}})) == sentence
    emptied = await tenant.get(f"{path}/{record_name('node-1')}") | {"data": {"record": ""}}
    assert await refused(tenant.send("PUT", f"{path}/{record_name('node-1')}", emptied)) == sentence
    assert await refused(tenant.delete(path)) == sentence
    assert await refused(tenant.delete(f"{path}/{record_name('node-1')}")) == sentence
    assert await refused(tenant.delete(f"{path}/{reservation.OWNER}")) == sentence
    await admin.delete(f"{path}/{record_name('node-1')}")


ACCOUNTS: Final = (("gpu-extender", "gpu-extender"), (names.RESERVATION_NAMESPACE, "gpu-reservation"))
NO_TOKEN: Final = "tokens of the GPU extender's accounts are for its own pods"


async def test_he_gets_no_token_of_our_accounts(tenant: Client, pod: Json) -> None:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "share-1", "uid": pod["metadata"]["uid"]}
    for namespace, account in ACCOUNTS:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        for spec in ({}, {"boundObjectRef": reference}):
            assert await refused(tenant.post(path, {"spec": spec})) == NO_TOKEN


def token_secret(account: str) -> Json:
    """kube-controller-manager writes a token of that account into it, one that never expires."""
    metadata = {"name": "token", "annotations": {"kubernetes.io/service-account.name": account}}
    return {"metadata": metadata, "type": "kubernetes.io/service-account-token"}


async def test_he_has_none_written_into_a_secret(tenant: Client) -> None:
    for namespace, account in ACCOUNTS:
        assert await refused(tenant.post(f"/api/v1/namespaces/{namespace}/secrets", token_secret(account))) == NO_TOKEN
    # The manifests' own, for another account: without its token and the UID in it, it is filled in anew.
    ours = "/api/v1/namespaces/gpu-extender/secrets/gpu-scheduler-token"
    renamed = {**token_secret("gpu-extender")["metadata"], "name": "gpu-scheduler-token"}
    assert await refused(tenant.patch(ours, {"metadata": renamed, "data": None})) == NO_TOKEN
    emptied = await tenant.get(ours) | {"data": {}}
    assert await refused(tenant.send("PUT", ours, emptied)) == NO_TOKEN


async def test_other_secrets_are_his(tenant: Client) -> None:
    """And so are those that hold tokens of his own accounts."""
    for namespace in ("gpu-extender", names.RESERVATION_NAMESPACE):
        path = f"/api/v1/namespaces/{namespace}/secrets"
        await tenant.post(path, {"metadata": {"name": "his"}, "stringData": {"a": "b"}})
        await tenant.patch(f"{path}/his", {"stringData": {"a": "c"}})
        await tenant.delete(f"{path}/his")
    await tenant.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "his"}})
    await tenant.post("/api/v1/namespaces/default/secrets", token_secret("his"))


# --- the agent ----------------------------------------------------------------------------------------------


async def agent_of(plane: ControlPlane, admin: Client, pod: Json | None) -> Client:
    """A client with the token that a kubelet mounts into that pod; None: one that is of no pod."""
    return Client(plane, User("agent", token=await token_for(admin, pod)))


async def test_it_reports_its_own_device_once(granted: ControlPlane, admin: Client, pod: Json) -> None:
    async with await agent_of(granted, admin, pod) as agent:
        await agent.patch(path_of(pod), {"metadata": {"uid": pod["metadata"]["uid"], "annotations": dict(REPORT)}})
        for said in ({names.DEVICE_HEALTH: "Xid: 79"}, {names.DEVICE_HEALTH: None, names.BOOT_ID: "b-2"}):
            await agent.patch(path_of(pod), {"metadata": {"annotations": said}})
        for key in REPORT:
            for value in (None,) if key == names.BOOT_ID else ("other", None):
                assert await refused(agent.patch(path_of(pod), {"metadata": {"annotations": {key: value}}})) == CHANGED


async def test_it_changes_nothing_else(granted: ControlPlane, admin: Client, pod: Json) -> None:
    async with await agent_of(granted, admin, pod) as agent:
        for metadata in (
            {"annotations": {"a": "b"}},
            {"annotations": {names.SHARED_GPUS: "share-1"}},
            {"annotations": {**REPORT, "a": "b"}},
            {"annotations": dict(REPORT), "labels": {"a": "b"}},
            {"annotations": dict(REPORT), "finalizers": ["a.b/c"]},
        ):
            assert await refused(agent.patch(path_of(pod), {"metadata": metadata})) == CHANGED
        both = {"metadata": {"annotations": dict(REPORT)}, "spec": {"activeDeadlineSeconds": 1}}
        assert await refused(agent.patch(path_of(pod), both)) == CHANGED


async def test_it_says_nothing_on_another_reservation_pod(
    granted: ControlPlane, admin: Client, extender: Client, pod: Json
) -> None:
    other = await bound_reservation(admin, extender, "share-3")
    async with await agent_of(granted, admin, other) as agent:
        assert await refused(agent.patch(path_of(pod), {"metadata": {"annotations": dict(REPORT)}})) == CHANGED
    async with await agent_of(granted, admin, None) as agent:
        assert await refused(agent.patch(path_of(pod), {"metadata": {"annotations": dict(REPORT)}})) == CHANGED
    await admin.delete(path_of(other), NOW)


# --- the accounts that every cluster needs ------------------------------------------------------------------


async def test_a_kubelet_writes_status_and_ends_pods(granted: ControlPlane, pod: Json) -> None:
    async with Client(granted, KUBELET) as kubelet:
        await kubelet.patch(f"{path_of(pod)}/status", RUNNING)
        assert (
            await refused(kubelet.patch(f"{path_of(pod)}/status", {"metadata": {"annotations": {"a": "b"}}})) == STATUS
        )
        await kubelet.delete(path_of(pod), NOW)


async def test_kube_scheduler_writes_status_binds_and_ends_pods(
    granted: ControlPlane, extender: Client, admin: Client
) -> None:
    pod = await extender.post(PODS, manifest("share-4"))
    async with Client(granted, SCHEDULER) as scheduler:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        kind = "application/strategic-merge-patch+json"
        await scheduler.send("PATCH", f"{path_of(pod)}/status", {"status": {"conditions": [condition]}}, kind)
        await scheduler.bind(pod, "node-1")
        await scheduler.delete(path_of(pod), NOW)


async def test_pod_gc_writes_status_and_ends_pods(granted: ControlPlane, pod: Json) -> None:
    async with Client(granted, POD_GC) as collector:
        await collector.patch(f"{path_of(pod)}/status", {"status": {"phase": "Failed"}})
        await collector.delete(path_of(pod), NOW)


async def test_the_garbage_collector_removes_finalizers_and_ends_pods(
    granted: ControlPlane, extender: Client, pod: Json
) -> None:
    await extender.delete(path_of(pod), {"propagationPolicy": "Foreground", "gracePeriodSeconds": 0})
    async with Client(granted, GARBAGE_COLLECTOR) as collector:
        await collector.patch(path_of(pod), {"metadata": {"finalizers": None}})
        with pytest.raises(Exception, match="404"):
            await collector.get(path_of(pod))


async def test_the_namespace_controller_empties_the_namespace(
    granted: ControlPlane, extender: Client, admin: Client, pod: Json
) -> None:
    records = f"{BASE}/configmaps?labelSelector=empties=this"
    await extender.post(f"{BASE}/configmaps", {"metadata": {"name": "node-emptied", "labels": {"empties": "this"}}})
    async with Client(granted, NAMESPACE_CONTROLLER) as controller:
        await controller.delete(PODS)
        await controller.delete(records)  # not the owner of all reservation pods, which other tests need
    assert (await admin.get(records))["items"] == []


async def test_system_masters_may_do_everything(admin: Client, pod: Json) -> None:
    await admin.patch(f"{path_of(pod)}/status", RUNNING)
    await admin.patch(path_of(pod), {"metadata": {"annotations": {"a": "b"}}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "share-1"}}
    await admin.post(f"{path_of(pod)}/eviction", eviction)
    await admin.delete(path_of(pod), NOW)


async def test_who_may_cordon_may_drain(granted: ControlPlane, tenant: Client, pod: Json) -> None:
    role = '{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"cordon"},'
    role += '"rules":[{"apiGroups":[""],"resources":["nodes"],"verbs":["patch"]}]}'
    granted.kubectl("apply", "-f", "-", stdin=role)
    granted.grant(TENANT, "cordon")
    try:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "share-1"}}
        await tenant.post(f"{path_of(pod)}/eviction", eviction)
    finally:
        granted.kubectl("delete", "clusterrole", "cordon")


async def test_the_extender_closes_what_it_opened(extender: Client, pod: Json) -> None:
    await extender.delete(path_of(pod), {"gracePeriodSeconds": 2, "preconditions": {"uid": pod["metadata"]["uid"]}})
