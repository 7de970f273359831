"""Files that kubectl wrote, and files that nobody could use."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.core.errors import InputError
from extender.snapshot import Snapshot, load_pods, load_snapshot, parse_snapshot, read_pod, with_pods
from tests.builders import make_node, make_pod

NODES = Path(__file__).parent / "fixtures" / "nodes"


def listed(*items: dict[str, Any], kind: str = "List") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": ""}, "items": list(items)}


def names(objects: tuple[dict[str, Any], ...]) -> list[str]:
    return [found["metadata"]["name"] for found in objects]


def error_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_snapshot(text, "c.yaml")
    return str(caught.value)


OBJECTS = (
    make_node("n2").build(),
    make_pod("b", "x").build(),
    make_node("n1").build(),
    make_pod("a", "x").build(),
)


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump(listed(*OBJECTS)),
        yaml.safe_dump_all(OBJECTS),
        "---\n" + yaml.safe_dump_all(OBJECTS) + "---\n---\n",
        yaml.safe_dump(listed(*OBJECTS), default_flow_style=True),
        json.dumps(listed(*OBJECTS)),
        json.dumps(listed(*OBJECTS), indent=4),
        "".join(json.dumps(found) for found in OBJECTS),
        "\n".join(json.dumps(found) for found in OBJECTS) + "\n",
        "\n---\n".join(json.dumps(found, indent=2) for found in OBJECTS),
        yaml.safe_dump(listed(listed(*OBJECTS[:2]), listed(*OBJECTS[2:]))),
    ],
    ids=[
        "list",
        "documents",
        "empty-documents",
        "flow",
        "json",
        "indented",
        "joined",
        "lines",
        "separated",
        "nested",
    ],
)
def test_every_form_reads_the_same_in_the_order_of_the_file(text: str) -> None:
    snapshot = parse_snapshot(text, "c")
    assert snapshot.nodes == (OBJECTS[0], OBJECTS[2])
    assert snapshot.pods == (OBJECTS[1], OBJECTS[3])
    assert snapshot.resource_slices == snapshot.resource_claims == ()


def test_typed_lists_say_the_kind_of_their_items() -> None:
    bare = [{key: found[key] for key in ("metadata", "spec", "status")} for found in OBJECTS]
    lists = [listed(bare[0], bare[2], kind="NodeList"), listed(bare[1], bare[3], kind="PodList")]
    snapshot = parse_snapshot(yaml.safe_dump_all(lists), "c")
    assert snapshot.nodes == (OBJECTS[0], OBJECTS[2])
    assert snapshot.pods == (OBJECTS[1], OBJECTS[3])


def test_dra_objects() -> None:
    text = """
apiVersion: resource.k8s.io/v1
kind: ResourceSliceList
items:
- metadata: {name: s1}
  spec: {driver: gpu.nvidia.com, nodeName: n1, devices: [{name: gpu-0}]}
