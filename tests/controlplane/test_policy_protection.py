"""Who may write what on pods: every path, as users whose rights in RBAC leave only the policies in between."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import make_node, make_pod
from tests.controlplane.client import Answer, Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import refused
from tests.controlplane.users import EXTENDER, SCHEDULER

Json = dict[str, Any]
PODS: Final = "/api/v1/namespaces/default/pods"
NRI_DEVICES: Final = f"{names.CONTAINER_PREFIX}main{names.DEVICES_SUFFIX}"
PLACEMENT: Final = {
    names.SHARED_GPUS: "share-1",
    names.VISIBLE_DEVICES: "GPU-1",
    names.MEMORY_MIB: "4096",
    names.TRY: "p-1",
    NRI_DEVICES: "GPU-1",
}


@pytest.fixture
async def extender(granted: ControlPlane) -> AsyncIterator[Client]:
    async with Client(granted, EXTENDER) as client:
        yield client


@pytest.fixture
async def waiting(admin: Client, tenant: Client) -> AsyncIterator[Json]:
    """The tenant's own share pod, which waits for a place."""
    pod = await tenant.create_pod(make_pod("mine").gpu_memory(4096).build())
    yield pod
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


@pytest.fixture
async def bound(waiting: Json, extender: Client) -> Json:
    """The same, bound by the extender."""
    await extender.bind(waiting, "node-1", PLACEMENT)
    return await extender.get(path_of(waiting))


def only(key: str) -> str:
    return f"annotation {key} is written by the GPU extender only"


# --- by every path ------------------------------------------------------------------------------------------


Write = Callable[[Client, Json, Mapping[str, str | None]], Awaitable[object]]


def annotated(change: Mapping[str, str | None]) -> Json:
    return {"metadata": {"annotations": dict(change)}}


def patch(resource: str) -> Write:
    return lambda user, pod, change: user.patch(f"{path_of(pod)}{resource}", annotated(change))


def put(resource: str) -> Write:
    async def write(user: Client, pod: Json, change: Mapping[str, str | None]) -> object:
        fresh = await user.get(path_of(pod))
        merged = {**fresh["metadata"].get("annotations", {}), **change}
        fresh["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
        return await user.send("PUT", f"{path_of(pod)}{resource}", fresh)

    return write


def strategic(resource: str) -> Write:
    kind = "application/strategic-merge-patch+json"
    return lambda user, pod, change: user.send("PATCH", f"{path_of(pod)}{resource}", annotated(change), kind)


def apply(user: Client, pod: Json, change: Mapping[str, str | None]) -> Awaitable[object]:
    body = {"apiVersion": "v1", "kind": "Pod", **annotated(change)}
    query = "?fieldManager=tenant&force=true"
    return user.send("PATCH", f"{path_of(pod)}{query}", body, "application/apply-patch+yaml")


PATHS: Final[Mapping[str, Write]] = {
    "patch": patch(""),
    "put": put(""),
    "strategic": strategic(""),
    "apply": apply,
    "patch status": patch("/status"),
    "put status": put("/status"),
    "patch ephemeralcontainers": strategic("/ephemeralcontainers"),
    "put ephemeralcontainers": put("/ephemeralcontainers"),
    "patch resize": strategic("/resize"),
    "put resize": put("/resize"),
}


#: Those by which a write of an annotation has an effect.
WITH_EFFECT: Final = ("patch", "put", "strategic", "apply", "patch status", "put status")


async def annotation(user: Client, pod: Json, key: str) -> str | None:
    value: str | None = (await user.get(path_of(pod)))["metadata"].get("annotations", {}).get(key)
    return value


async def refused_or_without_effect(user: Client, pod: Json, path: str, key: str, value: str | None) -> None:
    """Some subresources drop annotations before admission sees them; then nothing must have changed."""
    before = await annotation(user, pod, key)
    complaint = ""
    try:
        await PATHS[path](user, pod, {key: value})
    except Answer as answer:
        complaint = str(answer)
    assert (only(key) in complaint) or (complaint == "" and path.endswith(("resize", "ephemeralcontainers")))
    assert await annotation(user, pod, key) == before


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [names.MEMORY_MIB, NRI_DEVICES, "gpu-extender.io/anything"])
async def test_nobody_else_adds_it(tenant: Client, waiting: Json, path: str, key: str) -> None:
    await refused_or_without_effect(tenant, waiting, path, key, "1")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "apply"])
