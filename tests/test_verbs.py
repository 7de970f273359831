"""The routes around the verbs: what is counted, logged and answered when the verb itself is not the point."""

import asyncio
import dataclasses
from typing import Any

import httpx
import pytest

from extender.app import create_app, create_observe_app
from extender.core import names
from tests.builders import make_node, make_pod
from tests.client import Extender, serve

VERBS = ("filter", "prioritize", "bind", "preempt")
GETS = ("/healthz", "/readyz", "/metrics", "/inspect", "/check")


def cluster(**settings: Any) -> Extender:
    return serve(make_node("n").gpus(2, mib=81920).build(), make_node("cpu").build(), **settings)


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://extender")


async def test_get_paths() -> None:
    async with cluster() as extender:
        for path in GETS:
            response = await extender.http.get(path)
            assert response.status_code == 200, path
            assert int(response.headers["content-length"]) == len(response.content)
        assert (await extender.http.get("/healthz")).text == "ok\n"
        assert (await extender.http.get("/readyz")).text == "ok\n"
        assert (await extender.http.get("/nowhere")).status_code == 404
        assert (await extender.http.get("/scheduler/filter")).status_code == 405


async def test_verbs_are_documented_though_they_pass_the_framework_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as extender:
        described = (await extender.http.get("/openapi.json")).json()["paths"]
        assert [list(described[f"/scheduler/{verb}"]) for verb in VERBS] == [["post"]] * 4
        monkeypatch.setattr("fastapi.routing.APIRoute.handle", lambda *_: pytest.fail("the long way"))
        for verb in VERBS:
            answer = await extender.http.post(f"/scheduler/{verb}", json={})
            assert (answer.status_code, list(answer.json())) == (200, ["Error"])


async def test_not_in_step_yet() -> None:
    """Fail closed: an error for every verb, never a failure map; the process is alive but not ready."""
    async with cluster() as extender:
        service = dataclasses.replace(extender.service, not_ready=lambda: "the ledger has not synced")
        async with client(create_app(service)) as http:
            for verb in VERBS:
                body = {"Pod": make_pod("p").build(), "NodeNames": ["n"], "Node": "n"}
                answer = await http.post(f"/scheduler/{verb}", json=body)
                assert (answer.status_code, answer.json()) == (200, {"Error": "the ledger has not synced"})
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.text) == (503, "the ledger has not synced\n")
            assert (await http.get("/healthz")).status_code == 200


async def test_a_bug_of_ours_is_an_error_not_an_answer(monkeypatch: pytest.MonkeyPatch, logged: list[Any]) -> None:
    async with cluster() as extender:
        monkeypatch.setattr(extender.service.decisions, "filter", lambda *_: 1 / 0)
        answer = await extender.post("/scheduler/filter", {"Pod": make_pod("p").build(), "NodeNames": ["n"]})
        assert answer == {"Error": "internal error, see the extender's log"}
    assert [event["event"] for event in logged if event.get("exc_info")] == ["filter"]
    logged.clear()


async def test_the_observe_listener_has_no_verbs() -> None:
    async with cluster() as extender, client(create_observe_app(extender.service)) as http:
        for path in GETS:
            assert (await http.get(path)).status_code == 200
        for verb in VERBS:
            assert (await http.post(f"/scheduler/{verb}", json={})).status_code == 404
        assert (await http.post("/embedded/pods", json={})).status_code == 404
        assert (await http.delete("/embedded/pods/default/p")).status_code == 404


async def test_each_decision_is_one_log_line(logged: list[Any]) -> None:
    async with cluster() as extender:
        pod = make_pod("p", "team").gpu_fraction("0.5").build()
        assert await extender.schedule(pod) == "n"
        await extender.filter(make_pod("big").gpu_memory(99999).build())
    lines = {(line["event"], line["pod"]): line for line in logged}
    assert list(lines) == [("filter", "p"), ("bind", "p"), ("filter", "big")]
    filtered, bound, refused = lines.values()
    assert (filtered["asked"], filtered["passed"], filtered["rejected"]) == (2, 1, {"NoGpu": 1})
    assert (bound["node"], bound["result"], len(bound["gpus"])) == ("n", "bound", 1)
    assert (refused["result"], refused["passed"]) == ("unfit", 0)
    assert all(line["namespace"] and line["uid"] and line["ms"] >= 0 for line in lines.values())


