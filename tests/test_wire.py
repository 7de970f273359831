"""extender/v1: what kube-scheduler sends, what it may send wrong, and what it reads back."""

import json
from pathlib import Path
from typing import Any

import pytest

from extender import wire
from extender.core.errors import InputError
from tests.builders import make_node, make_pod
from tests.client import Extender, serve

BODIES = Path(__file__).parent / "fixtures" / "bodies"
VERBS = ("filter", "prioritize", "bind", "preempt")


def body_of(name: str) -> Any:
    return json.loads((BODIES / f"{name}.json").read_text())


def cluster() -> Extender:
    """The nodes that the recorded bodies name: two with GPUs, one without."""
    a, b = (make_node(name).gpus(8, mib=81920).build() for name in ("gpu-a", "gpu-b"))
    return serve(a, b, make_node("cpu-a").build())


async def post(extender: Extender, verb: str, content: bytes | str) -> Any:
    """The decoded answer; it is 200, JSON, and has a length."""
    response = await extender.http.post(f"/scheduler/{verb}", content=content)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    return response.json()


# --- recorded bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["names", "nodes"])
async def test_recorded_share(form: str) -> None:
    async with cluster() as extender:
        body = body_of(f"filter-share-{form}")
        answer = await post(extender, "filter", json.dumps(body))
        assert answer["Error"] == ""
        assert (answer["FailedNodes"], answer["FailedAndUnresolvableNodes"]) == ({}, {})
        if form == "names":
            assert (answer["Nodes"], answer["NodeNames"]) == (None, ["gpu-a", "gpu-b"])
        else:
            assert answer["NodeNames"] is None
            # The objects go back untouched: kube-scheduler goes on with what it reads here.
            assert answer["Nodes"]["items"] == body["Nodes"]["items"][:2]
        scores = await post(extender, "prioritize", json.dumps(body_of(f"prioritize-share-{form}")))
        assert scores == [{"Host": "gpu-a", "Score": 10}, {"Host": "gpu-b", "Score": 9}]


async def test_recorded_whole_and_cpu() -> None:
    async with cluster() as extender:
        whole = await post(extender, "filter", json.dumps(body_of("filter-whole-names")))
        assert whole["NodeNames"] == ["gpu-a", "gpu-b"]
        cpu = await post(extender, "filter", json.dumps(body_of("filter-cpu-names")))
        assert cpu["NodeNames"] == ["gpu-a", "gpu-b", "cpu-a"]


async def test_recorded_bind() -> None:
    async with cluster() as extender:
        await extender.submit(body_of("filter-share-names")["Pod"])
        assert await post(extender, "bind", json.dumps(body_of("bind-share"))) == {"Error": ""}
        assert await extender.shares("gpu-a") == [[40960]]


@pytest.mark.parametrize(("name", "kept"), [("preempt-meta", ["gpu-a", "gpu-b"]), ("preempt-pods", ["gpu-b"])])
async def test_recorded_preempt(name: str, kept: list[str]) -> None:
    async with cluster() as extender:
        answer = await post(extender, "preempt", json.dumps(body_of(name)))
        assert list(answer) == ["NodeNameToMetaVictims"]
        found = answer["NodeNameToMetaVictims"]
        assert list(found) == kept
        assert all(isinstance(victims["Pods"], list) for victims in found.values()), "null would be dereferenced"
    asked = body_of(name)["NodeNameToMetaVictims"]
    if asked:
        assert found["gpu-a"] == asked["gpu-a"]
        assert found["gpu-b"] == {"Pods": [], "NumPDBViolations": 1}
    else:
        assert found["gpu-b"]["Pods"] == [{"UID": "5f0f7a4e-13ad-4a5a-8f58-f2b7f0bb0c02"}]


async def test_a_cycle_recorded_from_kube_scheduler() -> None:
    """The bytes that kube-scheduler 1.36.3 sent for one pod; the other bodies here are written after its types."""
    recorded = {verb: (BODIES / f"recorded-{verb}.json").read_bytes() for verb in ("filter", "prioritize", "bind")}
    async with cluster() as extender:
        await extender.submit(json.loads(recorded["filter"])["Pod"])
        assert sorted((await post(extender, "filter", recorded["filter"]))["NodeNames"]) == ["gpu-a", "gpu-b"]
        scores = await post(extender, "prioritize", recorded["prioritize"])
        assert sorted(entry["Score"] for entry in scores) == [9, 10]
        assert await post(extender, "bind", recorded["bind"]) == {"Error": ""}
        assert await extender.shares(json.loads(recorded["bind"])["Node"]) == [[40960]]