@pytest.mark.parametrize("value", ["1", None])
async def test_nobody_else_changes_or_removes_it(tenant: Client, bound: Json, path: str, value: str | None) -> None:
    await refused_or_without_effect(tenant, bound, path, names.MEMORY_MIB, value)


@pytest.mark.parametrize("path", WITH_EFFECT)
async def test_these_paths_would_have_had_an_effect(tenant: Client, waiting: Json, path: str) -> None:
    """The tests above are about something: the same writes with a key of the tenant's own are done."""
    await PATHS[path](tenant, waiting, {"mine": "1"})
    assert (await tenant.get(path_of(waiting)))["metadata"]["annotations"]["mine"] == "1"


@pytest.mark.parametrize("key", [*PLACEMENT, names.FENCE])
async def test_no_pod_is_created_with_it(tenant: Client, key: str) -> None:
    pod = make_pod("forged").annotation(key, "1")
    assert await refused(tenant.create_pod(pod.build())) == only(key)
    assert await refused(tenant.create_pod(pod.gpu_memory(4096).build())) == only(key)


async def test_no_binding_with_it(tenant: Client, waiting: Json) -> None:
    for key in PLACEMENT:
        assert await refused(tenant.bind(waiting, "node-1", {key: "1"})) == only(key)
    body = {"metadata": {"name": "mine", "annotations": {names.MEMORY_MIB: "1"}}, "target": {"name": "node-1"}}
    assert await refused(tenant.post("/api/v1/namespaces/default/bindings", body)) == only(names.MEMORY_MIB)
    assert "nodeName" not in (await tenant.get(path_of(waiting)))["spec"]


async def test_no_binding_that_changes_what_is_asked_for(tenant: Client, waiting: Json) -> None:
    sentence = f"annotation {names.GPU_MEMORY} cannot be changed once the pod is bound"
    assert await refused(tenant.bind(waiting, "node-1", {names.GPU_MEMORY: "1"})) == sentence


async def test_a_binding_by_somebody_else_without_annotations_ends_without_a_device(
    tenant: Client, waiting: Json
) -> None:
    """A policy on bindings sees no pod. The container's variable comes from an annotation that nobody wrote."""
    await tenant.bind(waiting, "node-1")
    pod = await tenant.get(path_of(waiting))
    assert pod["spec"]["nodeName"] == "node-1"
    (variable,) = pod["spec"]["containers"][0]["env"]
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{names.VISIBLE_DEVICES}']"
    assert names.VISIBLE_DEVICES not in pod["metadata"]["annotations"]


#: What a user asks with, and another value of it.
REQUESTS: Final[Mapping[str, str | None]] = {
    names.GPU_FRACTION: "0.5",
    names.GPU_MEMORY: None,
    names.NUM_DEVICES: "2",
    names.CONTAINER_NAME: "side",
    names.PLACEMENT_STRATEGY: "spread",
    f"{names.CONTAINER_PREFIX}main{names.MEMORY_REQUEST_SUFFIX}": "1Gi",
    f"{names.CONTAINER_PREFIX}main{names.MEMORY_LIMIT_SUFFIX}": "1Gi",
    f"{names.CONTAINER_PREFIX}main{names.COMPUTE_MODE_SUFFIX}": names.SM_SHARING,
}


