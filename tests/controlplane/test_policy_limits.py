"""No manifest lifts a share's limit: neither by what it mounts nor by variables, whether a policy sees them or not."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.policies import HARMLESS, created, decided, environment, refusal, verdicts, what_if

Json = dict[str, Any]
FOLDER: Final = "/opt/vgpu"
ON_THE_NODE: Final = {"hami-core-folder": FOLDER, "mps-folder": "/run/mps"}
OURS: Final = {"name": "gpu-extender-hami-core", "hostPath": {"path": FOLDER, "type": "Directory"}}
DEVICES: Final = f"metadata.annotations['{names.VISIBLE_DEVICES}']"

pytestmark = pytest.mark.usefixtures("policed")


@pytest.fixture
async def hami_core(admin: Client) -> AsyncIterator[None]:
    async with decided(admin, {"backend": "hami-core", **ON_THE_NODE}):
        yield


@pytest.fixture
async def mps(admin: Client) -> AsyncIterator[None]:
    async with decided(admin, {"backend": "mps", **ON_THE_NODE}):
        yield


def mounting(path: str, container: str = "main", **mount: Any) -> PodBuilder:
    """A share of ``main`` and of the sidecar ``side``, with a volume of the user's own at that path."""
    pod = make_pod().container_gpu_memory("main", limit="1Gi").container_gpu_memory("side", limit="1Gi")
    pod.container("main").container("other").init_container("side", sidecar=True)
    spec = pod.build()["spec"]
    (found,) = (c for c in spec["initContainers"] + spec["containers"] if c["name"] == container)
    found["volumeMounts"] = [{"name": "mine", "mountPath": path, **mount}]
    return pod.spec(**spec, volumes=[{"name": "mine", "emptyDir": {}}])


async def refusals(admin: Client, pods: Sequence[PodBuilder]) -> list[str | None]:
    return await verdicts(admin, [pod.build() for pod in pods])


# --- mounts -------------------------------------------------------------------------------------------------


OVER_HAMI_CORE: Final = {
    "/usr/local/vgpu": "/usr/local/vgpu",
    "/usr/local/vgpu/": "/usr/local/vgpu",
    "//usr/./local//vgpu": "/usr/local/vgpu",
    # A relative path is one from the root.
    "usr/local/vgpu": "/usr/local/vgpu",
    "/usr/local/vgpu/libvgpu.so": "/usr/local/vgpu/libvgpu.so",
    # It sets variables of its own choice from a file there, and believes a count that it finds.
    "/overrideEnv": "/overrideEnv",
    "/tmp/cudevshr.cache": "/tmp/cudevshr.cache",
}


@pytest.mark.usefixtures("hami_core")
@pytest.mark.parametrize("container", ["main", "side"])
async def test_nothing_is_mounted_over_the_library(admin: Client, container: str) -> None:
    expected = [
        f"container {container} mounts {said} itself, but what holds a GPU share to its limit is there"
        for said in OVER_HAMI_CORE.values()
    ]
    assert await refusals(admin, [mounting(path, container) for path in OVER_HAMI_CORE]) == expected


@pytest.mark.usefixtures("mps")
async def test_nothing_is_mounted_over_the_daemons_pipe_and_shared_memory(admin: Client) -> None:
    over = ("/tmp/nvidia-mps", "/tmp//nvidia-mps/", "/tmp/nvidia-mps/control", "/dev/shm", "/dev/shm/", "/dev/shm/x")
    said = ("/tmp/nvidia-mps", "/tmp/nvidia-mps", "/tmp/nvidia-mps/control", "/dev/shm", "/dev/shm", "/dev/shm/x")
    expected = [
        f"container main mounts {path} itself, but what holds a GPU share to its limit is there" for path in said
    ]
    assert await refusals(admin, [mounting(path) for path in over]) == expected


@pytest.mark.parametrize("backend", ["hami-core", "mps", "mps, hami-core"])
async def test_other_mounts_are_the_users(admin: Client, backend: str) -> None:
    """Those above ours too: what lies deeper is mounted later, so ours is on top."""
    beside = ("/tmp", "/usr/local", "/usr", "/dev", "/usr/local/vgpu2", "/tmp/nvidia-mps-logs", "/data/usr/local/vgpu")
    async with decided(admin, {"backend": backend, **ON_THE_NODE}):
        assert await refusals(admin, [mounting(path) for path in beside]) == [None] * len(beside)
        # A container without a share has no limit, and no device.
        assert await refusal(admin, mounting("/usr/local/vgpu", "other").build()) is None


@pytest.mark.usefixtures("hami_core")
async def test_a_path_that_goes_up_again_is_refused(admin: Client) -> None:
    assert await refusal(admin, mounting("/usr/lib/../local/vgpu").build()) is not None


async def test_without_a_backend_every_mount_is_the_users(admin: Client) -> None:
    paths = [*OVER_HAMI_CORE, "/dev/shm", "/tmp/nvidia-mps"]
    assert await refusals(admin, [mounting(path) for path in paths]) == [None] * len(paths)