---
apiVersion: resource.k8s.io/v1beta1
kind: ResourceClaim
metadata: {name: c1}
"""
    snapshot = parse_snapshot(text, "c")
    assert names(snapshot.resource_slices) == ["s1"]
    assert snapshot.resource_slices[0]["apiVersion"] == "resource.k8s.io/v1"
    assert [claim["metadata"]["namespace"] for claim in snapshot.resource_claims] == ["default"]


@pytest.mark.parametrize(
    "other",
    [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": 5}, "spec": []},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": None},
        {"apiVersion": "longhorn.io/v1beta2", "kind": "Node", "metadata": {"name": "n1"}, "spec": []},
        {"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "s"}}]},
    ],
)
def test_other_kinds_are_ignored(other: dict[str, Any]) -> None:
    assert parse_snapshot(yaml.safe_dump_all([other, OBJECTS[0]]), "c") == Snapshot(nodes=(OBJECTS[0],))


@pytest.mark.parametrize("items", ["[]", "null", ""])
def test_a_cluster_may_be_empty(items: str) -> None:
    assert parse_snapshot(f"apiVersion: v1\nkind: List\nitems: {items}\n", "c") == Snapshot()


@pytest.mark.parametrize("path", sorted(NODES.glob("*.yaml")), ids=lambda path: path.stem)
def test_fixtures(path: Path) -> None:
    snapshot = load_snapshot(path)
    found = (*snapshot.nodes, *snapshot.resource_slices)
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert sorted(names(found)) == sorted(document["metadata"]["name"] for document in documents)
    for document in documents:
        same = next(one for one in found if one["metadata"]["name"] == document["metadata"]["name"])
        assert same.get("status") == document.get("status")


class TestDefaults:
    def test_a_pod_without_namespace_is_in_default(self) -> None:
        (pod,) = parse_snapshot("kind: Pod\nmetadata: {name: a}\n", "c").pods
        assert pod["metadata"]["namespace"] == "default"
        assert pod["spec"] == {}

    def test_uids_are_made_up_once_and_for_all(self) -> None:
        text = "kind: Pod\nmetadata: {name: a, namespace: x}\n---\nkind: Pod\nmetadata: {name: a}\n---\n"
        text += "kind: Node\nmetadata: {name: a}\n"
        first, second = parse_snapshot(text, "c"), parse_snapshot(text, "c")
        uids = [found["metadata"]["uid"] for found in (*first.pods, *first.nodes)]
        assert uids == [found["metadata"]["uid"] for found in (*second.pods, *second.nodes)]
        assert uids[0] == "9cde1e3e-5605-5b81-bbf0-aa7564ddf84c"
        assert len(set(uids)) == 3

    def test_a_uid_in_the_file_stays(self) -> None:
        assert parse_snapshot("kind: Node\nmetadata: {name: a, uid: u-1}\n", "c").nodes[0]["metadata"]["uid"] == "u-1"

    def test_a_pod_may_be_bound_to_a_node_that_is_not_there(self) -> None:
        pod = make_pod("a").on_node("gone").build()
        assert parse_snapshot(json.dumps(pod), "c").pods == (pod,)


class TestFiles:
    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        content = io.BytesIO(json.dumps(OBJECTS[0]).encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
        assert load_snapshot(Path("-")).nodes == (OBJECTS[0],)

    def test_an_error_names_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        with pytest.raises(InputError, match=r"^standard input: no object is in this file$"):
            load_snapshot(Path("-"))

    def test_a_byte_order_mark_is_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "c.json"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(OBJECTS[0]).encode())
        assert load_snapshot(path).nodes == (OBJECTS[0],)

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        utf16 = tmp_path / "utf16.yaml"
        utf16.write_bytes("kind: Node".encode("utf-16"))
        for path, problem in [
            (tmp_path / "none.yaml", "No such file or directory"),
            (tmp_path, "Is a directory"),
            (utf16, "byte 1 is not UTF-8 text"),
            (tmp_path / "a\0b", "embedded null byte"),
        ]:
            with pytest.raises(InputError) as caught:
                load_snapshot(path)
            assert str(caught.value).endswith(f": {problem}")
            assert "\0" not in str(caught.value)


class TestLoadPods:
    def load(self, tmp_path: Path, text: str) -> list[dict[str, Any]]:
        path = tmp_path / "pods.yaml"
        path.write_text(text)
        return load_pods(path)

    def test_pods_among_others_and_in_lists(self, tmp_path: Path) -> None:
        text = yaml.safe_dump_all([{"apiVersion": "v1", "kind": "Service"}, listed(OBJECTS[1]), OBJECTS[3]])
        assert self.load(tmp_path, text) == [OBJECTS[1], OBJECTS[3]]

    def test_an_empty_list_has_no_pods(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, yaml.safe_dump(listed())) == []

    def test_a_file_with_anything_but_pods_is_a_mistake(self, tmp_path: Path) -> None:
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "x"},
        }
        with pytest.raises(InputError) as caught:
            self.load(tmp_path, yaml.safe_dump(deployment))
        expected = "pods.yaml: document 1: Deployment x/web: only Pods are read, and there is none"
        assert str(caught.value) == f"{tmp_path}/{expected}"

    def test_they_come_after_the_pods_of_the_snapshot(self, tmp_path: Path) -> None:
        snapshot = parse_snapshot(json.dumps(OBJECTS[1]), "c")
        pods = self.load(tmp_path, json.dumps(OBJECTS[3]))
        assert with_pods(snapshot, pods, "pods.yaml").pods == (OBJECTS[1], OBJECTS[3])
        assert snapshot.pods == (OBJECTS[1],)

    def test_a_pod_that_is_there_already_is_refused(self, tmp_path: Path) -> None:
        snapshot = parse_snapshot(json.dumps(OBJECTS[1]), "c")
        with pytest.raises(InputError) as caught:
            with_pods(snapshot, self.load(tmp_path, json.dumps(OBJECTS[1])), "pods.yaml")
        assert str(caught.value) == 'pods.yaml: Pod x/b: metadata.name is "b", as in the snapshot, or in a file before'


class TestReadPod:
    def test_a_pod_is_completed_but_gets_no_uid(self) -> None:
        pod = read_pod({"metadata": {"name": "a"}, "spec": None})
        assert pod == {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {},
        }

    def test_a_refused_request_speaks_with_the_parsers_sentence(self) -> None:
        from extender.core.requests import GpuRequest, InvalidRequest

        for pod in (
            make_pod().gpu_fraction("2").build(),
            make_pod().gpu_fraction(0.5).build(),
            make_pod().gpus("-1").build(),
        ):
            refused = GpuRequest.from_pod(pod)
            assert isinstance(refused, InvalidRequest)
            with pytest.raises(InputError) as caught:
                read_pod(pod)
            assert str(caught.value) == refused.sentence

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, "the body is null but must be an object"),
            ([], "the body is a list but must be an object"),
            ({"kind": "Node", "metadata": {"name": "a"}}, "the body is not a v1 Pod"),
            ({"kind": "PodList", "items": []}, "the body is not a v1 Pod"),
            ({"apiVersion": "v2/pods", "kind": "Pod"}, "the body is not a v1 Pod"),
            ({"apiVersion": 1, "kind": "Pod"}, "the body: apiVersion is 1 but must be text"),
            ({}, "metadata is missing"),
            ({"metadata": {}}, "metadata.name is missing"),
            ({"metadata": {"name": "a/b"}}, 'metadata.name is "a/b" but must be a name'),
            ({"metadata": {"name": "a"}, "spec": {"nodeName": 5}}, "spec.nodeName is 5 but must be text"),
        ],
    )
    def test_what_is_no_pod(self, value: Any, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            read_pod(value)
        assert str(caught.value) == expected