@pytest.mark.parametrize("key", REQUESTS)
async def test_what_a_bound_pod_asks_for_is_frozen(tenant: Client, extender: Client, bound: Json, key: str) -> None:
    """By every path that would have an effect. For the extender too: what it counts is what it has bound."""
    sentence = f"annotation {key} cannot be changed once the pod is bound"
    for path in WITH_EFFECT:
        for value in dict.fromkeys((REQUESTS[key], "1")):
            assert await refused(PATHS[path](tenant, bound, {key: value})) == sentence
    with pytest.raises(Answer, match=sentence):
        await PATHS["patch"](extender, bound, {key: REQUESTS[key]})


# --- resize and debug containers ------------------------------------------------------------------------------

CPUS: Final = {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}


def resize(pod: Json) -> bool:
    """Whether the pod has been given another size; makes it so in the manifest."""
    container = pod["spec"]["containers"][0]
    done = bool(container["resources"].get("requests") == CPUS["requests"])
    container["resources"] = CPUS
    return done


def debug(pod: Json) -> bool:
    """The same for a debug container."""
    done = bool(pod["spec"].get("ephemeralContainers"))
    pod["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "x"}]
    return done


@pytest.fixture
async def sized(admin: Client, tenant: Client, extender: Client) -> AsyncIterator[Json]:
    """A bound share pod of the tenant's that can be given another size: a resize asks for its Node."""
    await admin.create_node(make_node("node-1").build())
    size = {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}
    sized = make_pod("sized").gpu_memory(4096).spec(containers=[{"name": "main", "image": "x", "resources": size}])
    pod = await tenant.create_pod(sized.build())
    await extender.bind(pod, "node-1", PLACEMENT)
    yield await tenant.get(path_of(pod))
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})
    await admin.delete("/api/v1/nodes/node-1")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("change", [resize, debug])
@pytest.mark.parametrize("key", [names.MEMORY_MIB, NRI_DEVICES, names.GPU_MEMORY])
async def test_a_write_that_is_done_brings_no_annotation_along(
    tenant: Client, sized: Json, method: str, change: Callable[[Json], bool], key: str
) -> None:
    """The API server drops annotations from these before any policy sees them: what else is written is done."""
    before = dict(sized["metadata"]["annotations"])
    assert not change(sized)
    sized["metadata"]["annotations"] = {**before, key: "1"}
    kind = "application/json" if method == "PUT" else "application/strategic-merge-patch+json"
    resource = "resize" if change is resize else "ephemeralcontainers"
    await tenant.send(method, f"{path_of(sized)}/{resource}", sized, kind)
    after = await tenant.get(path_of(sized))
    assert change(after), "nothing was written"
    assert after["metadata"]["annotations"] == before


async def test_the_owner_keeps_what_is_his(tenant: Client, bound: Json) -> None:
    await tenant.patch(path_of(bound), {"metadata": {"annotations": {"note": "x"}, "labels": {"app": "y"}}})
    await tenant.patch(f"{path_of(bound)}/status", {"status": {"phase": "Running"}})
    await tenant.delete(path_of(bound))


async def test_the_extender_writes_what_it_must(extender: Client, waiting: Json) -> None:
    await extender.patch(path_of(waiting), annotated({names.FENCE: "1"}))
    await extender.bind(waiting, "node-1", PLACEMENT)
    assert PLACEMENT.items() <= (await extender.get(path_of(waiting)))["metadata"]["annotations"].items()


async def test_kube_scheduler_writes_no_placement(granted: ControlPlane, waiting: Json) -> None:
    async with Client(granted, SCHEDULER) as scheduler:
        assert await refused(scheduler.bind(waiting, "node-1", {names.MEMORY_MIB: "1"})) == only(names.MEMORY_MIB)
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        body = {"status": {"conditions": [condition]}}
        await scheduler.send("PATCH", f"{path_of(waiting)}/status", body, "application/strategic-merge-patch+json")


# --- found elsewhere ----------------------------------------------------------------------------------------


