"""For which backends a pod is prepared, and where it may go for that."""

from typing import Any

import pytest

from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.requests import GpuRequest
from tests.builders import PodBuilder, make_node, make_pod

HAMI = {"CUDA_DEVICE_MEMORY_LIMIT": f"{names.HAMI_MEMORY_LIMIT}.0"}
MPS = {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{names.MPS_MEMORY_LIMIT}.0"}


def backends(pod: PodBuilder) -> set[str]:
    request = GpuRequest.from_pod(pod.build())
    assert isinstance(request, GpuRequest)
    return set(request.backends)


def share() -> PodBuilder:
    return make_pod().gpu_memory(100).container("main")


def test_a_pod_is_prepared_by_variables_that_the_binding_fills() -> None:
    assert backends(share()) == set()
    assert backends(share().env("main", **HAMI)) == {names.HAMI_CORE}
    assert backends(share().env("main", **MPS)) == {names.MPS}
    assert backends(share().env("main", **HAMI, **MPS)) == {names.HAMI_CORE, names.MPS}


def test_every_container_that_sees_the_share_must_be() -> None:
    pod = make_pod().container_gpu_memory("a", limit="1Gi").container_gpu_memory("b", limit="1Gi")
    pod.container("a").container("b").container("c").env("a", **HAMI)
    assert backends(pod) == set()
    assert backends(pod.env("b", CUDA_DEVICE_MEMORY_LIMIT=f"{names.HAMI_MEMORY_LIMIT}.1")) == {names.HAMI_CORE}


def test_the_number_is_that_of_the_container() -> None:
    """With another container's number it would get that one's limit."""
    assert backends(share().env("main", CUDA_DEVICE_MEMORY_LIMIT=f"{names.HAMI_MEMORY_LIMIT}.1")) == set()


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "CUDA_DEVICE_MEMORY_LIMIT", "value": "99g"},
        {"name": "CUDA_DEVICE_MEMORY_LIMIT"},
        {"name": "CUDA_DEVICE_MEMORY_LIMIT", "valueFrom": {"fieldRef": "metadata.name"}},
        {"name": "CUDA_DEVICE_MEMORY_LIMIT", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        "of another shape",
        {"name": ["of", "another", "shape"]},
    ],
)
def test_what_the_binding_does_not_fill_prepares_for_nothing(entry: Any) -> None:
    pod = make_pod().gpu_memory(100)
    assert backends(pod.spec(containers=[{"name": "main", "env": [entry]}])) == set()


def test_of_two_variables_of_one_name_the_later_counts() -> None:
    ours = share().env("main", **HAMI).build()["spec"]["containers"][0]["env"]
    containers = [{"name": "main", "env": [*ours, {"name": "CUDA_DEVICE_MEMORY_LIMIT", "value": "99g"}]}]
    assert backends(make_pod().gpu_memory(100).spec(containers=containers)) == set()


# --- where it may go ----------------------------------------------------------------------------------------


def verdict(label: str | None, pod: PodBuilder) -> str:
    """filter's sentence for one node with that label; empty where it fits."""
    node = make_node("n").gpus(1, mib=1000)
    if label is not None:
        node.label(names.ENFORCEMENT_LABEL, label)
    decisions = Decisions(Policy(), claim_ttl=1, timer=lambda: 0.0)
    for read in read_nodes([node.build()]):
        decisions.ledger.put_node(read)
    answer = decisions.filter(pod.build(), ["n"])
    return answer.unresolvable.get("n", "")


@pytest.mark.parametrize("label", [None, "none", "nri"])
def test_where_nothing_is_needed_in_the_pod_every_pod_may_go(label: str | None) -> None:
    assert not verdict(label, share())
    assert not verdict(label, share().env("main", **HAMI))


NOT_PREPARED = "the pod is not prepared for the enforcement backend of this node"


def test_a_node_with_a_backend_takes_those_that_it_can_limit() -> None:
    assert verdict("hami-core", share()) == NOT_PREPARED
    assert verdict("hami-core", share().env("main", **MPS)) == NOT_PREPARED
    assert not verdict("hami-core", share().env("main", **HAMI))
    assert not verdict("mps", share().env("main", **HAMI, **MPS))


def test_pods_that_ask_alike_are_told_apart_by_what_they_are_prepared_for() -> None:
    """Verdicts are kept for each shape of request."""
    node = make_node("n").gpus(1, mib=1000).label(names.ENFORCEMENT_LABEL, "mps")
    decisions = Decisions(Policy(), claim_ttl=1, timer=lambda: 0.0)
    for read in read_nodes([node.build()]):
        decisions.ledger.put_node(read)
    assert decisions.filter(share().build(), ["n"]).nodes == []
    assert decisions.filter(share().env("main", **MPS).build(), ["n"]).nodes == ["n"]


@pytest.mark.parametrize("label", ["", "HAMi-core", "mps,nri", "off"])
def test_a_label_that_names_no_backend_closes_the_node_for_shares_and_says_so(label: str) -> None:
    pod = share().env("main", **HAMI, **MPS)
    assert verdict(label, pod) == "the node's label gpu-extender.io/enforcement names no backend that is known"
    assert not verdict(label, make_pod().gpus(1)), "whole GPUs need no limit"
