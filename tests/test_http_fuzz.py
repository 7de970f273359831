"""Anything may come over HTTP: no 5xx, no traceback, and the account stays as it was."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import make_node, make_pod
from tests.client import Extender, serve

NODES = ("n", "m", "cpu")
FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["n", "0.5", "-1", "1e400", "nvidia.com/gpu", "10Gi", "9" * 30])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def objects(required: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An object with these fields, each good, absent or of any shape."""
    return st.fixed_dictionaries({}, optional={key: value | anything for key, value in required.items()})


quantities = st.dictionaries(st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "cpu"]), scalars, max_size=2)
annotations = st.dictionaries(
    st.sampled_from(
        [
            "gpu-fraction",
            "gpu-memory",
            "gpu-fraction-num-devices",
            "gpu-fraction-container-name",
            "gpu-placement-strategy",
            "nvidia.com/container.main.gpu-memory.limit",
            "nvidia.com/container.main.gpu-compute.mode",
            "gpu-extender.io/shared-gpus",
        ]
    ),
    st.sampled_from(["0.5", "4096", "2", "main", "spread", "8Gi", "sm-sharing"]) | scalars,
    max_size=3,
)
containers = st.lists(
    objects({"name": st.just("main"), "resources": objects({"limits": quantities, "requests": quantities})}),
    max_size=2,
)
pods = objects(
    {
        "apiVersion": st.just("v1"),
        "kind": st.just("Pod"),
        "metadata": objects(
            {
                "name": st.sampled_from(["p", "q", "held", "new"]),
                "namespace": st.sampled_from(["default", "gpu-reservations"]),
                "uid": st.text(max_size=4),
                "annotations": annotations,
            }
        ),
        "spec": objects({"containers": containers, "initContainers": containers, "nodeName": st.just("n")}),
        "status": objects({"phase": st.sampled_from(["Pending", "Failed"]), "containerStatuses": st.lists(anything)}),
    }
)
names = st.lists(st.sampled_from(NODES) | st.text(max_size=5), max_size=5)
node_lists = objects({"items": st.lists(objects({"metadata": objects({"name": st.sampled_from(NODES)})}), max_size=3)})
arguments = objects({"Pod": pods, "Nodes": node_lists, "NodeNames": names})
victims = st.dictionaries(
    st.sampled_from(NODES) | st.text(max_size=5),
    objects(
        {
            "Pods": st.lists(objects({"UID": st.text(max_size=9), "metadata": objects({"uid": st.just("u")})})),
            "NumPDBViolations": st.integers(),
        }
    ),
    max_size=3,
)
preemptions = objects({"Pod": pods, "NodeNameToVictims": victims, "NodeNameToMetaVictims": victims})
bindings = objects(
    {
        "PodName": st.sampled_from(["nobody", "x"]),
        "PodNamespace": st.just("default"),
        "PodUID": st.just("u"),
        "Node": st.sampled_from(NODES),
    }
)