async def test_hami_3041_a_pod_does_not_bring_its_own_allocation(tenant: Client) -> None:
    """A tenant made a pod whose annotations said that it had been given a device, and got it unaccounted."""
    forged = make_pod("forged").gpu_memory(1)
    for key, value in PLACEMENT.items():
        forged.annotation(key, value)
    await refused(tenant.create_pod(forged.build()))
    # And not without a request either, for another scheduler, or bound at once.
    for pod in (make_pod("a"), make_pod("b").spec(schedulerName="mine"), make_pod("c").spec(nodeName="node-1")):
        assert await refused(tenant.create_pod(pod.annotation(names.VISIBLE_DEVICES, "GPU-1").build())) == only(
            names.VISIBLE_DEVICES
        )


async def test_hami_3030_nobody_binds_in_the_extenders_name(tenant: Client, bound: Json) -> None:
    """Any pod could bind, and so drop a victim's share from the account or give itself one.

    The extender's own listener answers on 127.0.0.1 only; this is the other door, the API's.
    """
    other = await tenant.create_pod(make_pod("other").gpu_memory(1).build())
    assert await refused(tenant.bind(other, "node-1", PLACEMENT)) == only(min(PLACEMENT))
    with pytest.raises(Answer, match="409"):
        await tenant.bind(bound, "node-2")
    assert PLACEMENT.items() <= (await tenant.get(path_of(bound)))["metadata"]["annotations"].items()
    await tenant.delete(path_of(other), {"gracePeriodSeconds": 0})


@pytest.mark.parametrize("variable", ["NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
async def test_kai_1671_devices_are_not_taken_through_the_environment(
    admin: Client, tenant: Client, variable: str
) -> None:
    """A pod that asks for little or nothing set NVIDIA_VISIBLE_DEVICES and saw every GPU of the node."""
    container = {"name": "main", "image": "x", "env": [{"name": variable, "value": "all"}]}
    share = make_pod("taker").gpu_memory(1).spec(containers=[container])
    assert (await refused(tenant.create_pod(share.build()))).startswith(f"container main sets {variable}")
    namespace = {"metadata": {"name": "strict", "labels": {names.PROFILE_LABEL: names.STRICT}}}
    await admin.send(
        "PATCH",
        "/api/v1/namespaces/strict?fieldManager=t",
        {"apiVersion": "v1", "kind": "Namespace", **namespace},
        "application/apply-patch+yaml",
    )
    nothing = make_pod("taker", "strict").spec(containers=[container])
    assert (await refused(tenant.create_pod(nothing.build()))).startswith("container main names GPU devices")


# --- what the extender itself may write on Nodes --------------------------------------------------------------


NODE: Final = "/api/v1/nodes/told"


@pytest.fixture
async def told(admin: Client) -> AsyncIterator[Json]:
    """A Node with labels, annotations and a taint of others."""
    node = make_node("told").label("a", "1").annotation("a", "1").taint("a", "1")
    yield await admin.create_node(node.build())
    await admin.delete(NODE)


async def test_the_extender_writes_what_gpus_have_told_on_a_node(told: Json, extender: Client) -> None:
    for value in ("boot: GPU-1=1", "boot: GPU-1=2"):
        node = await extender.patch(NODE, {"metadata": {"annotations": {names.REPORTED_MEMORY: value}}})
        assert node["metadata"]["annotations"][names.REPORTED_MEMORY] == value


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"annotations": {"b": "1"}}},
        {"metadata": {"annotations": {"a": "2"}}},
        {"metadata": {"annotations": {"a": None}}},
        {"metadata": {"labels": {"b": "1"}}},
        {"metadata": {"labels": {names.GPU_MEMORY_MIB_LABEL: "1"}}},
        {"metadata": {"labels": None}},
        {"metadata": {"finalizers": ["a/b"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}},
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": None}},
    ],
    ids=str,
)
async def test_the_extender_changes_nothing_else_of_a_node(told: Json, extender: Client, change: Json) -> None:
    assert "changes nothing of a Node but" in await refused(extender.patch(NODE, change))
