"""Whatever stands in a pod: a request or a refusal, the same at every try, and never a GPU overlooked."""

from fractions import Fraction
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from extender.core import names
from extender.core.requests import GpuRequest, InvalidRequest, Share
from tests.builders import make_pod

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
CONTAINER_NAMES = st.sampled_from(["a", "b", "c", "ghost", "", "a.b"])
FIXED = [
    names.GPU_FRACTION,
    names.GPU_MEMORY,
    names.NUM_DEVICES,
    names.CONTAINER_NAME,
    names.PLACEMENT_STRATEGY,
    "nvidia.com/container.gpu-memory.limit",
    names.MEMORY_MIB,
]
SUFFIXES = [
    names.MEMORY_REQUEST_SUFFIX,
    names.MEMORY_LIMIT_SUFFIX,
    names.COMPUTE_MODE_SUFFIX,
    names.DEVICES_SUFFIX,
]
KEYS = st.sampled_from(FIXED) | st.builds(
    lambda name, suffix: names.CONTAINER_PREFIX + name + suffix, CONTAINER_NAMES, st.sampled_from(SUFFIXES)
)
TEXTS = st.sampled_from(
    [
        "0.5",
        ".25",
        "1",
        "2",
        "4096",
        "4Gi",
        "2Gi",
        "0",
        "1e30",
        "-1",
        "a",
        "b",
        "ghost",
        "time-slicing",
        "sm-sharing",
        "warp",
        "binpack",
        "spread",
        "",
        "٥",
        "1" * 5000,
    ]
)
VALUES = TEXTS | JSON
ANNOTATIONS = st.dictionaries(KEYS | st.text(max_size=8), VALUES, max_size=5)
RESOURCES = st.sampled_from(["cpu", "memory", "pods", names.GPU_RESOURCE, "nvidia.com/mig-1g.10gb", "amd.com/gpu"])
LISTED = st.none() | st.dictionaries(RESOURCES, VALUES, max_size=2) | JSON
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": CONTAINER_NAMES | JSON,
            "restartPolicy": st.sampled_from(["Always", None, 1]),
            "resources": st.none() | st.fixed_dictionaries({"requests": LISTED, "limits": LISTED}) | JSON,
        },
    )
    | JSON,
    max_size=3,
)
PODS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"annotations": ANNOTATIONS | JSON, "labels": JSON}) | JSON,
        "spec": st.fixed_dictionaries(
            {"containers": CONTAINERS | JSON},
            optional={"initContainers": CONTAINERS | JSON, "resources": JSON, "overhead": LISTED},
        )
        | JSON,
    },
)


def check_answer(pod: object) -> None:
    answer = GpuRequest.from_pod(pod)
    assert answer == GpuRequest.from_pod(pod)
    if isinstance(answer, InvalidRequest):
        assert answer.sentence.isprintable()
        assert 0 < len(answer.sentence) < 1000
        return
    assert all(0 <= amount < 2**63 for amount in answer.resources.values())
    assert all(name.startswith(names.NVIDIA_DOMAIN) and count > 0 for name, count in answer.gpus)
    assert answer.share is None or (not answer.gpus and answer.containers and answer.share.devices >= 1)
    assert isinstance(hash(answer.shape), int)


@given(JSON)
def test_any_json_as_a_pod(pod: object) -> None:
    check_answer(pod)


@given(PODS)
@settings(max_examples=300, deadline=None)
def test_anything_that_looks_like_a_pod(pod: dict[str, Any]) -> None:
    check_answer(pod)


@given(st.dictionaries(KEYS, TEXTS, min_size=1, max_size=4), st.sampled_from([None, "0", "1"]))
@settings(max_examples=300, deadline=None)
def test_any_set_of_annotations_on_a_good_pod(annotations: dict[str, str], gpus: str | None) -> None:
    pod = make_pod().container("a", limits={names.GPU_RESOURCE: gpus}).container("b").init_container("c")
    for key, value in annotations.items():
        pod.annotation(key, value)
    check_answer(pod.build())


@given(st.dictionaries(KEYS, TEXTS, min_size=2, max_size=4))
@settings(deadline=None)
def test_the_order_of_annotations_does_not_matter(annotations: dict[str, str]) -> None:
    pod = make_pod().container("a").container("b").build()
    turned = dict(reversed(annotations.items()))
    answers = [GpuRequest.from_pod(pod | {"metadata": {"annotations": given}}) for given in (annotations, turned)]
    assert answers[0] == answers[1]


QUANTITIES = st.builds(
    lambda number, suffix: f"{number}{suffix}",
    st.integers(-(10**25), 10**25) | st.decimals(-100, 100, places=3),
    st.sampled_from(["", "", "m", "n", "k", "E", "Ki", "Ei", "e5", "e99999", "e-99999"]),
)


@given(
    quantity=QUANTITIES | st.integers() | st.floats(),
    resource=st.sampled_from([names.GPU_RESOURCE, "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"]),
    kind=st.sampled_from(["requests", "limits"]),
    init=st.booleans(),
)
def test_a_gpu_quantity_other_than_zero_never_passes_as_no_gpu(
    quantity: object, resource: str, kind: str, init: bool
) -> None:
    assume(str(quantity).strip("-0.nmkEKi").partition("e")[0].strip("-0.") != "")
    pod = make_pod()
    listed: Any = {kind: {resource: quantity}}
    pod.init_container("x", **listed) if init else pod.container("x", **listed)
    answer = GpuRequest.from_pod(pod.build())
    assert isinstance(answer, InvalidRequest) or answer.asks_for_gpu


@given(parts=st.integers(2, 1000), mib=st.integers(1000, 2**20))
def test_k_parts_of_one_kth_fit_one_card(parts: int, mib: int) -> None:
    digits = f"{Fraction(10**18, parts).__floor__():018d}"
    answer = GpuRequest.from_pod(make_pod().fraction(f"0.{digits}").build())
    assert isinstance(answer, GpuRequest)
    assert answer.share is not None
    part = answer.share.mib_of(mib)
    assert parts * part <= mib
    assert parts * (part + 1) > mib - parts, "and the loss is less than a MiB each, and what 18 digits cut"


@given(
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=20),
    idle=st.integers(0, 1000),
    mib=st.integers(20_000, 2**20),
)
def test_fractions_that_sum_to_at_most_one_fit(weights: list[int], idle: int, mib: int) -> None:
    parts = [Fraction(weight, sum(weights) + idle) for weight in weights]
    assume(min(parts) * mib >= 1)
    assert sum(Share(fraction=part).mib_of(mib) for part in parts) <= mib
