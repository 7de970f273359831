"""The policy that judges requests says of every pod what the parser says, word for word."""

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

import pytest

from extender.core import names
from extender.core.requests import GpuRequest, InvalidRequest
from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.policies import verdicts

Pod = Mapping[str, Any]

SEED: Final = 20261121
RANDOM_PODS: Final = 3000

FRACTIONS: Final = [
    "0.5",
    ".5",
    "0.001",
    ".999999999999999999",
    "0.0000000000000000001",
    "0.000",
    ".",
    "0.",
    "00.5",
    "1",
    "1.0",
    "1.5",
    "-0.5",
    "+.5",
    "0,5",
    "5e-1",
    "0.5f",
    "half",
    "",
    " 0.5",
    "0.5\n",
    "٠.٥",
    "½",
    "0.5\x00",
    "\u202e0.5",
    "9" * 41,
    "é" * 41,
    'say "half"',
    "a\\b\tc",
    "😀" * 50,
]
MEMORIES: Final = [
    "1",
    "4096",
    "0004096",
    "999999999",
    "1000000000",
    "0",
    "000000000",
    "-1",
    "+1",
    "1.0",
    "4Gi",
    "1e3",
    "0x10",
    "1_0",
    "４",
    "",
    "1 ",
]
COUNTS: Final = ["1", "2", "999", "007", "1000", "0", "00", "-1", "+1", "2.0", "two", "", " 1"]
QUANTITIES: Final = [
    "4Gi",
    "1Mi",
    "1024Ki",
    "1023Ki",
    "1048576",
    "1048575",
    "1048575.9999999999",
    "1048575.999999999",
    "1.5Gi",
    ".5Gi",
    "1.Gi",
    ".",
    ".Gi",
    "+",
    "-",
    "+4Gi",
    "-4Gi",
    "0",
    "0Gi",
    "1e6",
    "1e7",
    "1E7",
    "1E",
    "1e",
    "1e+7",
    "1e-7",
    "10000000e-1",
    "1ee7",
    "1e7Gi",
    "1e999",
    "1e1000",
    "1e00007",
    "1e-999",
    "9e18",
    "1e19",
    "10E",
    "100E",
    "200E",
    "8Ei",
    "9Ei",
    "999999999999E",
    "1048576000m",
    "1048575999m",
    "1048576000000u",
    "1048576000000000n",
    "4gi",
    "4GI",
    "4GiB",
    "4G",
    "4g",
    "4K",
    "4k",
    "4ki",
    "9223372036854775807",
    "9223372036854775808",
    "１Gi",
    "4Gi\n",
    "1_0Gi",
    "0x10Gi",
    "inf",
    "nan",
    "Gi",
    "",
    " 4Gi",
    "4 Gi",
    "0" * 60 + "4Gi",
    "0" * 61 + "4Gi",
    "1" + "0" * 250000,
]
MODES: Final = ("time-slicing", "sm-sharing", "warp", "", "Time-Slicing")
NAMES: Final = ("a", "b", "setup", "side", "ghost")
KINDS: Final = (names.MEMORY_REQUEST_SUFFIX, names.MEMORY_LIMIT_SUFFIX, names.COMPUTE_MODE_SUFFIX)


# Thousands of requests: minutes where the machine has other work.
pytestmark = [pytest.mark.usefixtures("policed"), pytest.mark.timeout(900)]


def key(container: str, kind: str) -> str:
    return f"{names.CONTAINER_PREFIX}{container}{kind}"


def parsed(pod: Pod) -> str | None:
    answer = GpuRequest.from_pod(pod)
    return answer.sentence if isinstance(answer, InvalidRequest) else None


async def agree(admin: Client, pods: Sequence[PodBuilder]) -> list[str | None]:
    """The verdicts, once both sides have given the same on every pod."""
    built = [pod.build() for pod in pods]
    expected = [parsed(pod) for pod in built]
    found = await verdicts(admin, built)
    different = [
        f"{pod['metadata']['annotations']}\n  parser: {ours}\n  policy: {theirs}"
        for pod, ours, theirs in zip(built, expected, found, strict=True)
        if ours != theirs
    ]
    assert not different, f"{len(different)} of {len(built)}\n" + "\n".join(different[:10])
    return found


async def test_every_edge_of_every_form(admin: Client) -> None:
    pods = [make_pod().gpu_fraction(text) for text in FRACTIONS]
    pods += [make_pod().gpu_memory(text) for text in MEMORIES]
    pods += [make_pod().gpu_memory("4096").num_devices(text) for text in COUNTS]
    pods += [make_pod().gpu_memory("4096").strategy(text) for text in (*names.STRATEGIES, "", "tight", "Binpack")]
    pods += [make_pod().gpu_memory("4096").container_name(text) for text in ("main", "ghost", "", "Main", "x" * 70)]
    pods += [make_pod().annotation(key("main", kind), text) for kind in KINDS[:2] for text in QUANTITIES]
    pods += [make_pod().gpu_memory("4096").compute_mode("main", mode) for mode in MODES]
    found = await agree(admin, pods)
    assert 60 < sum(verdict is None for verdict in found) < 100