async def test_explain_remembers_the_last_decision() -> None:
    async with cluster() as extender:
        pod = await extender.submit(make_pod("p").gpu_fraction("0.5").build())
        assert (await extender.get("/explain/default/p"))["lastDecision"] is None
        await extender.filter(pod)
        assert (await extender.get("/explain/default/p"))["lastDecision"]["verb"] == "filter"
        await extender.bind(pod, "cpu")
        told = (await extender.get("/explain/default/p"))["lastDecision"]
        assert (told["verb"], told["result"], told["node"]) == ("bind", "refused", "cpu")
        assert told["error"]


async def test_explain_unknown() -> None:
    async with cluster() as extender:
        response = await extender.http.get("/explain/default/nobody")
        assert (response.status_code, response.json()) == (404, {"detail": "pod default/nobody is not known"})


async def test_inspect_and_check_change_nothing() -> None:
    async with cluster() as extender:
        await extender.schedule(make_pod("p").gpu_fraction("0.5").build())
        first = (await extender.http.get("/inspect")).content
        for path in (*GETS, "/explain/default/p"):
            await extender.http.get(path)
        # A claim is no part of the picture.
        await extender.filter(make_pod("q").gpu_fraction("0.5").build(), ["n"])
        assert (await extender.http.get("/inspect")).content == first


async def test_preempt_by_uid() -> None:
    async with cluster() as extender:
        held = [make_pod(f"p{i}").gpu_memory(81920).build() for i in range(2)]
        assert [await extender.schedule(pod) for pod in held] == ["n", "n"]
        pod = make_pod("new").gpu_memory(81920).build()

        async def kept(*victims: Any) -> Any:
            uids = [{"UID": victim["metadata"]["uid"]} for victim in victims]
            body = {"Pod": pod, "NodeNameToMetaVictims": {"n": {"Pods": uids, "NumPDBViolations": 2}, "cpu": {}}}
            return (await extender.post("/scheduler/preempt", body))["NodeNameToMetaVictims"]

        before = await extender.get("/inspect")
        assert await kept() == {}
        assert await kept(make_pod("stranger").build()) == {}
        uid = held[1]["metadata"]["uid"]
        assert await kept(held[1]) == {"n": {"Pods": [{"UID": uid}], "NumPDBViolations": 2}}
        assert await extender.get("/inspect") == before, "preempt only answers"


@pytest.mark.parametrize("preemption", [False, True])
async def test_taken_capacity_is_resolvable_only_with_preemption(preemption: bool) -> None:
    async with cluster(preemption=preemption) as extender:
        for i in range(2):
            assert await extender.schedule(make_pod(f"p{i}").gpu_memory(81920).build()) == "n"
        answer = await extender.filter(make_pod("new").gpu_memory(1).build())
        failed = {"n": "no shared GPU has room and none is free"}
        assert answer["FailedNodes"] == (failed if preemption else {})
        assert answer["FailedAndUnresolvableNodes"].keys() == ({"cpu"} if preemption else {"n", "cpu"})
        too_big = await extender.filter(make_pod("big").gpu_memory(81921).build())
        assert too_big["FailedNodes"] == {}, "no end of other pods would help"


async def test_verbs_of_many_pods_at_once() -> None:
    async with cluster() as extender:
        pods = [await extender.submit(make_pod(f"p{i}").gpu_fraction("0.25").build()) for i in range(12)]
        chosen = await asyncio.gather(*(extender.cycle(pod) for pod in pods))
        assert chosen.count("n") == 8
        bound = [pod for pod, node in zip(pods, chosen, strict=True) if node]
        assert await asyncio.gather(*(extender.bind(pod, "n") for pod in bound)) == [""] * 8
        assert await extender.shares("n") == [[20480] * 4] * 2
        reservations = [p for p in extender.cluster.pods() if "agent" in str(p["spec"])]
        assert {p["metadata"]["namespace"] for p in reservations} == {names.RESERVATION_NAMESPACE}


async def test_a_share_where_no_node_has_a_gpu() -> None:
    """There is no size of GPU to count with: an internal error once."""
    async with serve(make_node("cpu").build()) as extender:
        answer = await extender.filter(make_pod("p").gpu_memory(100).build())
        assert answer["Error"] == ""
        assert not answer["NodeNames"]


async def test_a_request_that_is_refused_where_no_node_is_named() -> None:
    """Nobody was given a sentence to pass on: an internal error once."""
    async with serve(make_node("n").gpus(1, mib=81920).build()) as extender:
        pod = make_pod("p").gpu_fraction("nonsense").build()
        answer = await extender.filter(pod, [])
        assert answer["Error"] == ""