class Loop:
    """A service with something on it, and one event loop for many examples."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.extender = self.runner.run(self._open())
        self.before = self.run_get("/inspect")

    async def _open(self) -> Extender:
        a, b = (make_node(name).gpus(4, mib=81920).build() for name in ("n", "m"))
        extender = serve(a, b, make_node("cpu").build())
        assert await extender.schedule(make_pod("held").gpu_fraction("0.5").build(), ["n"]) == "n"
        return extender

    def send(self, method: str, path: str, content: bytes) -> Any:
        return self.runner.run(self.extender.http.request(method, path, content=content))

    def run_get(self, path: str) -> Any:
        return self.runner.run(self.extender.get(path))

    def close(self) -> None:
        self.runner.run(self.extender.__aexit__())
        self.runner.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def judge(loop: Loop, verb: str, content: bytes) -> None:
    """The answer of a verb is 200 and of its own shape, whatever was asked; nothing has happened."""
    response = loop.send("POST", f"/scheduler/{verb}", content)
    assert response.status_code == 200, response.text
    answer = response.json()
    if verb == "prioritize" and isinstance(answer, list):
        assert all(type(entry["Score"]) is int and 0 <= entry["Score"] <= 10 for entry in answer)
        assert len({entry["Host"] for entry in answer}) == len(answer)
    elif verb == "preempt" and "Error" not in answer:
        assert all(isinstance(entry["Pods"], list) for entry in answer["NodeNameToMetaVictims"].values())
    else:
        assert isinstance(answer["Error"], str)
        assert "internal error" not in answer["Error"]
    loop.extender.service.decisions.ledger.check()
    assert loop.run_get("/inspect") == loop.before


@FAST
@given(body=arguments)
@pytest.mark.parametrize("verb", ["filter", "prioritize"])
def test_arguments(loop: Loop, verb: str, body: Any) -> None:
    judge(loop, verb, json.dumps(body).encode())


@FAST
@given(body=bindings)
def test_bindings(loop: Loop, body: Any) -> None:
    judge(loop, "bind", json.dumps(body).encode())


@FAST
@given(body=preemptions)
def test_preemptions(loop: Loop, body: Any) -> None:
    judge(loop, "preempt", json.dumps(body).encode())


@FAST
@given(verb=st.sampled_from(["filter", "prioritize", "bind", "preempt"]), content=st.binary(max_size=40))
def test_bytes(loop: Loop, verb: str, content: bytes) -> None:
    judge(loop, verb, content)


@FAST
@given(
    verb=st.sampled_from(["filter", "preempt"]),
    data=st.data(),
    cut=st.integers(0, 400),
)
def test_cut_off(loop: Loop, verb: str, data: st.DataObject, cut: int) -> None:
    body = json.dumps(data.draw(arguments if verb == "filter" else preemptions)).encode()
    judge(loop, verb, body[:cut])


@FAST
@given(pod=pods | anything)
def test_embedded_pods(loop: Loop, pod: Any) -> None:
    """What is stored can be read, explained, filtered, bound, deleted; then all is as before."""
    response = loop.send("POST", "/embedded/pods", json.dumps(pod).encode())
    assert response.status_code in (201, 409, 422), response.text
    if response.status_code == 201:
        exercise(loop, response.json())
    else:
        assert list(response.json()) == ["detail"]
        assert "\n" not in response.json()["detail"]
    assert loop.run_get("/inspect") == loop.before


def exercise(loop: Loop, stored: Any) -> None:
    metadata = stored["metadata"]
    where = "/".join(quote(metadata[key], safe="") for key in ("namespace", "name"))
    assert loop.send("GET", f"/embedded/pods/{where}", b"").json() == stored
    assert loop.send("GET", f"/explain/{where}", b"").status_code == 200
    for path in ("/inspect", "/check", "/metrics"):
        assert loop.send("GET", path, b"").status_code == 200
    body = {"PodName": metadata["name"], "PodNamespace": metadata["namespace"], "PodUID": metadata["uid"], "Node": "n"}
    bound = loop.send("POST", "/scheduler/bind", json.dumps(body).encode())
    assert bound.status_code == 200
    assert "internal" not in bound.json()["Error"]
    loop.extender.service.decisions.ledger.check()
    assert loop.send("DELETE", f"/embedded/pods/{where}", b"").status_code == 200
    assert loop.send("GET", f"/embedded/pods/{where}", b"").status_code == 404
    loop.extender.service.decisions.ledger.check()


@FAST
@given(
    method=st.sampled_from(["GET", "DELETE"]),
    kind=st.sampled_from(["/embedded/pods", "/explain"]),
    namespace=st.text(min_size=1, max_size=12),
    name=st.text(min_size=1, max_size=12),
)
def test_paths(loop: Loop, method: str, kind: str, namespace: str, name: str) -> None:
    if (namespace, name) == ("default", "held"):
        return
    path = f"{kind}/{quote(namespace, safe='')}/{quote(name, safe='')}"
    assert loop.send(method, path, b"").status_code in (404, 405)
    assert loop.run_get("/inspect") == loop.before
