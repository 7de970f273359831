"""Each mechanism gets what it reads, in its units."""

import pytest

from extender.core import names
from extender.core.enforcement import PlacedDevice, limit_annotations
from extender.core.podreader import placement_annotations
from extender.core.requests import GpuRequest
from extender.core.values import PodOnNode, ShareOnGpu
from tests.builders import PodBuilder, make_pod

HAMI, MPS, THREADS, PRELOAD = (
    names.PREFIX + key
    for key in (
        "cuda-device-memory-limit",
        "cuda-mps-pinned-device-mem-limit",
        "cuda-mps-active-thread-percentage",
        "ld-preload",
    )
)
LIBRARY = "/usr/local/vgpu/libvgpu.so"


def request(pod: PodBuilder) -> GpuRequest:
    found = GpuRequest.from_pod(pod.build())
    assert isinstance(found, GpuRequest)
    return found


def test_a_share_of_one_device() -> None:
    written = limit_annotations(request(make_pod().gpu_fraction("0.5")), [PlacedDevice("GPU-1", 40779, 81559)])
    assert written == {
        f"{HAMI}.0": "40779m",
        f"{MPS}.0": "GPU-1=40779M",
        f"{THREADS}.0": "49",
        "nvidia.com/container.main.gpu-memory.limit": "40779Mi",
        PRELOAD: LIBRARY,
    }


@pytest.mark.parametrize(
    ("backend", "keys"),
    [
        (names.UNENFORCED, set()),
        (names.HAMI_CORE, {f"{HAMI}.0", PRELOAD}),
        (names.MPS, {f"{MPS}.0", f"{THREADS}.0"}),
        (names.NRI, {"nvidia.com/container.main.gpu-memory.limit"}),
    ],
)
def test_a_node_with_a_backend_gets_what_that_one_reads(backend: str, keys: set[str]) -> None:
    """What the others read stays away: their variables are empty then."""
    asked, devices = request(make_pod().gpu_fraction("0.5")), [PlacedDevice("GPU-1", 40779, 81559)]
    everything = limit_annotations(asked, devices)
    assert limit_annotations(asked, devices, backend) == {key: everything[key] for key in keys}


def test_several_devices() -> None:
    devices = [PlacedDevice("GPU-1", 4096, 40960), PlacedDevice("GPU-2", 4096, 8192)]
    written = limit_annotations(request(make_pod().gpu_memory(4096).num_devices(2)), devices)
    assert (written[f"{MPS}.0"], written[f"{HAMI}.0"]) == ("GPU-1=4096M,GPU-2=4096M", "4096m")
    assert written[f"{THREADS}.0"] == "10"  # of the larger device: never more than the share


def test_each_container_is_held_to_its_own_part() -> None:
    pod = make_pod().container("a").container("b").init_container("side", sidecar=True)
    pod.container_gpu_memory("b", limit="1Gi").container_gpu_memory("side", request="2047.5Mi")
    written = limit_annotations(request(pod), [PlacedDevice("GPU-1", 3072, 10240)])
    # Init containers come first, as the admission policy counts them.
    assert written == {
        PRELOAD: LIBRARY,
        f"{HAMI}.0": "2048m",
        f"{MPS}.0": "GPU-1=2048M",
        f"{THREADS}.0": "20",
        f"{HAMI}.1": "1024m",
        f"{MPS}.1": "GPU-1=1024M",
        f"{THREADS}.1": "10",
    }


def test_the_smallest_share_keeps_some_threads() -> None:
    written = limit_annotations(request(make_pod().gpu_memory(1)), [PlacedDevice("GPU-1", 1, 81559)])
    assert written[f"{THREADS}.0"] == "1"


@pytest.mark.parametrize("size", [(names.GPU_FRACTION, "0.5"), (names.GPU_MEMORY, "4096")])
def test_a_bound_pod_still_says_what_it_said(size: tuple[str, str]) -> None:
    """The Binding writes the container's limit in the words of the other dialect."""
    pod = make_pod().annotation(*size).num_devices(1)
    before = request(pod)
    for key, value in limit_annotations(before, [PlacedDevice("GPU-1", 4096, 8192)]).items():
        pod.annotation(key, value)
    assert request(pod.annotation(names.SHARED_GPUS, "share-1")) == before


@pytest.mark.parametrize("length", [1, 36, 37, 41, 63])
def test_every_key_is_one_that_the_api_takes(length: int) -> None:
    """A Binding with a key that is too long is stored, and then no kubelet can write the pod's status."""
    found = request(make_pod().container("x" * length).gpu_memory(1))
    pod = PodOnNode("u", "d", "p", "n", {}, (ShareOnGpu("share-1", "GPU-1", 1),))
    written = limit_annotations(found, [PlacedDevice("GPU-1", 1, 8192)]) | placement_annotations(pod, found.containers)
    assert names.VISIBLE_DEVICES in written
    assert f"{HAMI}.0" in written
    assert all(len(key.partition("/")[2]) <= 63 for key in written)
    assert sum("xx" in key or ".x." in key for key in written) == (length <= 36) + (length <= 40)
