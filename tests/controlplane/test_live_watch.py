"""The extender while its API server and etcd come and go: it catches up by itself, and says what it waits for."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests.builders import PodBuilder, make_node, make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.process import PATIENCE, Process, wait_for
from tests.controlplane.referee import Referee
from tests.controlplane.stage import Served, Stage
from tests.manifests import BASE

Json = dict[str, Any]
CARD = 80_000
_NUMBERS = count(1)


class Extender:
    """What a running one says over HTTP."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.process = served.process
        self._http = httpx.Client(base_url=served.url, trust_env=False)

    def close(self) -> None:
        self.process.kill()
        self._http.close()

    def readiness(self) -> tuple[int, str]:
        answer = self._http.get("/readyz")
        return answer.status_code, answer.text.strip()

    def says(self, *parts: str) -> bool:
        """Whether it is not ready, for a reason that has all these parts."""
        try:
            status, reason = self.readiness()
        except httpx.TransportError:
            return False
        return status == 503 and all(part in reason for part in parts)

    def verb(self, name: str) -> Json:
        pod = make_pod().gpu_fraction("0.5").build()
        args: Json = {"Pod": pod, "Nodes": None, "NodeNames": ["n"], "NodeNameToVictims": {}}
        bind = {"PodName": "p", "PodNamespace": "default", "PodUID": "u", "Node": "n"}
        answer: Json = self._http.post(f"/scheduler/{name}", json=bind if name == "bind" else args).json()
        return answer

    def held(self) -> dict[str, int]:
        """Pod → MiB of its share, for all shares; whole GPUs are counted under their node's name."""
        nodes = self._http.get("/inspect").json()["nodes"]
        shares = [share for node in nodes for gpu in node["sharedGpus"] for share in gpu["shares"]]
        whole = {node["name"]: node["wholeGpusHeld"] for node in nodes if node["wholeGpusHeld"]}
        return {share["pod"]: share["memoryMiB"] for share in shares} | whole

    def differences(self) -> list[Json]:
        found: list[Json] = self._http.get("/check").json()["differences"]
        return found

    def repairs(self, kind: str) -> float:
        """Pods of which only a new list has told."""
        sample = rf'gpu_extender_relist_repairs_total{{kind="{kind}",object="pods"}} ([0-9.]+)'
        found = re.search(sample, self._http.get("/metrics").text)
        return float(found[1]) if found else 0.0

    async def comes_to_hold(self, expected: dict[str, int], seconds: float = 20) -> None:
        """And keeps answering that it is ready; nothing differs from the API then."""

        def so() -> bool:
            assert self.readiness() == (200, "ok")
            return self.held() == expected and self.differences() == []

        complaint: Callable[[], str] = lambda: f"{self.held()} instead of {expected}; {self.differences()}"  # noqa: E731
        await asyncio.to_thread(wait_for, so, seconds, complaint)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def extender(stage: Stage) -> Iterator[Extender]:
    extender = Extender(stage.start_extender())
    yield extender
    extender.close()


@pytest.fixture(scope="module")
def scheduler(stage: Stage, extender: Extender) -> Process:
    return stage.start_scheduler(extender.served)


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.plane) as client:
        yield client


@pytest.fixture
def node() -> str:
    """A name that no other test has. So have its pods: kube-scheduler ends where a relist shows one on another node."""
    return f"n-{next(_NUMBERS)}"


@pytest.fixture
async def referee(admin: Client, extender: Extender, scheduler: Process, node: str) -> AsyncIterator[Referee]:
    """One node with two GPUs, on which ``first-`` and its name runs with half of one; nothing runs in the end."""
    # A new one has seen no outage: after several, client-go waits up to a minute before it lists again.
    await asyncio.to_thread(scheduler.restart)
    async with Referee(admin, seed=int(node[2:])) as referee:
        await referee.add_node(make_node(node).gpus(2, mib=CARD).build())
        await admin.create_pod(share(f"first-{node}"))
        await referee.wait_running({f"default/first-{node}"}, 30)
        yield referee
        assert referee.violations() == []
        for name in list(referee.running()):
            await referee.force_delete(name)
        await referee.remove_node(node)
        await asyncio.to_thread(wait_for, lambda: extender.held() == {}, PATIENCE, lambda: f"{extender.held()}")


def share(name: str) -> Json:
    return scheduled(make_pod(name).gpu_fraction("0.5"))