# --- what nobody should send ------------------------------------------------------------------------------

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "cut off": b'{"Pod": {',
    "no JSON": b"Pod=x",
    "no UTF-8": b'{"Pod": "\xff"}',
    "half a surrogate": b'{"Pod": {"metadata": {"name": "\\ud800"}}}',
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "number": b"1",
    "deep": b'{"Pod": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two": b"{}{}",
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed(verb: str, content: bytes) -> None:
    async with cluster() as extender:
        before = await extender.get("/inspect")
        answer = await post(extender, verb, content)
        assert list(answer) == ["Error"], "never a failure map, never a score"
        assert answer["Error"]
        assert "\n" not in answer["Error"]
        assert await extender.get("/inspect") == before


WRONG = [
    ("filter", {"Pod": None, "NodeNames": ["gpu-a"]}, "Pod is null"),
    ("filter", {"NodeNames": ["gpu-a"]}, "Pod is null"),
    ("filter", {"Pod": {}, "Nodes": None, "NodeNames": None}, "Nodes and NodeNames are both null"),
    ("filter", {"Pod": 1, "NodeNames": ["gpu-a"]}, "ExtenderArgs: Pod: "),
    ("filter", {"Pod": {}, "NodeNames": "gpu-a"}, "ExtenderArgs: NodeNames: "),
    ("filter", {"Pod": {}, "NodeNames": ["gpu-a", None]}, "ExtenderArgs: NodeNames.1: "),
    ("filter", {"Pod": {}, "NodeNames": [7]}, "ExtenderArgs: NodeNames.0: "),
    ("filter", {"Pod": {}, "Nodes": []}, "ExtenderArgs: Nodes: "),
    ("filter", {"Pod": {}, "Nodes": {"items": [{}]}}, "ExtenderArgs: Nodes.items.0.metadata.name: "),
    ("filter", {"Pod": {}, "Nodes": {"items": [{"metadata": [1]}]}}, "ExtenderArgs: Nodes.items.0.metadata.name: "),
    ("filter", {"Pod": {}, "Nodes": {"items": [{"metadata": {"name": 3}}]}}, "Nodes.items.0.metadata.name: "),
    ("prioritize", {"Pod": None, "NodeNames": []}, "Pod is null"),
    ("prioritize", {"Pod": {}, "NodeNames": {}}, "ExtenderArgs: NodeNames: "),
    ("bind", {}, "ExtenderBindingArgs: PodName: "),
    ("bind", {"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": ""}, "must not be empty"),
    ("bind", {"PodName": "p", "PodNamespace": "d", "PodUID": "", "Node": "n"}, "must not be empty"),
    ("bind", {"PodName": "p", "PodNamespace": "d", "PodUID": 5, "Node": "n"}, "ExtenderBindingArgs: PodUID: "),
    ("bind", {"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": None}, "ExtenderBindingArgs: Node: "),
    ("preempt", {"Pod": None}, "Pod is null"),
    ("preempt", {"Pod": {}, "NodeNameToMetaVictims": []}, "ExtenderPreemptionArgs: NodeNameToMetaVictims: "),
    ("preempt", {"Pod": {}, "NodeNameToMetaVictims": {"n": {"Pods": [{"UID": 1}]}}}, "NodeNameToMetaVictims.n.Pods.0"),
    ("preempt", {"Pod": {}, "NodeNameToMetaVictims": {"n": {"NumPDBViolations": 1 << 63}}}, "NumPDBViolations"),
]


@pytest.mark.parametrize(("verb", "body", "sentence"), WRONG)
async def test_wrong_types_name_the_field(verb: str, body: Any, sentence: str) -> None:
    async with cluster() as extender:
        answer = await post(extender, verb, json.dumps(body))
        assert list(answer) == ["Error"]
        assert sentence in answer["Error"]