async def test_every_pair_of_request_and_limit(admin: Client) -> None:
    sizes = [
        text
        for text in QUANTITIES
        if len(text) < 70 and parsed(make_pod().container_gpu_memory("main", limit=text).build()) is None
    ]
    pods = [make_pod().container_gpu_memory("main", request=r, limit=limit) for r, limit in product(sizes, sizes)]
    found = await agree(admin, pods)
    assert 100 < sum(verdict is None for verdict in found) < len(pods) - 100


async def test_every_set_of_annotations_of_which_each_is_valid(admin: Client) -> None:
    """Rules of what goes together, in every combination of what may be there."""
    choices: list[list[tuple[str, str] | None]] = [
        [None, (names.GPU_FRACTION, "0.5")],
        [None, (names.GPU_MEMORY, "4096")],
        [None, (names.NUM_DEVICES, "2")],
        [None, *((names.CONTAINER_NAME, name) for name in ("a", "setup", "ghost"))],
        [None, *((key(name, KINDS[1]), "4Gi") for name in ("a", "side", "ghost"))],
        [None, (key("b", KINDS[0]), "4Gi")],
        [None, *((key(name, KINDS[2]), "sm-sharing") for name in ("a", "b", "ghost"))],
    ]
    pods = []
    for chosen in product(*choices):
        pod = make_pod().container("a").container("b").init_container("setup").init_container("side", sidecar=True)
        for said in filter(None, chosen):
            pod.annotation(*said)
        pods.append(pod)
    found = await agree(admin, pods)
    assert len(pods) == 2**4 * 4**3
    assert sum(verdict is None for verdict in found) > 20


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/gpu"]
)
async def test_beside_gpu_resources(admin: Client, resource: str) -> None:
    created = await admin.post(
        "/apis/node.k8s.io/v1/runtimeclasses",
        {"metadata": {"generateName": "heavy-"}, "handler": "heavy", "overhead": {"podFixed": {resource: "1"}}},
    )
    heavy = created["metadata"]["name"]
    pods = []
    for said in ((names.GPU_FRACTION, "0.5"), (key("main", KINDS[1]), "4Gi"), (names.NUM_DEVICES, "2"), None):
        given = [make_pod().container("main", limits={resource: count}) for count in ("0", "1", "2")]
        given += [make_pod().container().init_container(limits={resource: "1"})]
        given += [make_pod().container().container("b", limits={resource: "1", "nvidia.com/aaa": "1"})]
        given += [make_pod().container().spec(overhead={resource: "1"}, runtimeClassName=heavy)]
        pods += [pod.annotation(*said) if said else pod for pod in given]
    await agree(admin, pods)


async def test_annotations_that_only_look_like_ours(admin: Client) -> None:
    pods = [
        make_pod().annotation(annotation, "4Gi")
        for annotation in (
            "nvidia.com/container.gpu-memory.limit",
            "nvidia.com/container.gpu-memory.request",
            "nvidia.com/container.gpu-compute.mode",
            "nvidia.com/container.main.gpu-memory",
            "nvidia.com/container.main.gpu-memory.limits",
            "nvidia.com/containers.main.gpu-memory.limit",
            "gpu-fractions",
            "gpu-memory-limit",
        )
    ]
    await agree(admin, pods)


def random_pod(rng: random.Random) -> PodBuilder:
    pod = make_pod().container("a")
    if rng.random() < 0.6:
        pod.container("b")
    if rng.random() < 0.4:
        pod.init_container("setup")
    if rng.random() < 0.4:
        pod.init_container("side", sidecar=True)
    if rng.random() < 0.05:
        pod.container("c", limits={names.GPU_RESOURCE: "1"})
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6))):
        pod.annotation(*random_annotation(rng))
    return pod


def random_annotation(rng: random.Random) -> tuple[str, str]:
    kind = rng.randrange(7)
    if kind == 0:
        return names.GPU_FRACTION, scribbled(rng, FRACTIONS, "0.5")
    if kind == 1:
        return names.GPU_MEMORY, scribbled(rng, MEMORIES, "4096")
    if kind == 2:
        return names.NUM_DEVICES, scribbled(rng, COUNTS, "2")
    if kind == 3:
        return names.CONTAINER_NAME, rng.choice(NAMES)
    if kind == 4:
        return key(rng.choice(NAMES), KINDS[2]), rng.choice(MODES[:2] if rng.random() < 0.9 else MODES)
    return key(rng.choice(NAMES), rng.choice(KINDS[:2])), scribbled(rng, QUANTITIES[:-1], "4Gi")


def scribbled(rng: random.Random, texts: Sequence[str], usual: str) -> str:
    """Mostly what users write, sometimes an edge, sometimes an edge with one character changed."""
    if rng.random() < 0.6:
        return usual
    text = rng.choice(texts)
    if rng.random() < 0.5:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice("0123456789.eEGiMk+- \n\x7f\u00e9\u3000") + text[place + rng.randrange(2) :]
    return text


async def test_thousands_of_random_sets(admin: Client) -> None:
    rng = random.Random(SEED)
    found = await agree(admin, [random_pod(rng) for _ in range(RANDOM_PODS)])
    assert sum(verdict is None for verdict in found) > RANDOM_PODS / 10
    assert len({(verdict or "").partition('" but ')[2] for verdict in found}) >= 12