# --- volumes and mounts by our names ------------------------------------------------------------------------


def with_volume(volume: Json, **mount: Any) -> PodBuilder:
    """The library's volume as the user would have it, and, if said, his mount of it."""
    mounts = [{"name": volume["name"], "mountPath": "/usr/local/vgpu", **mount}] if mount else []
    containers = [{"name": "main", "image": "x", "volumeMounts": mounts}]
    return make_pod().gpu_memory(1).spec(volumes=[volume], containers=containers)


@pytest.mark.usefixtures("hami_core")
@pytest.mark.parametrize(
    "source",
    [
        {"emptyDir": {}},
        {"hostPath": {"path": "/elsewhere", "type": "Directory"}},
        {"hostPath": {"path": FOLDER}},
        # An empty folder where the node has none: the container would start without the library.
        {"hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}},
    ],
    ids=["emptyDir", "another folder", "anything there", "made if missing"],
)
async def test_a_volume_by_our_name_is_ours(admin: Client, source: Json) -> None:
    assert await refusal(admin, with_volume({"name": OURS["name"], **source}).build()) == (
        "volume gpu-extender-hami-core must be the node's folder /opt/vgpu, of type Directory: "
        "what holds a GPU share to its limit is there"
    )


@pytest.mark.usefixtures("hami_core")
@pytest.mark.parametrize(
    "mount",
    [{"subPath": "empty"}, {"subPathExpr": "$(NOTHING)"}, {"readOnly": False}],
    ids=["a part", "a part by a variable", "to be written to"],
)
async def test_our_volume_is_mounted_as_a_whole_and_read_only(admin: Client, mount: Json) -> None:
    pod = with_volume(OURS, **{"readOnly": True, **mount}).build()
    assert await refusal(admin, pod) == (
        "container main mounts /usr/local/vgpu itself, but what holds a GPU share to its limit is there"
    )


@pytest.mark.usefixtures("hami_core")
async def test_what_we_would_write_may_be_there(admin: Client) -> None:
    assert await refusal(admin, with_volume(OURS).build()) is None
    assert await refusal(admin, with_volume(OURS, readOnly=True).build()) is None


async def test_without_a_backend_names_of_volumes_are_the_users(admin: Client) -> None:
    assert await refusal(admin, with_volume({"name": OURS["name"], "emptyDir": {}}).build()) is None


# --- variables that no policy sees --------------------------------------------------------------------------


def limit(place: int) -> str:
    return f"metadata.annotations['{names.HAMI_MEMORY_LIMIT}.{place}']"


@pytest.mark.usefixtures("hami_core")
@pytest.mark.parametrize(("asked", "limits"), [(None, 1), (1, 1), (3, 3), (20, 16)])
async def test_what_a_config_map_or_the_image_says_of_the_limit_is_overridden(
    admin: Client, asked: int | None, limits: int
) -> None:
    """A variable in ``env`` goes before those of ``envFrom`` and of the image. HAMi-core reads 16 devices' limits."""
    container = {"name": "main", "image": "x", "envFrom": [{"configMapRef": {"name": "what-it-holds-nobody-sees"}}]}
    pod = make_pod().gpu_memory(1).spec(containers=[container])
    if asked:
        pod.num_devices(asked)
    assert environment(await created(admin, pod), "main") == {
        "NVIDIA_VISIBLE_DEVICES": DEVICES,
        "LD_PRELOAD": f"metadata.annotations['{names.PRELOAD}']",
        "CUDA_DEVICE_MEMORY_LIMIT": limit(0),
        **{f"CUDA_DEVICE_MEMORY_LIMIT_{device}": limit(0) for device in range(limits)},
        **HARMLESS,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_DISABLE_CONTROL", "true"),
        ("CUDA_OVERSUBSCRIBE", "true"),
        ("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/tmp/$(HOSTNAME)"),
        ("CUDA_REDIRECT", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        ("CUDA_DEVICE_MEMORY_LIMIT_0", ""),
    ],
)
async def test_a_user_sets_them_to_nothing_else(admin: Client, name: str, value: str) -> None:
    """Whatever the setting: the pod may land where HAMi-core is."""
    container = {"name": "main", "image": "x", "env": [{"name": name, "value": value}]}
    assert await refusal(admin, make_pod().gpu_memory(1).spec(containers=[container]).build()) == (
        f"container main sets {name}, but the devices and limits of a pod that asks for a GPU share are the extender's "
        "to set"
    )
    assert await refusal(admin, make_pod().spec(containers=[container]).build()) is None


@pytest.mark.parametrize("backend", ["hami-core", "mps", "mps, hami-core"])
async def test_a_completed_pod_created_again_stays_as_it_is(admin: Client, backend: str) -> None:
    async with decided(admin, {"backend": backend, **ON_THE_NODE}):
        once = await created(admin, mounting("/data").num_devices(2))
        metadata = {"name": "again", "annotations": once["metadata"]["annotations"]}
        again = await admin.post(what_if(), {"metadata": metadata, "spec": once["spec"]})
        assert again["spec"] == once["spec"]
