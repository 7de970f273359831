"""A pod that asks for a share comes out complete, or is refused with a sentence that says why."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import pytest

from extender.core import names
from extender.core.enforcement import LIBRARY
from extender.core.requests import GpuRequest
from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Answer, Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import HARMLESS, SETTINGS, created, decided, environment, refusal, refused, what_if
from tests.controlplane.process import PATIENCE, eventually, wait_for

Json = dict[str, Any]
RUNTIME_CLASSES: Final = "/apis/node.k8s.io/v1/runtimeclasses"
DEVICES: Final = f"metadata.annotations['{names.VISIBLE_DEVICES}']"

pytestmark = pytest.mark.usefixtures("policed")


@pytest.fixture
async def settings(admin: Client, request: pytest.FixtureRequest) -> AsyncIterator[Mapping[str, str]]:
    """The settings that the test is marked with, in force while it runs."""
    chosen: dict[str, str] = request.param
    for name in ("nvidia", "own"):
        with suppress(Answer):
            await admin.post(RUNTIME_CLASSES, {"metadata": {"name": name}, "handler": name})
    async with decided(admin, chosen):
        yield chosen


# --- complete -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(names.GPU_FRACTION, "0.5"), (names.GPU_MEMORY, "4096")])
async def test_one_annotation_is_enough(admin: Client, size: tuple[str, str]) -> None:
    pod = await created(admin, make_pod().annotation(*size).container("main").container("side"))
    assert pod["spec"]["schedulerName"] == "gpu-scheduler"
    assert environment(pod, "main") == {"NVIDIA_VISIBLE_DEVICES": DEVICES}
    assert "runtimeClassName" not in pod["spec"]


@pytest.mark.parametrize("labels", [{}, {"app": "a"}, {names.SHARE_LABEL: "no"}])
async def test_share_pods_have_a_label_whatever_the_user_says(admin: Client, labels: Mapping[str, str]) -> None:
    """The settings are checked where it is: a pod without it would go to another scheduler, or with its own library."""
    pod = make_pod().gpu_memory(1).spec(schedulerName="mine").build()
    body = {
        "metadata": {"name": "p", "annotations": pod["metadata"]["annotations"], "labels": labels},
        "spec": pod["spec"],
    }
    assert (await refused(admin.post(what_if(), body))).startswith('schedulerName is "mine" but')
    body["spec"]["schedulerName"] = "default-scheduler"
    stored = await admin.post(what_if(), body)
    assert stored["metadata"]["labels"] == {**labels, names.SHARE_LABEL: "true"}


async def test_a_container_without_a_share_sees_no_device_whatever_its_image_says(admin: Client) -> None:
    pod = await created(admin, make_pod().gpu_memory(1).container("main").container("side").init_container("setup"))
    assert environment(pod, "side") == environment(pod, "setup") == {"NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize("named", ["b", "setup"])
async def test_the_named_container_gets_it(admin: Client, named: str, sidecar: bool) -> None:
    pod = make_pod().gpu_memory(1).container_name(named)
    pod.container("a").container("b").init_container("setup", sidecar=sidecar)
    stored = await created(admin, pod)
    for container in ("a", "b", "setup"):
        expected = DEVICES if container == named else "void"
        assert environment(stored, container) == {"NVIDIA_VISIBLE_DEVICES": expected}


async def test_every_container_of_the_per_container_dialect_gets_it(admin: Client) -> None:
    pod = make_pod().container_gpu_memory("b", limit="1Gi").container_gpu_memory("side", request="2Gi")
    pod.container("a").container("b").init_container("setup").init_container("side", sidecar=True)
    stored = await created(admin, pod)
    seeing = [c for c in ("a", "b", "setup", "side") if environment(stored, c)["NVIDIA_VISIBLE_DEVICES"] == DEVICES]
    assert seeing == ["b", "side"]


async def test_the_share_stays_with_its_container_when_a_webhook_puts_another_in_front(admin: Client) -> None:
    """The first container has the share by default; who is first is decided once, at creation."""
    pod = await created(admin, make_pod().gpu_memory(1).container("main"))
    assert pod["metadata"]["annotations"][names.CONTAINER_NAME] == "main"


async def test_a_completed_pod_created_again_stays_as_it_is(admin: Client) -> None:
    pod = make_pod().gpu_fraction("0.5").container("main").container("side").init_container("setup")
    once = await created(admin, pod)
    again = await admin.post(what_if(), {"metadata": {"name": "again", **annotations(once)}, "spec": once["spec"]})
    assert (again["spec"], annotations(again)) == (once["spec"], annotations(once))


def annotations(pod: Mapping[str, Any]) -> Json:
    return {"annotations": pod["metadata"]["annotations"]}


async def test_what_the_user_wrote_stays(admin: Client) -> None:
    env = [{"name": "MODE", "value": "fast"}, {"name": "SEES", "value": "$(NVIDIA_VISIBLE_DEVICES)"}]
    pod = make_pod().gpu_memory(1).spec(containers=[{"name": "main", "image": "x", "env": env}])
    stored = await created(admin, pod)
    # Ours is in front, so that the user's variables can refer to it.
    assert [entry["name"] for entry in stored["spec"]["containers"][0]["env"]] == [
        "NVIDIA_VISIBLE_DEVICES",
        "MODE",
        "SEES",
    ]


@pytest.mark.parametrize(
    "pod",
    [
        make_pod(),
        make_pod().annotation("gpu-placement", "0.5").annotation("prometheus.io/scrape", "true"),
        make_pod().gpus(1),
        make_pod().container("main").container("b").init_container("c"),
    ],
)
async def test_pods_that_ask_for_nothing_are_not_touched(policed: ControlPlane, admin: Client, pod: PodBuilder) -> None:
    stored = await created(admin, pod)
    assert stored["spec"]["schedulerName"] == "default-scheduler"
    assert all("env" not in c for c in stored["spec"]["containers"] + stored["spec"].get("initContainers", []))


async def test_a_pod_with_tens_of_thousands_of_foreign_annotations_is_not_our_business(admin: Client) -> None:
    """Its length must not spend the policies' budget, for then it would be refused."""
    pod = make_pod()
    for number in range(40_000):
        pod.annotation(f"{number:x}", "")
    assert await refusal(admin, pod.build()) is None
    assert await refusal(admin, pod.gpu_memory(1).build()) == (
        "a pod with annotations of the GPU extender has at most 1000 annotations"
    )


