"""What kube-scheduler counts for a pod."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.core.errors import InputError, InvalidQuantity
from extender.core.requests.quantity import LARGEST
from extender.core.requests.resources import requested
from tests.builders import make_pod

GPU = "nvidia.com/gpu"
GI = 2**30


def test_cpu_is_thousandths_and_everything_else_base_units() -> None:
    pod = make_pod().container("a", requests={"cpu": "1.5", "memory": "4Gi", GPU: "2", "hugepages-2Mi": "4Mi"})
    assert requested(pod.build()) == {"cpu": 1500, "memory": 4 * GI, GPU: 2, "hugepages-2Mi": 4 * 2**20}


@pytest.mark.parametrize(
    ("resource", "value", "amount"),
    [
        ("cpu", "0.1m", 1),
        ("cpu", "1500u", 2),
        ("memory", "0.5", 1),
        ("memory", "1500m", 2),
        ("cpu", 2, 2000),
        ("cpu", 0.5, 500),
        ("memory", 0, 0),
        (GPU, "1000m", 1),
        (GPU, "1e1", 10),
        (GPU, "2.0", 2),
        ("a.io/b", "1500m", 2),
    ],
)
def test_amounts_are_rounded_up(resource: str, value: object, amount: int) -> None:
    assert requested(make_pod().container(requests={resource: value}).build()) == {resource: amount}


def test_a_pod_that_asks_for_nothing() -> None:
    assert requested(make_pod().build()) == {}


def test_app_containers_are_added() -> None:
    pod = make_pod().container("a", requests={"cpu": "1"}).container("b", requests={"cpu": "2", "memory": "1"})
    assert requested(pod.build()) == {"cpu": 3000, "memory": 1}


def test_a_missing_request_is_the_limit() -> None:
    pod = make_pod().container("a", requests={"cpu": "1"}, limits={"cpu": "8", "memory": "1Gi"})
    assert requested(pod.build()) == {"cpu": 1000, "memory": GI}


@pytest.mark.parametrize(
    ("request_", "limit"), [("1", "3"), ("3", "1"), (None, "3"), ("3", None), ("0", "3"), ("3", "0")]
)
def test_extended_resources_take_the_larger_one(request_: object, limit: object) -> None:
    pod = make_pod().container("a", requests={GPU: request_}, limits={GPU: limit}).build()
    assert requested(pod) == {GPU: 3}


def test_ordinary_init_containers_run_one_at_a_time_before_the_others() -> None:
    pod = make_pod().container("a", requests={"cpu": "1"}).container("b", requests={"cpu": "1"})
    pod.init_container("i", requests={"cpu": "3", "memory": "5"}).init_container("j", requests={"cpu": "2"})
    assert requested(pod.build()) == {"cpu": 3000, "memory": 5}


def test_a_small_init_container_costs_nothing() -> None:
    pod = make_pod().container("a", requests={"cpu": "4"}).init_container("i", requests={"cpu": "3"})
    assert requested(pod.build()) == {"cpu": 4000}


def test_sidecars_run_beside_the_app_and_beside_the_init_containers_after_them() -> None:
    pod = (
        make_pod()
        .container("app", requests={"cpu": "2", "memory": "1"})
        .init_container("before", requests={"cpu": "4"})
        .init_container("s1", requests={"cpu": "1", "memory": "10"}, sidecar=True)
        .init_container("between", requests={"cpu": "4"})
        .init_container("s2", requests={"cpu": "2"}, sidecar=True)
        .init_container("last", requests={"cpu": "4", "memory": "2"})
    )
    # app + sidecars = 2 + 1 + 2; before = 4; between = 4 + 1; last = 4 + 1 + 2
    assert requested(pod.build()) == {"cpu": 7000, "memory": 12}


def test_overhead_is_added_on_top() -> None:
    pod = make_pod().container("a", requests={"cpu": "1"}).init_container("i", requests={"cpu": "3"})
    assert requested(pod.spec(overhead={"cpu": "250m", "memory": "64"}).build()) == {
        "cpu": 3250,
        "memory": 64,
    }


def test_pod_level_requests_replace_the_sum_but_not_for_devices() -> None:
    pod = make_pod().container("a", requests={"cpu": "1", "memory": "5", GPU: "1"})
    whole = {
        "requests": {"cpu": "3", "hugepages-2Mi": "2Mi", GPU: "9"},
        "limits": {"memory": "7", "cpu": "8"},
    }
    pod.spec(resources=whole, overhead={"cpu": "1"})
    assert requested(pod.build()) == {"cpu": 4000, "memory": 5, GPU: 1, "hugepages-2Mi": 2 * 2**20}


def test_a_pod_level_limit_stands_in_where_nobody_asks() -> None:
    pod = make_pod().container("a").spec(resources={"limits": {"cpu": "2", "a.io/b": "1"}})
    assert requested(pod.build()) == {"cpu": 2000}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("-1", '"-1" is negative'),
        (-1, "-1 is negative"),
        ("-0.0001", '"-0.0001" is negative'),
        ("abc", '"abc" is not a quantity'),
        ("", '"" is not a quantity'),
        ([], "a list is not a quantity"),
        (True, "true is not a quantity"),
        ("-1e99", '"-1e99" is negative'),
        ("1 ", '"1 " is not a quantity'),
    ],
)
@pytest.mark.parametrize("resource", ["cpu", "memory", GPU, "nvidia.com/mig-1g.10gb", "a.io/b"])
@pytest.mark.parametrize("kind", ["requests", "limits"])
def test_what_makes_no_sense_is_named(kind: str, resource: str, value: object, why: str) -> None:
    pod = make_pod().container("main", **{kind: {resource: value}}).build()
    with pytest.raises(InvalidQuantity) as caught:
        requested(pod)
    assert str(caught.value) == f"container main asks for {resource}: {why}"


@pytest.mark.parametrize("value", ["500m", "0.5", "1.5", "1n"])
def test_a_gpu_is_indivisible(value: str) -> None:
    with pytest.raises(InvalidQuantity, match="is not a whole number"):
        requested(make_pod().container("main", limits={GPU: value}).build())


@pytest.mark.parametrize("field", ["resources", "overhead"])
def test_nonsense_at_pod_level_is_named(field: str) -> None:
    quantities = {"cpu": "x"}
    pod = make_pod().spec(**{field: {"requests": quantities} if field == "resources" else quantities}).build()
    with pytest.raises(InvalidQuantity, match=r'^the pod.* asks for cpu: "x" is not a quantity$'):
        requested(pod)


def test_nonsense_in_an_init_container_counts_too() -> None:
    pod = make_pod().container("a", limits={GPU: "1"}).init_container("i", limits={GPU: "-1"}).build()
    with pytest.raises(InvalidQuantity, match=r"^container i asks for"):
        requested(pod)


def test_sums_stay_within_64_bits() -> None:
    pod = make_pod().container("a", requests={"cpu": "1e30", GPU: "1e30"}).container("b", limits={GPU: "1e30"})
    assert requested(pod.build()) == {"cpu": LARGEST, GPU: LARGEST}


@pytest.mark.parametrize(
    "pod",
    [
        {},
        {"spec": None},
        {"spec": {"containers": None, "initContainers": None, "overhead": None, "resources": None}},
        {"spec": {"containers": [{}, {"resources": None}, {"resources": {"limits": None, "requests": None}}]}},
        {"spec": {"containers": [{"resources": {"limits": {GPU: None}}}]}},
    ],
)
def test_absent_and_null_are_empty(pod: dict[str, Any]) -> None:
    assert requested(pod) == {}


@pytest.mark.parametrize(
    "pod",
    [
        None,
        "pod",
        [],
        {"spec": []},
        {"spec": {"containers": {}}},
        {"spec": {"containers": "main"}},
        {"spec": {"containers": [None]}},
        {"spec": {"initContainers": [1]}},
        {"spec": {"containers": [{"resources": []}]}},
        {"spec": {"containers": [{"resources": {"limits": [GPU]}}]}},
        {"spec": {"containers": [{"resources": {"limits": {1: "1"}}}]}},
        {"spec": {"overhead": "1"}},
        {"spec": {"resources": 1}},
    ],
)
def test_another_shape_than_the_apis_is_refused_not_read_as_nothing(pod: object) -> None:
    with pytest.raises(InputError):
        requested(pod)


AMOUNT = st.integers(0, 9)


@given(apps=st.lists(AMOUNT, max_size=4), inits=st.lists(st.tuples(AMOUNT, st.booleans()), max_size=5))
def test_init_rule_against_a_replay_of_the_pods_life(apps: list[int], inits: list[tuple[int, bool]]) -> None:
    """Start the containers in order, as a kubelet does, and note the most that runs at once."""
    pod = make_pod()
    running, most = 0, 0
    for i, (amount, sidecar) in enumerate(inits):
        pod.init_container(f"i{i}", requests={GPU: amount}, sidecar=sidecar)
        most = max(most, running + amount)
        running += amount if sidecar else 0
    for i, amount in enumerate(apps):
        pod.container(f"a{i}", requests={GPU: amount})
    assert requested(pod.build()).get(GPU, 0) == max(most, running + sum(apps))