def scheduled(pod: PodBuilder) -> Json:
    return pod.spec(schedulerName="gpu-scheduler", terminationGracePeriodSeconds=0).build()


async def goes_on(extender: Extender, referee: Referee, admin: Client, node: str) -> None:
    """One share goes and another comes."""
    await admin.delete(path_of(share(f"first-{node}")))
    await admin.create_pod(share(f"second-{node}"))
    await referee.wait_running({f"default/second-{node}"}, 40)
    await extender.comes_to_hold({f"second-{node}": CARD // 2})


async def test_a_restarted_api_server(
    extender: Extender, referee: Referee, admin: Client, stage: Stage, node: str
) -> None:
    stage.plane.apiserver.restart()
    await goes_on(extender, referee, admin, node)


async def test_what_changed_in_versions_that_are_forgotten(
    extender: Extender, referee: Referee, admin: Client, stage: Stage, node: str
) -> None:
    """410 Gone: a new list shows what no watch can show any more."""
    before = {kind: extender.repairs(kind) for kind in ("gone", "missed")}
    extender.process.pause()
    try:
        stage.plane.apiserver.restart()  # its memory of changes begins here
        await admin.delete(path_of(share(f"first-{node}")))
        await admin.create_pod(make_pod(f"whole-{node}").gpus(1).spec(nodeName=node).build())
        await referee.wait_running({f"default/whole-{node}"}, 20)
    finally:
        extender.process.resume()
    await extender.comes_to_hold({node: 1})
    assert {kind: extender.repairs(kind) > before[kind] for kind in before} == {"gone": True, "missed": True}


async def test_an_api_server_that_stands_still(
    extender: Extender, referee: Referee, admin: Client, stage: Stage, node: str
) -> None:
    stage.plane.apiserver.pause()
    try:
        for _ in range(7):
            await asyncio.sleep(1)
            assert extender.readiness() == (200, "ok")
            assert extender.held() == {f"first-{node}": CARD // 2}
    finally:
        stage.plane.apiserver.resume()
    await goes_on(extender, referee, admin, node)


async def test_an_api_server_that_is_away(
    extender: Extender, referee: Referee, admin: Client, stage: Stage, node: str
) -> None:
    stage.plane.apiserver.kill()
    try:
        for _ in range(4):
            await asyncio.sleep(1)
            assert extender.readiness() == (200, "ok")
            assert extender.held() == {f"first-{node}": CARD // 2}
    finally:
        stage.plane.apiserver.restart()
    await goes_on(extender, referee, admin, node)


async def test_a_restarted_etcd(extender: Extender, referee: Referee, admin: Client, stage: Stage, node: str) -> None:
    stage.plane.etcd.restart()
    await goes_on(extender, referee, admin, node)


def test_started_before_the_api_server_it_waits_and_says_for_what(stage: Stage) -> None:
    stage.plane.apiserver.stop()
    try:
        early = Extender(stage.start_extender("early", wait=False))
        wait_for(
            lambda: early.says("the first list of", "no answer from the Kubernetes API"), PATIENCE, early.process.tail
        )
        for verb in ("filter", "prioritize", "bind", "preempt"):
            answer = early.verb(verb)
            assert set(answer) == {"Error"}
            assert "the first list of" in answer["Error"]
    finally:
        stage.plane.apiserver.restart()
    wait_for(lambda: early.readiness() == (200, "ok"), PATIENCE, early.process.tail)
    assert "FailedAndUnresolvableNodes" in early.verb("filter")
    early.close()


def test_a_right_that_is_missing_is_named_and_used_once_it_is_given(stage: Stage) -> None:
    kubectl = stage.plane.kubectl
    role = json.loads(kubectl("get", "clusterrole", "gpu-extender", "-o", "json"))
    rules = [rule for rule in role["rules"] if rule["resources"] != ["nodes"] or "list" not in rule["verbs"]]
    assert len(rules) == len(role["rules"]) - 1
    kubectl("replace", "-f", "-", stdin=json.dumps({**role, "rules": rules}))
    try:
        unentitled = Extender(stage.start_extender("unentitled", wait=False))
        wait_for(
            lambda: unentitled.says("the first list of nodes", "403", "forbidden"), PATIENCE, unentitled.process.tail
        )
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "-k", str(BASE))
    wait_for(lambda: unentitled.readiness() == (200, "ok"), PATIENCE, unentitled.process.tail)
    unentitled.close()
