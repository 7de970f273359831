"""kube-scheduler's own rules, as far as the tools without a kube-scheduler apply them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.core.intree import blockers, is_gated, unapplied_rules

NODE: dict[str, Any] = {"metadata": {"name": "n1", "labels": {"zone": "a", "gpu": "a100"}}}
ROOM = {"cpu": 4000, "memory": 1000, "pods": 10}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": spec}


def node(**spec: Any) -> dict[str, Any]:
    return NODE | {"spec": spec}


def affinity(required: Any) -> dict[str, Any]:
    return pod(affinity={"nodeAffinity": {REQUIRED: required}})


def zone_in(*values: str) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": list(values)}]}]
    return {"nodeSelectorTerms": terms}


@pytest.mark.parametrize("empty", [{}, {"spec": None}, pod(), pod(nodeName=""), pod(nodeName="n1"), affinity(None)])
def test_a_pod_without_wishes_goes_anywhere(empty: dict[str, Any]) -> None:
    assert blockers(empty, NODE, ROOM, {"cpu": 4000, "memory": 0, "example.com/absent": 0}) == ()


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (pod(nodeName="n2"), ("the pod names another node in spec.nodeName",)),
        (pod(nodeSelector={"zone": "a", "gpu": "a100"}), ()),
        (pod(nodeSelector={"zone": "a", "gpu": "t4"}), ("node selector does not match",)),
        (pod(nodeSelector={"disk": ""}), ("node selector does not match",)),
        (pod(nodeSelector={"zone": 1}), ("node selector cannot be read",)),
        (pod(nodeSelector=["zone"]), ("node selector cannot be read",)),
        (affinity(zone_in("a", "b")), ()),
        (affinity(zone_in("b")), ("required node affinity does not match",)),
        (affinity({}), ("required node affinity does not match",)),
        (affinity({"nodeSelectorTerms": []}), ("required node affinity does not match",)),
        (affinity("zone"), ("required node affinity cannot be read",)),
        (affinity(zone_in()), ("required node affinity cannot be read",)),
        (affinity([{}]), ("required node affinity cannot be read",)),
        (affinity(zone_in("a")["nodeSelectorTerms"]), ("required node affinity cannot be read",)),
        (pod(affinity=[]), ("required node affinity cannot be read",)),
        (pod(affinity={"nodeAffinity": "a"}), ("required node affinity cannot be read",)),
        (pod(schedulingGates=[{"name": "quota"}]), ("scheduling gates hold the pod back",)),
        ({"spec": []}, ("the pod cannot be read",)),
    ],
)
def test_what_the_pod_wants_of_the_node(wish: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert blockers(wish, NODE, ROOM, {}) == expected


GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
CORDON_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"taints": [GPU_TAINT]}, ("untolerated taint nvidia.com/gpu=present:NoSchedule",)),
        ({"taints": [{"key": "spot", "effect": "NoExecute"}]}, ("untolerated taint spot:NoExecute",)),
        ({"taints": [GPU_TAINT | {"effect": "PreferNoSchedule"}]}, ()),
        (
            {"taints": [GPU_TAINT, {"key": "spot", "effect": "NoExecute"}]},
            ("untolerated taint nvidia.com/gpu=present:NoSchedule", "untolerated taint spot:NoExecute"),
        ),
        ({"taints": "spot"}, ("taints of the node cannot be read",)),
        ({"taints": ["spot"]}, ("taints of the node cannot be read",)),
        ({"unschedulable": True}, ("node is cordoned",)),
        ({"unschedulable": True, "taints": [CORDON_TAINT]}, ("node is cordoned",)),
        ({"taints": [CORDON_TAINT]}, ("untolerated taint node.kubernetes.io/unschedulable:NoSchedule",)),
        ({"unschedulable": False}, ()),
    ],
)
def test_taints_and_cordon(spec: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert blockers(pod(), node(**spec), ROOM, {}) == expected


def test_a_pod_that_tolerates_everything_goes_to_a_cordoned_and_tainted_node() -> None:
    spec = {"unschedulable": True, "taints": [CORDON_TAINT, GPU_TAINT]}
    assert blockers(pod(tolerations=[{"operator": "Exists"}]), node(**spec), ROOM, {}) == ()
    only_cordon = pod(tolerations=[{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}])
    assert blockers(only_cordon, node(**spec), ROOM, {}) == ("untolerated taint nvidia.com/gpu=present:NoSchedule",)


def test_tolerations_that_cannot_be_read_tolerate_nothing() -> None:
    assert blockers(pod(tolerations={"operator": "Exists"}), node(taints=[GPU_TAINT]), ROOM, {}) == (
        "untolerated taint nvidia.com/gpu=present:NoSchedule",
    )


@pytest.mark.parametrize(
    ("requested", "free", "expected"),
    [
        ({"cpu": 4000, "memory": 1000, "pods": 1}, ROOM, ()),
        ({"cpu": 4001, "memory": 1000}, ROOM, ("insufficient cpu",)),
        ({"memory": 1001}, ROOM, ("insufficient memory",)),
        ({"ephemeral-storage": 1}, ROOM, ("insufficient ephemeral-storage",)),
        (
            {"nvidia.com/mig-1g.10gb": 2},
            ROOM | {"nvidia.com/mig-1g.10gb": 1},
            ("insufficient nvidia.com/mig-1g.10gb",),
        ),
        ({}, ROOM | {"pods": 0}, ("no pod slot is left",)),
        ({}, {"cpu": 1}, ("no pod slot is left",)),
        ({"cpu": 0}, ROOM | {"cpu": -500}, ()),
        ({"cpu": 1}, ROOM | {"cpu": -500}, ("insufficient cpu",)),
        ({"nvidia.com/gpu": -1}, ROOM | {"nvidia.com/gpu": 8}, ("insufficient nvidia.com/gpu",)),
        ({"cpu": 5000, "memory": 5000}, ROOM, ("insufficient cpu", "insufficient memory")),
    ],
)
def test_resources(requested: dict[str, int], free: dict[str, int], expected: tuple[str, ...]) -> None:
    assert blockers(pod(), NODE, free, requested) == expected


def test_every_rule_is_named_at_once() -> None:
    wish = pod(nodeSelector={"zone": "b"}) | {"metadata": {}}
    assert blockers(wish, node(unschedulable=True), {}, {"cpu": 1}) == (
        "node selector does not match",
        "node is cordoned",
        "insufficient cpu",
        "no pod slot is left",
    )


@pytest.mark.parametrize("broken", [{}, {"metadata": None}, {"metadata": {}}])
def test_a_node_without_metadata_has_no_labels_and_no_name(broken: dict[str, Any]) -> None:
    assert blockers(pod(), broken, ROOM, {}) == ()
    assert blockers(pod(nodeSelector={"zone": "a"}), broken, ROOM, {}) == ("node selector does not match",)


@pytest.mark.parametrize("broken", [{"metadata": []}, {"metadata": {"labels": "zone"}}, {"spec": 5}])
def test_a_node_that_cannot_be_read_takes_nothing(broken: dict[str, Any]) -> None:
    assert blockers(pod(), broken, ROOM, {}) == ("the node cannot be read",)


def test_gates() -> None:
    assert not is_gated(pod())
    assert not is_gated(pod(schedulingGates=[]))
    assert is_gated(pod(schedulingGates=[{"name": "quota"}]))
    assert is_gated(pod(schedulingGates="quota"))
    assert is_gated({"spec": []})


@pytest.mark.parametrize(
    ("asking", "rules"),
    [
        (pod(), ()),
        (pod(affinity={"podAffinity": {REQUIRED: [{}]}}), ("pod affinity",)),
        (pod(affinity={"podAntiAffinity": {PREFERRED: [{}]}}), ("pod anti-affinity",)),
        (pod(affinity={"nodeAffinity": {PREFERRED: [{}], REQUIRED: {}}}), ("preferred node affinity",)),
        (affinity({}), ()),
        (pod(topologySpreadConstraints=[{}]), ("topology spread constraints",)),
        (pod(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]), ("volumes",)),
        (pod(volumes=[{"name": "d", "ephemeral": {}}]), ("volumes",)),
        (pod(volumes=[{"name": "d", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]), ()),
        (pod(containers=[{"ports": [{"containerPort": 80, "hostPort": 80}]}]), ("host ports",)),
        (pod(initContainers=[{"ports": [{"containerPort": 80, "hostPort": 80}]}]), ("host ports",)),
        (pod(containers=[{"ports": [{"containerPort": 80}]}]), ()),
        (pod(hostNetwork=True, containers=[{"ports": [{"containerPort": 80}]}]), ("host ports",)),
        (pod(hostNetwork=True, containers=[{}]), ()),
        (pod(resourceClaims=[{"name": "gpu"}]), ("resource claims",)),
        (pod(runtimeClassName="kata"), ("runtime class",)),
        (pod(runtimeClassName="kata", overhead={"cpu": "250m"}), ()),
        (pod(workloadRef={"name": "train"}), ("gang scheduling",)),
        (pod(schedulingGroup={"podGroupName": "train"}), ("gang scheduling",)),
        (
            pod(affinity={"podAffinity": {REQUIRED: [{}]}}, topologySpreadConstraints=[{}]),
            ("pod affinity", "topology spread constraints"),
        ),
    ],
)
def test_rules_that_are_not_applied_are_named(asking: dict[str, Any], rules: tuple[str, ...]) -> None:
    assert unapplied_rules(asking) == rules


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("Exists"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
REQUIREMENT = st.fixed_dictionaries(
    {},
    optional={
        "key": ANY_JSON | st.just("zone"),
        "operator": ANY_JSON | st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]),
        "values": ANY_JSON | st.lists(st.text(max_size=3), max_size=2),
    },
)
TERM = st.fixed_dictionaries(
    {},
    optional={k: ANY_JSON | st.lists(REQUIREMENT, max_size=2) for k in ("matchExpressions", "matchFields")},
)
SPEC_KEYS = (
    "nodeName", "nodeSelector", "affinity", "tolerations", "schedulingGates", "topologySpreadConstraints", "volumes",
    "containers", "initContainers", "resourceClaims", "hostNetwork", "overhead", "runtimeClassName", "workloadRef",
)  # fmt: skip
AFFINITY = st.fixed_dictionaries(
    {
        "nodeAffinity": st.fixed_dictionaries(
            {REQUIRED: ANY_JSON | st.fixed_dictionaries({"nodeSelectorTerms": st.lists(TERM, max_size=2)})}
        )
    }
)
SPEC = st.fixed_dictionaries({}, optional=dict.fromkeys(SPEC_KEYS, ANY_JSON) | {"affinity": ANY_JSON | AFFINITY})
POD = st.fixed_dictionaries({}, optional={"metadata": ANY_JSON, "spec": ANY_JSON | SPEC})
TAINTS = st.lists(
    st.fixed_dictionaries({}, optional={"key": ANY_JSON, "value": ANY_JSON, "effect": ANY_JSON | st.just("NoSchedule")})
)
NODES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": ANY_JSON
        | st.fixed_dictionaries({"name": ANY_JSON, "labels": ANY_JSON | st.fixed_dictionaries({"zone": ANY_JSON})}),
        "spec": ANY_JSON | st.fixed_dictionaries({}, optional={"taints": ANY_JSON | TAINTS, "unschedulable": ANY_JSON}),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(POD, NODES)
def test_nothing_raises_and_reasons_are_constant_lines_of_text(wish: dict[str, Any], target: dict[str, Any]) -> None:
    reasons = blockers(wish, target, ROOM, {"cpu": 1})
    assert all(isinstance(reason, str) and reason.isprintable() and reason for reason in reasons)
    assert reasons == blockers(wish, target, ROOM, {"cpu": 1})
    assert len(set(reasons)) == len(reasons)
    assert all(isinstance(rule, str) for rule in unapplied_rules(wish))
    assert not is_gated(wish) or reasons


@given(ANY_JSON.filter(lambda value: value is not None and not isinstance(value, dict)))
def test_a_required_affinity_that_is_no_object_blocks(value: Any) -> None:
    assert blockers(affinity(value), NODE, ROOM, {}) == ("required node affinity cannot be read",)
