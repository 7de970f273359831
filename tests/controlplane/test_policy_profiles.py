"""What the strict profile forbids, and what holds where settings are missing or the API server is older."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from extender.core import names
from extender.core.reservation import Template, reservation_pod
from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import (
    HARMLESS,
    SETTINGS,
    decided,
    grant_everything_on_pods,
    install,
    refusal,
    refused,
    undecided,
    what_if,
)
from tests.controlplane.process import eventually
from tests.controlplane.users import EXTENDER, TENANT
from tests.manifests import OVERLAYS, one

Json = dict[str, Any]
RESERVATION: Final = reservation_pod(
    "share-1", "node-1", names.GPU_RESOURCE, Template("gpu-scheduler", "gpu-extender:0.1.0")
)
FIELD: Final = {"fieldRef": {"fieldPath": f"metadata.annotations['{names.VISIBLE_DEVICES}']"}}
(VALIDATING_ONLY,) = (folder for folder in OVERLAYS if folder.name == "validating-only")


@pytest.fixture(scope="module")
def strict(policed: ControlPlane) -> ControlPlane:
    namespace = {"name": "strict", "labels": {names.PROFILE_LABEL: names.STRICT}}
    policed.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    )
    return policed


@pytest.fixture
async def admin(strict: ControlPlane) -> AsyncIterator[Client]:
    async with Client(strict) as client:
        yield client


def pod_of(container: Json | None = None, **spec: Any) -> PodBuilder:
    return make_pod("pod", "strict").spec(containers=[{"name": "main", "image": "x", **(container or {})}], **spec)


def folder(path: str, **more: Any) -> PodBuilder:
    return pod_of(volumes=[{"name": "v", "hostPath": {"path": path, **more}}])


# --- the strict profile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
async def test_no_pod_names_devices(admin: Client, variable: str, kind: str) -> None:
    container = {"name": "one", "image": "x", "env": [{"name": variable, "value": "all"}]}
    pod = pod_of(initContainers=[container]) if kind == "initContainers" else pod_of(container)
    assert await refusal(admin, pod.build()) == (
        "container one names GPU devices in its environment, which the strict profile of this namespace forbids"
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [("containers", {}), ("initContainers", {}), ("initContainers", {"restartPolicy": "Always"})],
    ids=["app", "init", "sidecar"],
)
async def test_no_pod_is_privileged(admin: Client, kind: str, more: Json) -> None:
    container = {"name": "one", "image": "x", "securityContext": {"privileged": True}, **more}
    pod = pod_of(initContainers=[container]) if kind == "initContainers" else pod_of(container)
    assert await refusal(admin, pod.build()) == (
        "container one is privileged and would see every GPU, which the strict profile of this namespace forbids"
    )


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        ({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}, "container debug names GPU devices in its"),
        ({"env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]}, "container debug names GPU devices in its"),
        ({"securityContext": {"privileged": True}}, "container debug is privileged and would see every GPU"),
        ({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}, None),
        ({}, None),
    ],
    ids=["devices", "devices by CUDA", "privileged", "none", "nothing"],
)
async def test_no_debug_container_does_either(
    admin: Client, container: Json, sentence: str | None, share: bool
) -> None:
    built = make_pod("debugged", "strict")
    pod = await admin.create_pod((built.gpu_memory(1) if share else built).build())
    body = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "x", **container}]}}
    kind = "application/strategic-merge-patch+json"
    request = admin.send("PATCH", f"{path_of(pod)}/ephemeralcontainers", body, kind)
    try:
        if sentence is None:
            await request
        elif share and "env" in container:
            await refused(request)  # which of two policies speaks is the API server's choice
        else:
            assert (await refused(request)).startswith(sentence)
    finally:
        await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


@pytest.mark.parametrize(
    "path",
    [
        "/dev/nvidia0",
        "/dev",
        "//dev/",
        "/./dev",
        "/",
        "/proc",
        "/sys/fs",
        "/run/nvidia/mps",
        "/var/run/nvidia-persistenced",
        "/var",
        "/var/lib",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "/run/containerd/containerd.sock",
    ],
)
async def test_no_pod_mounts_what_hands_devices_out(admin: Client, path: str) -> None:
    assert (await refusal(admin, folder(path).build()) or "").startswith("the volume of the node's /")


@pytest.mark.parametrize(
    "pod",
    [
        pod_of(),
        folder("/data/sets"),
        folder("/home/dev"),
        folder("/var/lib/data"),
        pod_of({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}),
        pod_of().gpu_memory(1),
        make_pod("pod", "strict").gpus(1),
        make_pod("pod", "strict").gpu_memory(1).container("a").container("b").init_container("c"),
    ],
)
async def test_everything_else_is_as_anywhere(admin: Client, pod: PodBuilder) -> None:
    assert await refusal(admin, pod.build()) is None


@pytest.mark.parametrize("backend", ["mps", "hami-core", "hami-core, mps"])
async def test_the_folders_of_the_backends_are_those_of_share_pods(admin: Client, backend: str) -> None:
    async with decided(admin, {"backend": backend, "hami-core-folder": "/var/lib/nvidia/vgpu"}):
        assert await refusal(admin, make_pod("pod", "strict").gpu_memory(1).build()) is None
        for path in ("/run/nvidia/mps/pipe", "/var/lib/nvidia/vgpu"):
            assert "which the strict profile" in (await refusal(admin, folder(path).build()) or "")


async def test_our_name_on_a_volume_opens_no_folder_to_a_pod_without_a_share(admin: Client) -> None:
    """With the daemon's pipe it would be a client of MPS that nobody accounts."""
    volumes = [{"name": "gpu-extender-mps-pipe", "hostPath": {"path": "/run/nvidia/mps/pipe", "type": "Directory"}}]
    async with decided(admin, {"backend": "mps"}):
        stranger = make_pod("pod", "strict").spec(volumes=volumes).build()
        assert "which the strict profile" in (await refusal(admin, stranger) or "")
        assert await refusal(admin, make_pod("pod", "strict").gpu_memory(1).spec(volumes=volumes).build()) is None


