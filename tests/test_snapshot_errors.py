"""A broken file: one line that names file, document, item, object, field and value."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extender.core.errors import InputError
from extender.snapshot import Snapshot, parse_snapshot
from tests.builders import make_node, make_pod


def error_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_snapshot(text, "c.yaml")
    message = str(caught.value)
    assert message.isprintable()
    return message


def list_of(*items: Any) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": list(items)})


def pod(metadata: Any = None, spec: Any = None, status: Any = None) -> dict[str, Any]:
    named = {"name": "llm-0", "namespace": "team-a"} | (metadata or {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec, "status": status}


def node(metadata: Any = None, spec: Any = None, status: Any = None) -> dict[str, Any]:
    return pod(metadata, spec, status) | {"kind": "Node", "metadata": {"name": "gpu-01"} | (metadata or {})}


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main"} | fields]}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (pod({"labels": {"app": True}}), "metadata.labels[app] is true but must be text"),
        (pod({"labels": {"app": None}}), "metadata.labels[app] is null but must be text"),
        (pod({"labels": ["app"]}), "metadata.labels is a list but must be an object"),
        (pod({"annotations": {"gpu-fraction": 0.5}}), "metadata.annotations[gpu-fraction] is 0.5 but must be text"),
        (pod({"annotations": {"a\nb": 1}}), "metadata.annotations[a\\nb] is 1 but must be text"),
        (pod({"annotations": "none"}), 'metadata.annotations is "none" but must be an object'),
        (pod({"uid": 7}), "metadata.uid is 7 but must be text"),
        (pod({"creationTimestamp": 7}), "metadata.creationTimestamp is 7 but must be text"),
        (pod(spec=[]), "spec is a list but must be an object"),
        (pod(status="Running"), 'status is "Running" but must be an object'),
        (pod(status={"phase": 1}), "status.phase is 1 but must be text"),
        (pod(status={"containerStatuses": [1]}), "status.containerStatuses[0] is 1 but must be an object"),
        (pod(spec={"nodeName": 5}), "spec.nodeName is 5 but must be text"),
        (pod(spec={"nodeSelector": {"gpu": 1}}), "spec.nodeSelector[gpu] is 1 but must be text"),
        (pod(spec={"tolerations": {"key": "a"}}), "spec.tolerations is an object but must be a list"),
        (pod(spec={"affinity": {"nodeAffinity": []}}), "spec.affinity.nodeAffinity is a list but must be an object"),
        (pod(spec={"priority": "high"}), 'spec.priority is "high" but must be an integer'),
        (pod(spec={"priority": True}), "spec.priority is true but must be an integer"),
        (pod(spec={"hostNetwork": "yes"}), 'spec.hostNetwork is "yes" but must be true or false'),
        (pod(spec={"containers": {"name": "main"}}), "spec.containers is an object but must be a list"),
        (pod(spec={"containers": [{"image": "a"}]}), "spec.containers[0].name is missing"),
        (pod(spec={"containers": ["main"]}), 'spec.containers[0] is "main" but must be an object'),
        (pod(spec={"initContainers": [{"name": ""}]}), 'spec.initContainers[0].name is "" but must be a name'),
        (
            pod(spec=container() | {"initContainers": [{"name": "main"}]}),
            "spec.containers[0].name main is taken by another container",
        ),
        (
            pod(spec={"containers": [{"name": "a"}, {"name": "a"}]}),
            "spec.containers[1].name a is taken by another container",
        ),
        (
            pod(spec=container(resources={"limits": {"nvidia.com/gpu": "one"}})),
            'spec.containers[0].resources.limits[nvidia.com/gpu] is "one" but must be a quantity',
        ),
        (
            pod(spec=container(resources={"requests": {"cpu": "-1"}})),
            'spec.containers[0].resources.requests[cpu] is "-1" but must be at least 0',
        ),
        (
            pod(spec=container(resources={"requests": {"cpu": True}})),
            "spec.containers[0].resources.requests[cpu] is true but must be a quantity",
        ),
        (pod(spec=container(resources=[])), "spec.containers[0].resources is a list but must be an object"),
        (pod(spec={"overhead": {"cpu": []}}), "spec.overhead[cpu] is a list but must be a quantity"),
    ],
)
def test_pods(broken: dict[str, Any], expected: str) -> None:
    assert error_of(list_of(make_node().build(), broken)) == (
        f"c.yaml: document 1, item 2: Pod team-a/llm-0: {expected}"
    )


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (node({"labels": {"nvidia.com/gpu.count": 8}}), "metadata.labels[nvidia.com/gpu.count] is 8 but must be text"),
        (node(spec={"unschedulable": "true"}), 'spec.unschedulable is "true" but must be true or false'),
        (node(spec={"taints": "gpu"}), 'spec.taints is "gpu" but must be a list'),
        (node(spec={"taints": [{"key": "a"}]}), "spec.taints[0].effect is missing"),
        (node(status=[]), "status is a list but must be an object"),
        (node(status={"capacity": "big"}), 'status.capacity is "big" but must be an object'),
        (node(status={"capacity": {"memory": "64GB"}}), 'status.capacity[memory] is "64GB" but must be a quantity'),
        (node(status={"allocatable": {"cpu": -4}}), "status.allocatable[cpu] is -4 but must be at least 0"),
        (node(status={"allocatable": {"cpu": None}}), "status.allocatable[cpu] is null but must be a quantity"),
        (node(status={"conditions": [{"type": "Ready"}]}), "status.conditions[0].status is missing"),
        (
            node(status={"conditions": [{"type": "Ready", "status": True}]}),
            "status.conditions[0].status is true but must be text",
        ),
        (node({"uid": ["x"]}), "metadata.uid is a list but must be text"),
    ],
)
def test_nodes(broken: dict[str, Any], expected: str) -> None:
    assert error_of(yaml.safe_dump_all([make_node().build(), broken])) == f"c.yaml: document 2: Node gpu-01: {expected}"


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("ResourceSlice", {"spec": []}, "ResourceSlice s: spec is a list but must be an object"),
        ("ResourceSlice", {"spec": {"devices": [{}]}}, "ResourceSlice s: spec.devices[0].name is missing"),
        ("ResourceClaim", {"status": 1}, "ResourceClaim s: status is 1 but must be an object"),
    ],
)
def test_dra_objects(kind: str, fields: dict[str, Any], expected: str) -> None:
    broken = {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": "s"}} | fields
    assert error_of(json.dumps(broken)) == f"c.yaml: document 1: {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no object is in this file"),
        ("# only a comment\n---\n", "no object is in this file"),
        ("- kind: Node", "document 1 is a list but must be an object"),
        ("kind: Node\nmetadata: {name: a}\n---\nhello", 'document 2 is "hello" but must be an object'),
        ("{kind: List, items: [5]}", "document 1, item 1 is 5 but must be an object"),
        ("{kind: List, items: [null]}", "document 1, item 1 is null but must be an object"),
        ("{kind: List, items: {a: 1}}", "document 1: List: items is an object but must be a list"),
        ("{kind: List, items: [{metadata: {name: a}}]}", "document 1, item 1: kind is missing"),
        ("metadata: {name: a}", "document 1: kind is missing"),
        ("kind: [Node]", "document 1: kind is a list but must be text"),
        ("kind: Node\napiVersion: 1", "document 1: apiVersion is 1 but must be text"),
        ("kind: Node", "document 1: Node: metadata is missing"),
        ("kind: Node\nmetadata: {}", "document 1: Node: metadata.name is missing"),
        ("kind: Node\nmetadata: {name: }", "document 1: Node: metadata.name is missing"),
        ("kind: Node\nmetadata: {name: 7}", "document 1: Node: metadata.name is 7 but must be text"),
        ("kind: Node\nmetadata: []", "document 1: Node: metadata is a list but must be an object"),
        ('kind: Pod\nmetadata: {name: "a b"}', 'document 1: Pod a b: metadata.name is "a b" but must be a name'),
        ('kind: Pod\nmetadata: {name: "a\\n"}', 'document 1: Pod a\\n: metadata.name is "a\\n" but must be a name'),
        ("kind: Pod\nmetadata: {name: a/b}", 'document 1: Pod a/b: metadata.name is "a/b" but must be a name'),
        (
            "kind: Pod\nmetadata: {namespace: x}",
            "document 1: Pod x: metadata.name is missing",
        ),
    ],
)
def test_documents_and_names(text: str, expected: str) -> None:
    assert error_of(text) == f"c.yaml: {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Node\nmetadata: a: b", "document 1: line 2, column 12: mapping values are not allowed in this context"),
        ("kind: Service\n---\nkind: [a", "document 2: line 4, column 1: did not find expected ',' or ']'"),
        ("kind: Node\n\tmetadata: a", "document 1: line 2, column 1: found a tab character that violates indentation"),
        ("kind: Node\n\n\x07", "document 1: line 3, column 1: control characters are not allowed"),
        ("kind: *gone", "document 1: line 1, column 7: unknown alias gone"),
        ("kind: Node\nkind: Pod", "document 1: line 2, column 1: the key kind occurs twice"),
        ("{kind: Node, [a]: b}", "document 1: line 1, column 14: a key must be text"),
        (
            "kind: !!python/name:os.system",
            "document 1: line 1, column 7: unknown tag tag:yaml.org,2002:python/name:os.system",
        ),
        ("kind: !!set {a}", "document 1: line 1, column 7: unknown tag tag:yaml.org,2002:set"),
        ('{"kind": "Node",}', "document 1: line 1, column 17: Expecting property name enclosed in double quotes"),
        ('{"kind": "Node"', "document 1: line 1, column 16: Expecting ',' delimiter"),
        ('{"kind": "Service"}\n{"kind" "Node"}', "document 2: line 2, column 9: Expecting ':' delimiter"),
        ('{"kind": "Service"} trailing', "document 2: line 1, column 21: Expecting value"),
        (
            '{"kind": "Service"}\n{"kind": NaN}',
            "document 2: line 2, column 10: unexpected character, expected a JSON value",
        ),
    ],
)
def test_syntax(text: str, expected: str) -> None:
    assert error_of(text) == f"c.yaml: {expected}"


def test_a_half_character_is_refused() -> None:
    assert error_of('{"kind": "\\ud800"}').startswith("c.yaml: document 1: line 1, column ")
    assert error_of('kind: "\ud800"') == "c.yaml: document 1: line 1, column 8: half of a surrogate pair"


class TestDuplicates:
    def test_nodes(self) -> None:
        assert error_of(list_of(make_node("a").build(), make_node("b").build(), make_node("a").build())) == (
            'c.yaml: document 1, item 3: Node a: metadata.name is "a", as in document 1, item 1'
        )

    def test_pods_of_one_name(self) -> None:
        first, second = make_pod("a", "x").uid("1").build(), make_pod("a", "x").uid("2").build()
        assert error_of(yaml.safe_dump_all([first, second])) == (
            'c.yaml: document 2: Pod x/a: metadata.name is "a", as in document 1'
        )

    def test_pods_of_one_uid(self) -> None:
        first, second = make_pod("a", "x").uid("1").build(), make_pod("b", "x").uid("1").build()
        assert error_of(json.dumps(first) + json.dumps(second)) == (
            'c.yaml: document 2: Pod x/b: metadata.uid is "1", as in document 1'
        )

    def test_the_namespace_counts(self) -> None:
        text = list_of(pod({"namespace": "a"}), pod({"namespace": "b"}), node({"name": "llm-0"}))
        assert len(parse_snapshot(text, "c").pods) == 2
        assert "Pod default/llm-0" in error_of(list_of(pod({"namespace": None}), pod({"namespace": "default"})))


def test_json_nested_deeper_than_it_can_be_written_again() -> None:
    text = json.dumps(make_pod("a").build())[:-1] + ', "x": ' + "[" * 300 + "]" * 300 + "}"
    assert error_of(text).startswith("c.yaml: document 1: Pod default/a: cannot be written as JSON: ")
    assert error_of('{"kind": ' + "[" * 100_000) == "c.yaml: document 1: line 1, column 1: nested too deep"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def replaced(value: Any, path: list[int], new: Any) -> Any:
    """A copy with ``new`` somewhere inside, where the numbers of the path lead."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, list):
        index = path[0] % len(value)
        return [replaced(part, path[1:], new) if i == index else part for i, part in enumerate(value)]
    chosen = sorted(value)[path[0] % len(value)]
    return {key: replaced(part, path[1:], new) if key == chosen else part for key, part in value.items()}


GOOD = [
    make_node("n").gpus(2).taint("gpu").build(),
    make_pod("p").gpu_fraction("0.5").container("main", limits={"cpu": "1"}).on_node("n").build(),
]


def read_or_refused(text: str) -> Snapshot | None:
    """What is in the text; None where it is refused in one line that names the file."""
    try:
        return parse_snapshot(text, "c")
    except InputError as error:
        message = str(error)
    assert message.startswith("c: ")
    assert message.isprintable()
    return None


@given(st.lists(st.integers(0, 9), max_size=8), ANYTHING)
def test_one_wrong_value_anywhere_is_an_error_of_one_line_or_harmless(path: list[int], new: Any) -> None:
    snapshot = read_or_refused(json.dumps(replaced({"kind": "List", "items": GOOD}, path, new)))
    if snapshot is not None:
        json.dumps([*snapshot.nodes, *snapshot.pods])


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for source in (text, "{" + text, '{"kind": ' + text, "kind: Pod\nmetadata: " + text):
        read_or_refused(source)