@pytest.mark.parametrize("settings", [{"runtime-class": "nvidia", "scheduler-name": "gpu"}], indirect=True)
async def test_scheduler_and_runtime_class_are_settings(admin: Client, settings: Mapping[str, str]) -> None:
    spec = (await created(admin, make_pod().gpu_memory(1)))["spec"]
    assert (spec["runtimeClassName"], spec["schedulerName"]) == ("nvidia", "gpu")
    own = make_pod().gpu_memory(1).spec(runtimeClassName="own")
    assert (await created(admin, own))["spec"]["runtimeClassName"] == "own"
    assert "runtimeClassName" not in (await created(admin, make_pod()))["spec"]


# --- what the backend needs --------------------------------------------------------------------------------


def limit(name: str, place: int) -> str:
    return f"metadata.annotations['{name}.{place}']"


def mounts(pod: Mapping[str, Any], container: str) -> dict[str, str]:
    """Path in the container → folder of the node."""
    spec = pod["spec"]
    (found,) = (c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == container)
    folders = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in spec.get("volumes", [])}
    return {mount["mountPath"]: folders[mount["name"]] for mount in found.get("volumeMounts", [])}


def hami_core_variables(place: int) -> dict[str, str]:
    """What HAMi-core reads; tests/controlplane/test_policy_limits.py says why so much."""
    return {
        "CUDA_DEVICE_MEMORY_LIMIT": limit(names.HAMI_MEMORY_LIMIT, place),
        "CUDA_DEVICE_MEMORY_LIMIT_0": limit(names.HAMI_MEMORY_LIMIT, place),
        "LD_PRELOAD": f"metadata.annotations['{names.PRELOAD}']",
        **HARMLESS,
    }


def two_sharing() -> PodBuilder:
    pod = make_pod().container_gpu_memory("b", limit="1Gi").container_gpu_memory("side", limit="2Gi")
    return pod.container("a").container("b").init_container("side", sidecar=True)


@pytest.mark.parametrize("settings", [{"backend": "hami-core", "hami-core-folder": "/opt/vgpu"}], indirect=True)
@pytest.mark.usefixtures("settings")
async def test_hami_core(admin: Client) -> None:
    stored = await created(admin, two_sharing())
    for place, container in enumerate(("side", "b")):
        assert environment(stored, container) == {
            "NVIDIA_VISIBLE_DEVICES": DEVICES,
            **hami_core_variables(place),
        }
        assert mounts(stored, container) == {"/usr/local/vgpu": "/opt/vgpu"}
    assert LIBRARY.rpartition("/")[0] == "/usr/local/vgpu", "it is preloaded from where it is mounted"
    assert environment(stored, "a") == {"NVIDIA_VISIBLE_DEVICES": "void"}
    again = await admin.post(what_if(), {"metadata": {"name": "again", **annotations(stored)}, "spec": stored["spec"]})
    assert again["spec"] == stored["spec"]
    own = with_env({"name": "LD_PRELOAD", "value": "/mine.so"})
    assert (await refusal(admin, own.build()) or "").startswith("container main sets LD_PRELOAD")