async def test_other_namespaces_are_not_strict(admin: Client) -> None:
    container = {"name": "main", "image": "x", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
    pod = make_pod().spec(containers=[container], volumes=[{"name": "v", "hostPath": {"path": "/dev"}}])
    assert await refusal(admin, pod.build()) is None


# --- without settings ---------------------------------------------------------------------------------------


async def test_without_the_settings_only_share_pods_and_strict_namespaces_wait(admin: Client) -> None:
    async with undecided(admin):
        assert "schedulerName" in (await refusal(admin, make_pod("p").gpu_memory(1).build()) or "")
        for namespace in ("default", "kube-system"):
            assert await refusal(admin, make_pod("p", namespace).build()) is None
        assert "no params found" in (await refusal(admin, make_pod("p", "strict").build()) or "")


async def test_without_the_settings_our_own_pods_are_created(
    strict: ControlPlane, admin: Client, tenant: Client
) -> None:
    """What brings everything back must not wait for it; the tenant is anybody who may create pods."""
    template = one("Deployment", "gpu-extender", "gpu-extender")["spec"]["template"]
    metadata = {**template["metadata"], "name": "started"}
    async with undecided(admin), Client(strict, EXTENDER) as extender:
        await tenant.post(what_if("gpu-extender"), {"metadata": metadata, "spec": template["spec"]})
        await extender.post(what_if(names.RESERVATION_NAMESPACE), RESERVATION)


# --- before Kubernetes 1.36 ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def older() -> Iterator[ControlPlane]:
    """The oldest Kubernetes that this API server can play: no MutatingAdmissionPolicy of version v1."""
    with ControlPlane(apiserver_flags=["--emulated-version=kube=1.33"]) as plane:
        install(plane, VALIDATING_ONLY)
        yield plane


async def test_before_1_36_the_user_writes_three_lines_and_is_told_which(
    older: ControlPlane, strict: ControlPlane
) -> None:
    variable = {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": FIELD}
    async with Client(older) as admin:
        one = make_pod().gpu_memory(1)
        assert "schedulerName" in (await refusal(admin, one.build()) or "")
        two = make_pod().gpu_memory(1).spec(schedulerName="gpu-scheduler")
        assert await refusal(admin, two.build()) == (
            "container main has a GPU share but does not set NVIDIA_VISIBLE_DEVICES from the field "
            f"{FIELD['fieldRef']['fieldPath']}"
        )
        three = two.spec(containers=[{"name": "main", "image": "x", "env": [variable]}])
        assert await refusal(admin, three.build()) is None
        foreign = three.spec(schedulerName="mine")
        assert await refusal(admin, foreign.build()) == (
            'schedulerName is "mine" but a pod that asks for a GPU share must name "gpu-scheduler"'
        )


def complete(*others: Json, **spec: Any) -> PodBuilder:
    """What a user writes there for a share of ``main``."""
    main = {"name": "main", "image": "x", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": FIELD}]}
    return make_pod().gpu_memory(1).spec(schedulerName="gpu-scheduler", containers=[main, *others], **spec)


async def test_before_1_36_the_other_containers_say_that_they_see_no_device(older: ControlPlane) -> None:
    """An image may say "all", which no policy sees."""
    void = {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}
    unseen = {"envFrom": [{"configMapRef": {"name": "what-it-holds-nobody-sees"}}]}
    side, setup = {"name": "side", "image": "x"}, {"name": "setup", "image": "x"}
    proxy = {**setup, "restartPolicy": "Always"}
    sentence = (
        'has no GPU share but does not set NVIDIA_VISIBLE_DEVICES to "void", without which its image may see every GPU '
        "of the node"
    )
    async with Client(older) as admin:
        assert await refusal(admin, complete(side).build()) == f"container side {sentence}"
        assert await refusal(admin, complete({**side, **unseen}).build()) == f"container side {sentence}"
        for init in (setup, proxy):
            assert await refusal(admin, complete(initContainers=[init]).build()) == f"container setup {sentence}"
            fine = complete({**side, **void}, initContainers=[{**init, **void}])
            assert await refusal(admin, fine.build()) is None


async def test_before_1_36_so_do_debug_containers(older: ControlPlane) -> None:
    async with Client(older) as admin:
        pod = await admin.create_pod(complete().build())
        name = pod["metadata"]["name"]
        debug = ("debug", name, "--image=x")
        assert 'container shell has no GPU share but does not set NVIDIA_VISIBLE_DEVICES to "void"' in older.kubectl(
            *debug, "--container=shell", check=False
        )
        older.kubectl(*debug, "--container=shell", "--env=NVIDIA_VISIBLE_DEVICES=void")
        await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


async def test_before_1_36_the_user_is_told_what_a_backend_needs(older: ControlPlane) -> None:
    """A share without what limits it would have no limit, and nobody would know."""
    async with Client(older) as admin:
        before = (await admin.get(SETTINGS))["data"]
        await admin.patch(SETTINGS, {"data": {"backend": "hami-core"}})
        try:
            # The policy has no say in which container is what: the variable with the devices shows it.
            expected = (
                "container main has a GPU share but does not set CUDA_DEVICE_MEMORY_LIMIT, CUDA_DEVICE_MEMORY_LIMIT_0, "
                "LD_PRELOAD, CUDA_DISABLE_CONTROL, CUDA_OVERSUBSCRIBE, CUDA_DEVICE_MEMORY_SHARED_CACHE, CUDA_REDIRECT, "
                "which hold it to its limit here"
            )

            async def told() -> bool:
                return await refusal(admin, complete().build()) == expected

            await eventually(told, lambda: "a share needs nothing of the backend")
            limit, preload = (
                {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{key}']"}}}
                for key in (f"{names.HAMI_MEMORY_LIMIT}.0", names.PRELOAD)
            )
            pod = complete().build()
            (main,) = pod["spec"]["containers"]
            main["env"] += [
                {"name": "CUDA_DEVICE_MEMORY_LIMIT", **limit},
                {"name": "CUDA_DEVICE_MEMORY_LIMIT_0", **limit},
                {"name": "LD_PRELOAD", **preload},
                *({"name": name, "value": value} for name, value in HARMLESS.items()),
            ]
            assert await refusal(admin, pod) == (
                "container main has a GPU share but does not mount volume gpu-extender-hami-core at /usr/local/vgpu, "
                "read-only: what holds it to its limit is there"
            )
            mount = {"name": "gpu-extender-hami-core", "mountPath": "/usr/local/vgpu", "readOnly": True}
            main["volumeMounts"] = [mount]
            volume = {"name": mount["name"], "hostPath": {"path": "/usr/local/vgpu", "type": "Directory"}}
            pod["spec"]["volumes"] = [volume]
            assert await refusal(admin, pod) is None
            elsewhere = complete(nodeSelector={names.ENFORCEMENT_LABEL: "none"})
            assert await refusal(admin, elsewhere.build()) is None, "no node that it may go to has the backend"
        finally:
            await admin.patch(SETTINGS, {"data": before})


async def test_before_1_36_everything_is_protected_all_the_same(older: ControlPlane) -> None:
    async with Client(older) as admin:
        ours = make_pod().gpu_memory("x").spec(schedulerName="gpu-scheduler")
        assert "gpu-memory" in (await refusal(admin, ours.build()) or "")
        assert "must not set nodeName" in (
            await refusal(admin, make_pod().gpu_memory(1).spec(nodeName="n", schedulerName="gpu-scheduler").build())
            or ""
        )
        listed = (await admin.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"))["items"]
        assert len(listed) == 8
        stored = await admin.post(what_if(), {"metadata": {"name": "p"}, "spec": make_pod().build()["spec"]})
        assert stored["spec"]["schedulerName"] == "default-scheduler"


async def test_before_1_36_an_ordinary_user_forges_nothing(older: ControlPlane) -> None:
    grant_everything_on_pods(older, TENANT)
    only = f"annotation {names.VISIBLE_DEVICES} is written by the GPU extender only"
    placed = {names.VISIBLE_DEVICES: "GPU-1"}
    async with Client(older, TENANT) as tenant:
        forged = make_pod("forged").annotation(names.VISIBLE_DEVICES, "GPU-1")
        assert await refused(tenant.create_pod(forged.build())) == only
        pod = await tenant.create_pod(make_pod("mine").build())
        for resource in ("", "/status"):
            written = {"metadata": {"annotations": placed}}
            assert await refused(tenant.patch(path_of(pod) + resource, written)) == only
        assert await refused(tenant.bind(pod, "node-1", placed)) == only
        reservations = f"/api/v1/namespaces/{names.RESERVATION_NAMESPACE}/pods"
        sentence = "reservation pods are created by the GPU extender only"
        assert await refused(tenant.post(reservations, RESERVATION)) == sentence
        await tenant.bind(pod, "node-1")  # It was none of his rights that was missing.
