"""Pods per second through the real kube-scheduler: alone, with a no-op extender, and with this one.

Pods of mixed fractions wait before the scheduler starts; measured is from the first Binding to the last. ``empty``: no
GPU is shared yet, so every new card costs a reservation pod. ``open``: the same pods again, on cards that are open.
Each is compared with the no-op's run on a control plane of its age: the first one there, or the second.

Nodes, their device plugins and the judge are the referee's of the tests: a run of ours in which a pod was refused, or a
card given out twice, is no figure but an error.

    python -m bench.throughput [--nodes 500,2000] [--pods 1000] [--rounds 1] [--shortlist 1,16]
"""

import argparse
import asyncio
import platform
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from extender.core import names
from tests.builders import make_node, make_pod
from tests.controlplane.client import PODS, Answer, Client, path_of
from tests.controlplane.gpu_node import Device, GpuNode, Rejection, gpu_node_of
from tests.controlplane.judge import judge
from tests.controlplane.process import Process, free_port
from tests.controlplane.stage import Served, Stage
from tests.controlplane.users import EXTENDER

GPUS: Final = 8
CARD_MIB: Final = 81_559
FRACTIONS: Final = ("0.1", "0.25", "0.5", "0.75", "0.3", "0.2")
NONE, NOOP, NOOP_AGAIN, EMPTY, OPEN = "none", "no-op", "no-op, again", "empty", "open"
_WRITES: Final = re.compile(r'apiserver_request_total\{[^}]*verb="(POST|PUT|PATCH|DELETE)"[^}]*\} ([0-9.e+]+)')

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of all pods."""

    pods_per_second: float
    #: Writes that the API server saw meanwhile, of everybody, for each pod.
    writes_per_pod: float
    #: CPU seconds by process.
    cpu: dict[str, float]


class Devices:
    """Kubelet, device plugin and agent of every node: each reservation pod gets a device as soon as it is bound."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = Random(0)
        self._nodes: dict[str, GpuNode] = {}
        self._refused: list[str] = []
        #: Pods that are bound, and when each was seen so.
        self.bound: dict[str, float] = {}

    def add(self, node: Json) -> None:
        """A node that is about to be created."""
        made = gpu_node_of(node, self._random)
        self._nodes[made.name] = made

    def violations(self) -> list[str]:
        """What a kubelet has refused, and what the judge finds wrong now."""
        return self._refused + [found.text for node in self._nodes.values() for found in judge(node)]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Follow all pods."""
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(self._follow(tasks))
            yield
            follower.cancel()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        while True:  # The server ends a watch whose reader is slower than the changes are.
            listed = await self._client.get(PODS)
            there = {pod["metadata"]["uid"] for pod in listed["items"]}
            for node in self._nodes.values():
                node.admitted = {uid: admitted for uid, admitted in node.admitted.items() if uid in there}
            for pod in listed["items"]:
                self._see(pod, tasks)
            async for kind, pod in self._client.watch(PODS, listed["metadata"]["resourceVersion"]):
                if kind != "DELETED":
                    self._see(pod, tasks)
                elif pod["spec"].get("nodeName"):
                    self._nodes[pod["spec"]["nodeName"]].admitted.pop(pod["metadata"]["uid"], None)

    def _see(self, pod: Json, tasks: asyncio.TaskGroup) -> None:
        node, uid = pod["spec"].get("nodeName"), pod["metadata"]["uid"]
        if not node or uid in self.bound:
            return
        self.bound[uid] = time.perf_counter()
        answer = self._nodes[node].admit(pod)
        if isinstance(answer, Rejection):
            self._refused.append(f"{pod['metadata']['name']} on {node}: {answer.message}")
        elif answer.is_reservation:
            tasks.create_task(self._report(pod, answer.devices[0]))

    async def _report(self, pod: Json, device: Device) -> None:
        annotations = {names.DEVICE: device.uuid, names.DEVICE_MEMORY_MIB: str(device.mib)}
        await self._client.patch(path_of(pod), {"metadata": {"annotations": annotations}})


class Bench:
    """One control plane with so many nodes."""

    def __init__(self, stage: Stage, client: Client, devices: Devices, pods: int) -> None:
        self._stage = stage
        self._client = client
        self._devices = devices
        self._pods = pods
        self._number = 0

    async def nodes(self, number: int) -> None:
        """Create them."""
        made = [make_node(f"node-{index:04}").cpu(128).gpus(GPUS, mib=CARD_MIB).build() for index in range(number)]
        for node in made:
            self._devices.add(node)
        await in_parallel(self._client.create_node, made)

    async def run(self, extender: Served | None, *, judged: bool = False) -> Run:
        """Let a scheduler place all pods. Raises AssertionError where the run is judged and anything was wrong."""
        self._number += 1
        pods = [
            make_pod(f"p-{self._number}-{index}")
            .gpu_fraction(FRACTIONS[index % len(FRACTIONS)])
            .spec(schedulerName="gpu-scheduler", terminationGracePeriodSeconds=0)
            .build()
            for index in range(self._pods)
        ]
        uids = {pod["metadata"]["uid"] for pod in await in_parallel(self._client.create_pod, pods)}
        writes = await self._writes()
        processes = {process.name: process for process in self._stage.plane.processes}
        before = {name: process.cpu_seconds() for name, process in processes.items()}
        name = f"scheduler-{self._number}"
        scheduler = self._stage.start_scheduler(extender, name)
        await self._until(lambda: uids <= self._devices.bound.keys())
        times = sorted(self._devices.bound[uid] for uid in uids)
        cpu = {name: process.cpu_seconds() - before[name] for name, process in processes.items()}
        cpu["kube-scheduler"] = scheduler.cpu_seconds()
        written = await self._writes() - writes
        scheduler.stop()
        wrong = self._devices.violations() if judged else []
        assert not wrong, wrong
        await in_parallel(self._remove, pods)
        return Run((len(pods) - 1) / (times[-1] - times[0]), written / len(pods), cpu)

    async def _remove(self, pod: Json) -> Json:
        return await self._client.delete(path_of(pod), {"gracePeriodSeconds": 0})

    async def _until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    async def _writes(self) -> float:
        text = await self._client.text("/metrics")
        return sum(float(number) for _, number in _WRITES.findall(text))


async def in_parallel(do: Callable[[Json], Any], objects: Any, workers: int = 16) -> list[Json]:
    """Each object once, some at a time."""
    waiting = iter(list(objects))
    done: list[Json] = []

    async def work() -> None:
        for found in waiting:
            try:
                done.append(await do(found))
            except Answer as answer:
                if answer.status != 404:
                    raise

    await asyncio.gather(*(work() for _ in range(workers)))
    return done


def start_noop(stage: Stage) -> Served:
    """``bench.noop`` with the rights of the extender."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.noop", str(port), str(stage.plane.kubeconfig(EXTENDER))]
    variables = {"PYTHONPATH": str(Path(__file__).parent.parent), "HOME": str(stage.plane.folder)}
    process = Process("no-op", command, stage.plane.folder / "noop.log", f"{url}/readyz", variables)
    stage.plane.processes.append(process)
    process.start()
    process.wait_until_ready()
    return Served(process, url)