@pytest.mark.parametrize("settings", [{"backend": "mps", "mps-folder": "/run/mps"}], indirect=True)
@pytest.mark.usefixtures("settings")
async def test_mps(admin: Client) -> None:
    stored = await created(admin, two_sharing())
    for place, container in enumerate(("side", "b")):
        assert environment(stored, container) == {
            "NVIDIA_VISIBLE_DEVICES": DEVICES,
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": limit(names.MPS_MEMORY_LIMIT, place),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": limit(names.MPS_THREADS, place),
            "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
        }
        assert mounts(stored, container) == {"/tmp/nvidia-mps": "/run/mps/pipe", "/dev/shm": "/run/mps/shm"}
    assert mounts(stored, "a") == {}
    own = (
        make_pod()
        .gpu_memory(1)
        .spec(
            volumes=[{"name": "shm", "emptyDir": {"medium": "Memory"}}],
            containers=[{"name": "main", "image": "x", "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}],
        )
    )
    assert (await refusal(admin, own.build()) or "").startswith("container main mounts /dev/shm itself")
    # And a user's other volumes stay.
    data = own.spec(
        containers=[{"name": "main", "image": "x", "volumeMounts": [{"name": "shm", "mountPath": "/data"}]}]
    )
    assert mounts(await created(admin, data), "main").keys() == {"/data", "/tmp/nvidia-mps", "/dev/shm"}


@pytest.mark.parametrize("settings", [{"backend": "nri"}, {"backend": "none"}], indirect=True)
@pytest.mark.usefixtures("settings")
async def test_nri_and_none_need_nothing_in_the_pod(admin: Client) -> None:
    stored = await created(admin, two_sharing())
    assert environment(stored, "b") == environment(stored, "side") == {"NVIDIA_VISIBLE_DEVICES": DEVICES}
    assert "volumes" not in stored["spec"]


SEVERAL = {"backend": "mps, hami-core", "mps-folder": "/run/mps"}


@pytest.mark.parametrize("settings", [SEVERAL], indirect=True)
@pytest.mark.usefixtures("settings")
async def test_with_several_backends_a_pod_is_prepared_for_each(admin: Client) -> None:
    """It may go to a node of any pool; the Binding fills what that one reads."""
    stored = await created(admin, two_sharing())
    for place, container in enumerate(("side", "b")):
        assert environment(stored, container) == {
            "NVIDIA_VISIBLE_DEVICES": DEVICES,
            **hami_core_variables(place),
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": limit(names.MPS_MEMORY_LIMIT, place),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": limit(names.MPS_THREADS, place),
            "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
        }
    # The folders of the other backends do not exist on a node: they must not keep the container from starting.
    assert {volume["hostPath"]["type"] for volume in stored["spec"]["volumes"]} == {"DirectoryOrCreate"}
    read_only = {mount["name"] for mount in stored["spec"]["containers"][1]["volumeMounts"] if mount.get("readOnly")}
    assert read_only == {"gpu-extender-hami-core"}
    request = GpuRequest.from_pod(stored)
    assert isinstance(request, GpuRequest)
    assert request.backends == {names.HAMI_CORE, names.MPS}


@pytest.mark.parametrize("settings", [SEVERAL], indirect=True)
@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("pool", "variable"), [("hami-core", "CUDA_DEVICE_MEMORY_LIMIT"), ("mps", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")]
)
async def test_a_pod_that_names_its_pool_gets_only_what_that_needs(admin: Client, pool: str, variable: str) -> None:
    stored = await created(admin, make_pod().gpu_memory(1).spec(nodeSelector={names.ENFORCEMENT_LABEL: pool}))
    limits = {"CUDA_DEVICE_MEMORY_LIMIT", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"}
    assert environment(stored, "main").keys() & limits == {variable}
    assert {volume["hostPath"]["type"] for volume in stored["spec"]["volumes"]} == {"Directory"}
    nowhere = await created(admin, make_pod().gpu_memory(1).spec(nodeSelector={names.ENFORCEMENT_LABEL: "none"}))
    assert environment(nowhere, "main") == {"NVIDIA_VISIBLE_DEVICES": DEVICES}


async def test_a_backend_that_does_not_exist_is_no_silent_none(admin: Client) -> None:
    """An administrator's slip of the pen must not leave every share without its limit."""
    before = (await admin.get(SETTINGS))["data"]

    async def refuses() -> bool:
        return await refusal(admin, make_pod().gpu_memory(1).build()) is not None

    try:
        await admin.patch(SETTINGS, {"data": {"backend": "mps, hami"}})
        await eventually(refuses, lambda: "share pods are created")
        assert await refusal(admin, make_pod().gpu_memory(1).build()) == (
            'the setting backend of the GPU extender names "hami" but must name some of none, hami-core, mps, nri'
        )
        assert await refusal(admin, make_pod().build()) is None
    finally:
        await admin.patch(SETTINGS, {"data": before})
        async with decided(admin, before):
            pass


# --- refused ------------------------------------------------------------------------------------------------


def with_env(*entries: Mapping[str, Any], container: str = "main") -> PodBuilder:
    """``main`` has a share, and the others, one of each kind, have none."""
    containers: list[Json] = [{"name": "main", "image": "x"}, {"name": "side", "image": "x"}]
    inits: list[Json] = [{"name": "setup", "image": "x"}, {"name": "proxy", "image": "x", "restartPolicy": "Always"}]
    (found,) = (c for c in containers + inits if c["name"] == container)
    found["env"] = list(entries)
    return make_pod().gpu_memory(1).container_name("main").spec(containers=containers, initContainers=inits)


def field(path: str) -> Json:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize("container", ["main", "side", "setup", "proxy"])
@pytest.mark.parametrize(
    "entry",
    [
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "GPU-1"},
        {"name": "NVIDIA_VISIBLE_DEVICES", **field("metadata.annotations['mine']")},
        {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        {"name": "CUDA_VISIBLE_DEVICES", "value": "0"},
        {"name": "CUDA_VISIBLE_DEVICES", **field(DEVICES)},
        {"name": "CUDA_DEVICE_MEMORY_LIMIT", "value": "999g"},
        {"name": "CUDA_DEVICE_MEMORY_LIMIT_0", "value": "999g"},
        {
            "name": "CUDA_DEVICE_MEMORY_LIMIT",
            **field("metadata.annotations['gpu-extender.io/cuda-device-memory-limit.9']"),
        },
        {"name": "CUDA_DISABLE_CONTROL", "value": "true"},
        {"name": "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "value": "0=80G"},
        {"name": "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "value": "100"},
        {"name": "CUDA_MPS_PIPE_DIRECTORY", "value": "/nowhere"},
    ],
    ids=lambda entry: entry["name"] + str(entry.get("value", "")),
)
async def test_devices_and_limits_are_not_the_users_to_choose(admin: Client, entry: Json, container: str) -> None:
    sentence = await refusal(admin, with_env(entry, container=container).build())
    assert sentence == (
        f"container {container} sets {entry['name']}, but the devices and limits of a pod that asks for a GPU share "
        "are the extender's to set"
    )


async def test_the_same_variables_are_free_in_pods_without_a_share(admin: Client) -> None:
    for entry in ({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}, {"name": "CUDA_VISIBLE_DEVICES", "value": "0"}):
        pod = make_pod().spec(containers=[{"name": "main", "image": "x", "env": [entry]}])
        assert await refusal(admin, pod.build()) is None


@pytest.mark.parametrize("container", ["side", "setup", "proxy"])
async def test_a_container_without_a_share_does_not_get_the_device_of_its_neighbour(
    admin: Client, container: str
) -> None:
    pod = with_env({"name": "NVIDIA_VISIBLE_DEVICES", **field(DEVICES)}, container=container)
    assert (await refusal(admin, pod.build()) or "").startswith(f"container {container} sets NVIDIA_VISIBLE_DEVICES")


async def test_a_share_pod_does_not_choose_its_node_or_another_scheduler(admin: Client) -> None:
    on_node = make_pod().gpu_memory(1).spec(nodeName="node-1")
    assert await refusal(admin, on_node.build()) == (
        "a pod that asks for a GPU share must not set nodeName: only the extender knows which GPU has room"
    )
    foreign = make_pod().gpu_memory(1).spec(schedulerName="mine")
    assert await refusal(admin, foreign.build()) == (
        'schedulerName is "mine" but a pod that asks for a GPU share must name "gpu-scheduler"'
    )


async def test_a_running_share_pod_is_debugged_without_devices(admin: Client) -> None:
    pod = make_pod("debugged").gpu_memory(1).build()
    path = "/api/v1/namespaces/default/pods/debugged"
    await admin.create_pod(pod)
    for value, fine in (("all", False), ("void", True)):
        entry = {"name": "NVIDIA_VISIBLE_DEVICES", "value": value}
        body = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "x", "env": [entry]}]}}
        request = admin.send("PATCH", f"{path}/ephemeralcontainers", body, "application/strategic-merge-patch+json")
        if fine:
            await request
        else:
            assert (await refused(request)).startswith("container debug sets NVIDIA_VISIBLE_DEVICES")
    await admin.delete(path, {"gracePeriodSeconds": 0})


async def test_a_waiting_pod_becomes_no_share_pod_by_an_annotation_alone(admin: Client) -> None:
    """Its container would not see the device."""
    path = "/api/v1/namespaces/default/pods/late"
    await admin.create_pod(make_pod("late").build())
    change = {"metadata": {"annotations": {names.GPU_MEMORY: "1"}}}
    assert await refused(admin.patch(path, change)) == (
        "container main has a GPU share but does not set NVIDIA_VISIBLE_DEVICES from the field "
        "metadata.annotations['gpu-extender.io/visible-devices']"
    )
    await admin.delete(path, {"gracePeriodSeconds": 0})


async def test_a_waiting_share_pod_may_ask_for_something_else(admin: Client) -> None:
    path = "/api/v1/namespaces/default/pods/waiting"
    await admin.create_pod(make_pod("waiting").gpu_memory(1).build())
    await admin.patch(path, {"metadata": {"annotations": {names.GPU_MEMORY: "2"}}})
    sentence = await refused(admin.patch(path, {"metadata": {"annotations": {names.GPU_MEMORY: "much"}}}))
    assert sentence.startswith('annotation gpu-memory is "much" but must be')
    await admin.delete(path, {"gracePeriodSeconds": 0})


# --- from controllers ---------------------------------------------------------------------------------------


def template(name: str, **more: Any) -> Json:
    labels = {"app": name}
    metadata = {"labels": labels, "annotations": {names.GPU_FRACTION: "0.5"}}
    spec = {"containers": [{"name": "main", "image": "x"}], **more}
    return {"selector": {"matchLabels": labels}, "template": {"metadata": metadata, "spec": spec}}


@pytest.fixture(scope="module")
def controllers(policed: ControlPlane) -> Iterator[None]:
    running = policed.start_controllers("deployment", "replicaset", "statefulset", "job", "serviceaccount-token")
    yield
    running.stop()


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize(
    ("kind", "group", "spec"),
    [
        ("deployments", "apps", template("deployment")),
        ("statefulsets", "apps", template("statefulset") | {"serviceName": "any"}),
        ("jobs", "batch", {"template": template("job", restartPolicy="Never")["template"]}),
    ],
)
async def test_one_annotation_in_a_template_is_enough(admin: Client, kind: str, group: str, spec: Json) -> None:
    name = spec["template"]["metadata"]["labels"]["app"]
    await admin.post(f"/apis/{group}/v1/namespaces/default/{kind}", {"metadata": {"name": name}, "spec": spec})
    pods: list[Json] = []

    async def made() -> bool:
        pods[:] = (await admin.get(f"/api/v1/namespaces/default/pods?labelSelector=app={name}"))["items"]
        return pods != []

    await eventually(made, lambda: f"{kind} make no pod")
    (pod,) = pods
    assert pod["spec"]["schedulerName"] == "gpu-scheduler"
    assert environment(pod, "main") == {"NVIDIA_VISIBLE_DEVICES": DEVICES}


def test_no_expression_is_of_doubtful_type(policed: ControlPlane) -> None:
    """The API server type-checks every expression against the schema of what it matches."""
    checks: dict[str, Json | None] = {}

    def checked() -> bool:
        listed = json.loads(policed.kubectl("get", "validatingadmissionpolicies", "-o", "json"))["items"]
        checks.update({p["metadata"]["name"]: p.get("status", {}).get("typeChecking") for p in listed})
        return None not in checks.values()

    running = policed.start_controllers("validatingadmissionpolicy-status-controller")
    try:
        wait_for(checked, PATIENCE, lambda: f"not checked: {checks}")
        assert len(checks) > 5
        assert {name: found for name, found in checks.items() if found} == {}
    finally:
        running.stop()