async def test_null_everywhere_else_is_no_error() -> None:
    async with cluster() as extender:
        pod: Any = {"metadata": None, "spec": None, "status": None}
        answer = await post(extender, "filter", json.dumps({"Pod": pod, "Nodes": None, "NodeNames": ["cpu-a"]}))
        assert answer["NodeNames"] == ["cpu-a"]
        pod = make_pod("p").build()
        for gone in ("labels", "annotations", "ownerReferences", "managedFields"):
            pod["metadata"][gone] = None
        for gone in ("initContainers", "volumes", "tolerations", "affinity", "nodeSelector", "overhead", "nodeName"):
            pod["spec"][gone] = None
        pod["spec"]["containers"][0] |= {"resources": {"limits": None, "requests": None, "claims": None}, "env": None}
        answer = await post(extender, "filter", json.dumps({"Pod": pod, "Nodes": None, "NodeNames": ["cpu-a"]}))
        assert answer["NodeNames"] == ["cpu-a"]
        empty = await post(extender, "filter", json.dumps({"Pod": pod, "Nodes": {"items": None}, "NodeNames": None}))
        assert empty["Nodes"] == {"metadata": {}, "items": []}
        assert await post(extender, "prioritize", json.dumps({"Pod": pod, "NodeNames": []})) == []
        nothing = {"Pod": pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": None}
        assert await post(extender, "preempt", json.dumps(nothing)) == {"NodeNameToMetaVictims": {}}
        victims = {"Pod": pod, "NodeNameToVictims": {"cpu-a": {"Pods": [None, {"metadata": [1]}, {}]}, "gpu-a": None}}
        assert await post(extender, "preempt", json.dumps(victims)) == {
            "NodeNameToMetaVictims": {
                "cpu-a": {"Pods": [], "NumPDBViolations": 0},
                "gpu-a": {"Pods": [], "NumPDBViolations": 0},
            }
        }


@pytest.mark.parametrize("metadata", [[1], "x", 3, True, {"name": ["x"], "uid": {}, "annotations": "no"}])
@pytest.mark.parametrize("verb", ["filter", "prioritize", "preempt"])
async def test_a_pod_of_wrong_types_is_refused_not_a_crash(verb: str, metadata: Any) -> None:
    body = {"Pod": {"metadata": metadata, "spec": "x"}, "NodeNames": ["gpu-a"], "NodeNameToMetaVictims": {"gpu-a": {}}}
    async with cluster() as extender:
        answer = await post(extender, verb, json.dumps(body))
        if verb == "filter":
            assert answer["NodeNames"] == []
            assert list(answer["FailedAndUnresolvableNodes"]) == ["gpu-a"]
        else:
            assert answer in ([{"Host": "gpu-a", "Score": 0}], {"NodeNameToMetaVictims": {}})


async def test_a_node_object_that_cannot_be_sent_back_is_an_error() -> None:
    """JSON's numbers have no bound, those of whoever reads the answer do."""
    body = {"Pod": {}, "Nodes": {"items": [{"metadata": {"name": "cpu-a"}, "x": 1 << 70}]}}
    async with cluster() as extender:
        assert "cannot be sent back" in (await post(extender, "filter", json.dumps(body)))["Error"]


async def test_unknown_fields_are_ignored() -> None:
    body = body_of("filter-share-names")
    body |= {"Brandnew": {"a": 1}, "nodenames": ["cpu-a"]}
    body["Pod"]["spec"]["brandnew"] = [1, 2]
    async with cluster() as extender:
        assert (await post(extender, "filter", json.dumps(body)))["NodeNames"] == ["gpu-a", "gpu-b"]


async def test_unknown_nodes_and_duplicates() -> None:
    pod = make_pod("p").gpu_memory(100).build()
    async with cluster() as extender:
        asked = ["gpu-a", "nobody", "gpu-a", "gpu-b", "gpu-b"]
        assert (await extender.filter(pod, asked))["NodeNames"] == ["gpu-a", "gpu-b"]
        response = await post(extender, "prioritize", json.dumps({"Pod": pod, "NodeNames": asked}))
        assert sorted(entry["Host"] for entry in response) == ["gpu-a", "gpu-b", "nobody"]
        assert {entry["Host"]: entry["Score"] for entry in response}["nobody"] == 0
        nothing = await extender.filter(pod, ["nobody", "nobody"])
        assert nothing["NodeNames"] == []
        assert nothing["FailedAndUnresolvableNodes"] == {"nobody": "the node is not known to the ledger"}
        twice = {"items": [{"metadata": {"name": "gpu-a"}}] * 2}
        answer = await post(extender, "filter", json.dumps({"Pod": pod, "Nodes": twice}))
        assert [item["metadata"]["name"] for item in answer["Nodes"]["items"]] == ["gpu-a"]


async def test_go_field_names_are_exact() -> None:
    async with cluster() as extender:
        answer = await post(extender, "filter", json.dumps({"pod": {}, "nodeNames": ["gpu-a"]}))
        assert "Pod is null" in answer["Error"]


def test_read_names_the_message() -> None:
    with pytest.raises(InputError, match="the body is empty: it must be ExtenderBindingArgs as JSON"):
        wire.read(wire.ExtenderBindingArgs, b"")


@pytest.mark.parametrize("form", ["NodeNames", "Nodes"])
def test_the_answer_has_every_field_of_the_go_struct(form: str) -> None:
    nodes = {"NodeNames": ["n"]} if form == "NodeNames" else {"Nodes": {"items": [{"metadata": {"name": "n"}}]}}
    args = wire.read(wire.ExtenderArgs, json.dumps({"Pod": {}} | nodes).encode())
    answer = wire.filter_result(args, ["n"], {"a": "x"}, {"b": "y"})
    assert list(answer) == ["Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error"]
    assert (answer["FailedNodes"], answer["FailedAndUnresolvableNodes"]) == ({"a": "x"}, {"b": "y"})
    assert (answer["Nodes"] is None) == (form == "NodeNames")
