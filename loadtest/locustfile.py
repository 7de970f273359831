"""Locust users, each a kube-scheduler: filter, prioritize, bind, later delete, with whole ExtenderArgs."""

import os
import random
from itertools import count
from typing import Any

import gevent
from locust import HttpUser, constant_pacing, events, task
from locust.env import Environment

from bench.clusters import CARD_MIB, GPUS, node_name
from loadtest.account import Account
from tests.builders import make_pod

NODES = [node_name(index) for index in range(int(os.environ["LOADTEST_NODES"]))]
PODS_HELD = 2000

account = Account(CARD_MIB, GPUS)
numbers = count()
#: Pods that are bound and not about to be deleted: (pod, node).
running: list[tuple[dict[str, Any], str]] = []
outcomes = {"bound": 0, "refused": 0, "unfit": 0, "deleted": 0}


def draw() -> tuple[dict[str, Any], int, int, int]:
    """A pod, and what it asks for: MiB on each device, devices, whole GPUs."""
    pod = make_pod(f"load-{next(numbers)}", "load")
    kind = random.random()
    if kind < 0.1:
        whole = random.choice((1, 1, 2, 4))
        return pod.gpus(whole).build(), 0, 0, whole
    if kind < 0.2:
        return pod.gpu_memory(4096).num_devices(2).build(), 4096, 2, 0
    if kind < 0.6:
        mib = random.choice((2048, 4096, 8192, 14336, 24576))
        return pod.gpu_memory(mib).build(), mib, 1, 0
    hundredths = random.choice((10, 20, 25, 50))
    return pod.gpu_fraction(f"0.{hundredths}").build(), CARD_MIB * hundredths // 100, 1, 0


class Scheduler(HttpUser):
    """One scheduling cycle after another; now and then a pod ends."""

    wait_time = constant_pacing(0.02)

    @task(10)
    def schedule(self) -> None:
        """One pod from creation to bind."""
        pod, mib, devices, whole = draw()
        self.client.post("/embedded/pods", json=pod)
        passed = self._post("filter", {"Pod": pod, "Nodes": None, "NodeNames": NODES}).get("NodeNames") or []
        if not passed:
            outcomes["unfit"] += 1
            return
        scores = self._post("prioritize", {"Pod": pod, "Nodes": None, "NodeNames": passed})
        node = max(scores, key=lambda entry: int(entry["Score"]))["Host"]
        metadata = pod["metadata"]
        body = {"PodName": metadata["name"], "PodNamespace": "load", "PodUID": metadata["uid"], "Node": node}
        if self._post("bind", body)["Error"]:
            outcomes["refused"] += 1
            return
        outcomes["bound"] += 1
        bound = self.client.get(f"/embedded/pods/load/{metadata['name']}", name="/embedded/pods/…").json()
        account.bound(bound, node, mib, devices, whole)
        running.append((bound, node))

    @task(8)
    def end(self) -> None:
        """A running pod is deleted: seldom while few run."""
        if len(running) < random.randint(0, PODS_HELD):
            return
        pod, node = running.pop(random.randrange(len(running)))
        metadata = pod["metadata"]
        account.ended(metadata["uid"], node)
        self.client.delete(f"/embedded/pods/load/{metadata['name']}", name="/embedded/pods/…")
        outcomes["deleted"] += 1

    @task(1)
    def look(self) -> None:
        """What Prometheus does."""
        self.client.get("/metrics")

    def _post(self, verb: str, body: Any) -> Any:
        with self.client.post(f"/scheduler/{verb}", json=body, catch_response=True) as response:
            answer = response.json() if response.status_code == 200 else {"Error": response.text}
            # A bind may lose its room to another scheduler; filter and prioritize have nothing to refuse here.
            if verb != "bind" and isinstance(answer, dict) and answer.get("Error"):
                response.failure(answer["Error"])
            return answer


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def verdict(environment: Environment, **_: Any) -> None:
    """Compare with the service once everything has ended, and decide the exit status."""
    gevent.sleep(1)
    assert environment.host is not None
    from urllib.request import urlopen  # noqa: PLC0415 - patched by gevent, used once

    import orjson  # noqa: PLC0415

    with urlopen(f"{environment.host}/inspect") as answer:
        account.compare(orjson.loads(answer.read()))
    failures = environment.stats.total.num_failures
    good = not account.violations and not failures and outcomes["bound"] > 0
    print(f"\n{len(NODES)} nodes: {outcomes}; {failures} failed requests, {len(account.violations)} violations")
    for violation in account.violations[:10]:
        print(f"  {violation}")
    print("verdict: " + ("GOOD" if good else "BAD"))
    environment.process_exit_code = 0 if good else 1