async def measure(nodes: int, pods: int, shortlists: Sequence[int]) -> dict[str, Run]:
    """Every kind of run; each shortlist on a control plane of its own, which is empty, and as young as the no-op's."""
    found: dict[str, Run] = {}
    async with prepared(nodes, pods) as (stage, bench):
        noop = start_noop(stage)
        for kind in (NOOP, NOOP_AGAIN):
            found[kind] = await bench.run(noop)
        found[NONE] = await bench.run(None)
    for shortlist in shortlists:
        async with prepared(nodes, pods) as (stage, bench):
            extender = stage.start_extender(shortlist=shortlist)
            for state in (EMPTY, OPEN):
                found[f"{state}, shortlist {shortlist}"] = await bench.run(extender, judged=True)
    return found


@asynccontextmanager
async def prepared(nodes: int, pods: int) -> AsyncIterator[tuple[Stage, Bench]]:
    """A control plane with so many nodes, whose devices are at work."""
    with Stage() as stage:
        async with Client(stage.plane) as client:
            devices = Devices(client)
            bench = Bench(stage, client, devices, pods)
            await bench.nodes(nodes)
            async with devices.at_work():
                yield stage, bench


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="500,2000")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shortlist", default="1,16")
    chosen = parser.parse_args()
    shortlists = [int(number) for number in chosen.shortlist.split(",")]
    print(f"{platform.machine()}, Python {platform.python_version()}, {chosen.pods} pods of mixed fractions\n")
    print("| nodes | extender | pods/s | × no-op | API writes per pod | CPU seconds: scheduler, extender, API server |")
    print("| --- | --- | --- | --- | --- | --- |")
    for nodes in map(int, chosen.nodes.split(",")):
        rounds = [asyncio.run(measure(nodes, chosen.pods, shortlists)) for _ in range(chosen.rounds)]
        for kind in rounds[0]:
            noop = NOOP if kind == NOOP or kind.startswith(EMPTY) else NOOP_AGAIN
            print(_row(nodes, kind, [found[kind] for found in rounds], [found[noop] for found in rounds]), flush=True)


def _row(nodes: int, kind: str, runs: list[Run], noops: list[Run]) -> str:
    ratio = median(run.pods_per_second / noop.pods_per_second for run, noop in zip(runs, noops, strict=True))
    speed = median(run.pods_per_second for run in runs)
    writes = median(run.writes_per_pod for run in runs)
    cpu = runs[-1].cpu
    seconds = [
        cpu["kube-scheduler"],
        cpu.get(NOOP, cpu.get("extender", 0.0)) if kind != NONE else 0.0,
        cpu["kube-apiserver"],
    ]
    shown = ", ".join(f"{value:.1f}" for value in seconds)
    return f"| {nodes} | {kind} | {speed:.0f} | {ratio:.2f} | {writes:.1f} | {shown} |"


if __name__ == "__main__":
    main()
